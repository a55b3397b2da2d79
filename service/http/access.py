"""Authentication and authorisation: API keys, the pages' sessions, roles, rate limits.

Keys are required everywhere but on loopback, where they can be switched on. A program sends its key with every request
(Authorization: Bearer, or X-API-Key). The pages exchange it once for a session, kept in the database, whose token is in
a cookie that no script can read and no other site can use.
"""

import hashlib
import hmac
import ipaddress
import secrets
from dataclasses import dataclass
from pathlib import Path

from itsdangerous import TimestampSigner
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from models.errors import Forbidden, TooManyRequests, Unauthorized
from models.files import write_once
from models.settings import Settings
from models.store import Store, sessions
from models.store.keys import digest_of
from models.store.stamps import Stamps
from models.store.states import Role
from service.http.credentials import Credentials
from service.http.origins import SAFE_METHODS
from service.http.prefix import with_prefix
from service.http.quotas import RateLimiter

SESSION_COOKIE = "epochal_session"
FORM_COOKIE = "epochal_form"
SESSION_SECONDS = 12 * 3600
SECRET_FILE = "session.secret"  # noqa: S105 - a file name
FORM_SECONDS = 3600
FAILED_LOGINS_PER_MINUTE = 30


class LoginNeeded(Unauthorized):
    """A browser requested a page without a session: it is redirected to the login form."""


@dataclass(frozen=True, slots=True)
class Caller:
    """The authenticated sender of a request: a key's name and role; no name where no key is required."""

    name: str | None
    role: Role
    by_cookie: bool = False
    credential: str = ""
    """SHA-256 of the key or session token that was sent."""


ANONYMOUS = Caller(None, Role.SUBMITTER)


def keys_needed(settings: Settings) -> bool:
    """Whether requests need a key: always beyond loopback, by setting on loopback."""
    return settings.auth or not _is_loopback(settings.host)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


class Authenticator:
    """Authenticates requests by key or session cookie, and applies rate limits and quotas."""

    def __init__(self, settings: Settings, store: Store, stamps: Stamps) -> None:
        self.needed = keys_needed(settings)
        self._store = store
        self._credentials = Credentials(store, stamps)
        secret = _read_secret(settings.data_dir / SECRET_FILE) if self.needed else b"no keys, no forms"
        self._forms = TimestampSigner(secret, salt="login form", digest_method=hashlib.sha256)
        self._requests = RateLimiter("requests per minute", capacity=settings.requests_per_minute, seconds=60)
        self._uploads = RateLimiter(
            "megabytes of uploads per hour", capacity=settings.upload_mb_per_hour * 1_000_000, seconds=3600
        )
        self._failures = RateLimiter("failed logins per minute", capacity=FAILED_LOGINS_PER_MINUTE, seconds=60)

    async def identify(self, request: Request) -> Caller:
        """Authenticate a request. Raises Unauthorized without a valid key, TooManyRequests above its rate limit."""
        if not self.needed:
            return ANONYMOUS
        key = _key_of(request)
        token = request.cookies.get(SESSION_COOKIE)
        if key is not None:
            caller = await self._authenticate_key(key, request)
        elif token:
            caller = await self._authenticate_session(token)
        else:
            raise Unauthorized(
                "this lab requires an API key",
                fix="send Authorization: Bearer YOUR-KEY; `epochal keys create NAME` makes one where the lab runs",
            )
        self._requests.take(str(caller.name))
        return caller

    async def is_authenticated(self, request: Request) -> bool:
        """Whether a request carries a valid key or session, for answers that are less detailed without one."""
        try:
            await self.identify(request)
        except (Unauthorized, TooManyRequests):
            return False
        return True

    async def is_still_valid(self, caller: Caller) -> bool:
        """Whether the caller's credential is still valid: the key not revoked, the session not ended."""
        return not self.needed or await self._find(caller.credential, by_cookie=caller.by_cookie) is not None

    async def log_in(self, key: str, request: Request) -> str:
        """Create a session for a key and return the value of its cookie. Raises Unauthorized, TooManyRequests."""
        caller = await self._authenticate_key(key.strip(), request)
        token = await run_in_threadpool(self._begin_session, caller.credential)
        if token is None:
            raise Unauthorized("the API key was revoked", fix="request a new key")
        return token

    async def log_out(self, request: Request) -> None:
        """End a request's session in the database, so that a copy of the cookie is useless too."""
        if self.needed and (token := request.cookies.get(SESSION_COOKIE)):
            await run_in_threadpool(self._end_session, digest_of(token))
            self._credentials.invalidate()

    def form_token(self) -> str:
        """Create a CSRF token, to be sent in both a form field and a cookie (signed double submit)."""
        return self._forms.sign(secrets.token_urlsafe(16)).decode()

    def check_form_token(self, in_form: str, in_cookie: str) -> None:
        """Check a form's CSRF token against its cookie. Raises Forbidden."""
        same = hmac.compare_digest(in_form.encode("utf-8", "replace"), in_cookie.encode("utf-8", "replace"))
        if not same or not self._forms.validate(in_form, max_age=FORM_SECONDS):
            raise Forbidden(
                "the form's token is not valid or is older than an hour", fix="reload the page and send the form again"
            )

    def count_upload(self, caller: Caller, num_bytes: int) -> None:
        """Count an upload against its caller's quota. Raises TooManyRequests above it."""
        if caller.name is not None:
            self._uploads.take(caller.name, num_bytes)

    async def _authenticate_key(self, key: str, request: Request) -> Caller:
        """Authenticate by key. Only failures count against the address, so they cannot lock out a valid key there."""
        caller = await self._find(digest_of(key), by_cookie=False)
        if caller is None:
            self._failures.take(request.client.host if request.client else "unknown")
            raise Unauthorized(
                "the API key is not known, or was revoked",
                fix="check it, or request a new one from the lab's administrator",
            )
        return caller

    async def _authenticate_session(self, token: str) -> Caller:
        """Authenticate by session token."""
        caller = await self._find(digest_of(token), by_cookie=True)
        if caller is None:
            raise Unauthorized("the session has ended", fix="log in again with GET /login")
        return caller

    async def _find(self, digest: str, *, by_cookie: bool) -> Caller | None:
        """Look up a credential; a session's token is not accepted as a key, nor a key as a session's token."""
        found = await self._credentials.find(digest)
        if found is None or (found.expires_at is not None) is not by_cookie:
            return None
        return Caller(found.key_name, found.role, by_cookie, digest)

    def _begin_session(self, key_sha256: str) -> str | None:
        with self._store.writing() as session:
            return sessions.create(session, key_sha256, seconds=SESSION_SECONDS)

    def _end_session(self, token_sha256: str) -> None:
        with self._store.writing() as session:
            sessions.end(session, token_sha256)


def check_role(caller: Caller, request: Request, *, needed: Role | None = None) -> None:
    """Check a caller's role: safe methods need a viewer, others a submitter. Raises Forbidden."""
    needed = needed or (Role.VIEWER if request.method in SAFE_METHODS else Role.SUBMITTER)
    if needed is Role.SUBMITTER and caller.role is not Role.SUBMITTER:
        raise Forbidden(
            f"the key '{caller.name}' has the role viewer, which may read and predict but not change anything",
            fix="use a key with the role submitter",
        )
    if caller.by_cookie and request.method not in SAFE_METHODS and not _comes_from_here(request):
        raise Forbidden(
            "a session cookie may change things only from this lab's own pages", fix="use an API key instead"
        )


def _comes_from_here(request: Request) -> bool:
    """Whether the headers show a same-origin request; the perimeter has refused other origins already."""
    return "origin" in request.headers or request.headers.get("sec-fetch-site") == "same-origin"


def set_cookie(response: Response, name: str, value: str, request: Request, max_age: int) -> None:
    """Set a cookie that is HttpOnly and SameSite=Strict, and Secure over HTTPS."""
    secure = request.url.scheme == "https"
    path = with_prefix("") or "/"
    response.set_cookie(name, value, max_age=max_age, path=path, httponly=True, samesite="strict", secure=secure)


def delete_cookie(response: Response, name: str) -> None:
    """Delete a cookie set by `set_cookie`."""
    response.delete_cookie(name, path=with_prefix("") or "/", httponly=True, samesite="strict")


def _key_of(request: Request) -> str | None:
    scheme, _, credentials = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and credentials.strip():
        return credentials.strip()
    return request.headers.get("x-api-key") or None


def _read_secret(path: Path) -> bytes:
    """Read the secret that signs forms, creating it if there is none; concurrent processes get the same one."""
    if not path.exists():
        write_once(path, secrets.token_bytes(32), mode=0o600)
    return path.read_bytes()
