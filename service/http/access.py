"""Who is asking, and what may they do: API keys, sessions of the pages, roles, rates.

Keys are needed everywhere but on loopback, where they can be switched on. A program sends its key with every request
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
from service.http.prefix import under
from service.http.quotas import Buckets

SESSION_COOKIE = "epochal_session"
FORM_COOKIE = "epochal_form"
SESSION_SECONDS = 12 * 3600
SECRET_FILE = "session.secret"  # noqa: S105 - a file name
FORM_SECONDS = 3600
FAILED_LOGINS_PER_MINUTE = 30


class LoginNeeded(Unauthorized):
    """A page that a browser without a session asked for: it is sent to the login form."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Whoever sent the request: the name of a key, or nobody in particular where none is needed."""

    name: str | None
    role: Role
    by_cookie: bool = False
    credential: str = ""
    """The digest of the key or session that was shown."""


NOBODY = Caller(None, Role.SUBMITTER)


def keys_needed(settings: Settings) -> bool:
    """Whether requests need a key: always, but on loopback, where it is the setting's choice."""
    return settings.auth or not _is_loopback(settings.host)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


class Doorkeeper:
    """Tells callers from their keys and cookies, and counts what they do."""

    def __init__(self, settings: Settings, store: Store, stamps: Stamps) -> None:
        self.needed = keys_needed(settings)
        self._store = store
        self._credentials = Credentials(store, stamps)
        secret = _read_secret(settings.data_dir / SECRET_FILE) if self.needed else b"no keys, no forms"
        self._forms = TimestampSigner(secret, salt="login form", digest_method=hashlib.sha256)
        self._requests = Buckets("requests per minute", capacity=settings.requests_per_minute, seconds=60)
        self._uploads = Buckets(
            "megabytes of uploads per hour", capacity=settings.upload_mb_per_hour * 1_000_000, seconds=3600
        )
        self._failures = Buckets("failed logins per minute", capacity=FAILED_LOGINS_PER_MINUTE, seconds=60)

    async def identify(self, request: Request) -> Caller:
        """The caller of a request. Raises Unauthorized without a valid key, TooManyRequests past its rate."""
        if not self.needed:
            return NOBODY
        key = _key_of(request)
        token = request.cookies.get(SESSION_COOKIE)
        if key is not None:
            caller = await self._recognise(key, request)
        elif token:
            caller = await self._resume(token)
        else:
            raise Unauthorized(
                "this lab asks for an API key",
                fix="send Authorization: Bearer YOUR-KEY; `epochal keys create NAME` makes one where the lab runs",
            )
        self._requests.take(str(caller.name))
        return caller

    async def is_known(self, request: Request) -> bool:
        """Whether a request shows a good key or session, for what tells strangers less."""
        try:
            await self.identify(request)
        except (Unauthorized, TooManyRequests):
            return False
        return True

    async def still_admits(self, caller: Caller) -> bool:
        """Whether what the caller showed is still good: the key not revoked, the session not ended."""
        return not self.needed or await self._find(caller.credential, by_cookie=caller.by_cookie) is not None

    async def log_in(self, key: str, request: Request) -> str:
        """Exchange a key for the value of a session cookie."""
        caller = await self._recognise(key.strip(), request)
        token = await run_in_threadpool(self._begin_session, caller.credential)
        if token is None:
            raise Unauthorized("the API key was revoked", fix="ask for a new one")
        return token

    async def log_out(self, request: Request) -> None:
        """End the session that a request shows, here and not just in its browser."""
        if self.needed and (token := request.cookies.get(SESSION_COOKIE)):
            await run_in_threadpool(self._end_session, digest_of(token))
            self._credentials.changed()

    def form_token(self) -> str:
        """A token that a form carries, and a cookie beside it: another site can set neither."""
        return self._forms.sign(secrets.token_urlsafe(16)).decode()

    def check_form_token(self, in_form: str, in_cookie: str) -> None:
        """Raise Forbidden unless the form was made here, for this browser."""
        same = hmac.compare_digest(in_form.encode("utf-8", "replace"), in_cookie.encode("utf-8", "replace"))
        if not same or not self._forms.validate(in_form, max_age=FORM_SECONDS):
            raise Forbidden("the form was not made by this lab or is too old", fix="open the page again")

    def count_upload(self, caller: Caller, num_bytes: int) -> None:
        """Charge an upload to whoever sent it. Raises TooManyRequests past the quota."""
        if caller.name is not None:
            self._uploads.take(caller.name, num_bytes)

    async def _recognise(self, key: str, request: Request) -> Caller:
        """Whose key it is. Only those that are nobody's count: a neighbour at the same address keeps nobody out."""
        caller = await self._find(digest_of(key), by_cookie=False)
        if caller is None:
            self._failures.take(request.client.host if request.client else "unknown")
            raise Unauthorized("the API key is not known, or was revoked", fix="check it, or ask for a new one")
        return caller

    async def _resume(self, token: str) -> Caller:
        """Whose session it is."""
        caller = await self._find(digest_of(token), by_cookie=True)
        if caller is None:
            raise Unauthorized("the session has ended", fix="GET /login asks for the key again")
        return caller

    async def _find(self, digest: str, *, by_cookie: bool) -> Caller | None:
        """A key is no session and a session no key, whatever their digests."""
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
    """Raise Forbidden unless the caller may do this: reading takes a viewer, changing a submitter."""
    needed = needed or (Role.VIEWER if request.method in SAFE_METHODS else Role.SUBMITTER)
    if needed is Role.SUBMITTER and caller.role is not Role.SUBMITTER:
        raise Forbidden(
            f"the key '{caller.name}' is a viewer's: it reads and predicts, and changes nothing",
            fix="use a submitter's key",
        )
    if caller.by_cookie and request.method not in SAFE_METHODS and not _comes_from_here(request):
        raise Forbidden("a session may change things only from this lab's own pages", fix="use an API key instead")


def _comes_from_here(request: Request) -> bool:
    """Whether a browser says so: the perimeter has refused those that say otherwise."""
    return "origin" in request.headers or request.headers.get("sec-fetch-site") == "same-origin"


def set_cookie(response: Response, name: str, value: str, request: Request, max_age: int) -> None:
    """A cookie that scripts cannot read and that is sent along from this lab's own pages only."""
    secure = request.url.scheme == "https"
    path = under("") or "/"
    response.set_cookie(name, value, max_age=max_age, path=path, httponly=True, samesite="strict", secure=secure)


def delete_cookie(response: Response, name: str) -> None:
    """Have the browser forget a cookie of `set_cookie`."""
    response.delete_cookie(name, path=under("") or "/", httponly=True, samesite="strict")


def _key_of(request: Request) -> str | None:
    scheme, _, credentials = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and credentials.strip():
        return credentials.strip()
    return request.headers.get("x-api-key") or None


def _read_secret(path: Path) -> bytes:
    """The key that forms are signed with, made once; processes that start together agree on it."""
    if not path.exists():
        write_once(path, secrets.token_bytes(32), mode=0o600)
    return path.read_bytes()
