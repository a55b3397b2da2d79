"""Who is asking, and what may they do: API keys, sessions of the pages, roles, rates.

Keys are needed everywhere but on loopback, where they can be switched on. A program sends its key with every request
(Authorization: Bearer, or X-API-Key). The pages exchange it once for a signed cookie that no script can read and no
other site can use.
"""

import base64
import hashlib
import hmac
import ipaddress
import json
import os
import secrets
import time
from dataclasses import dataclass
from pathlib import Path

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from models.errors import Forbidden, Unauthorized
from models.settings import Settings
from models.store import Store, keys
from models.store.states import Role
from service.origins import SAFE_METHODS
from service.prefix import under
from service.quotas import Buckets

SESSION_COOKIE = "epochal_session"
FORM_COOKIE = "epochal_form"
SESSION_SECONDS = 12 * 3600
SECRET_FILE = "session.secret"  # noqa: S105 - a file name
REMEMBER_SECONDS = 2.0
"""How long a verified key is trusted without asking the database: a revoked one works for as long."""
MAX_REMEMBERED = 1000
FAILED_LOGINS_PER_MINUTE = 30


class LoginNeeded(Unauthorized):
    """A page that a browser without a session asked for: it is sent to the login form."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Whoever sent the request: the name of a key, or nobody in particular where none is needed."""

    name: str | None
    role: Role
    by_cookie: bool = False


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

    def __init__(self, settings: Settings, store: Store) -> None:
        self.needed = keys_needed(settings)
        self._store = store
        self._secret = _read_secret(settings.data_dir / SECRET_FILE) if self.needed else b""
        self._remembered: dict[str, tuple[float, Caller | None]] = {}
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
        session = request.cookies.get(SESSION_COOKIE)
        if key is not None:
            caller = await self._recognise(key, request)
        elif session:
            caller = await self._resume_session(session)
        else:
            raise Unauthorized(
                "this lab asks for an API key",
                fix="send Authorization: Bearer YOUR-KEY; `epochal keys create NAME` makes one where the lab runs",
            )
        self._requests.take(str(caller.name))
        return caller

    async def log_in(self, key: str, request: Request) -> tuple[Caller, str]:
        """Exchange a key for the value of a session cookie."""
        caller = await self._recognise(key.strip(), request)
        payload = json.dumps({"name": caller.name, "until": int(time.time()) + SESSION_SECONDS}).encode()
        return caller, self._sign(payload)

    def form_token(self) -> str:
        """A token that a form carries, and a cookie beside it: another site can set neither."""
        return self._sign(secrets.token_bytes(16))

    def check_form_token(self, in_form: str, in_cookie: str) -> None:
        """Raise Forbidden unless the form was made here, for this browser."""
        same = hmac.compare_digest(in_form.encode(), in_cookie.encode())
        if not same or self._signed(in_form) is None:
            raise Forbidden("the form was not made by this lab or is too old", fix="open the page again")

    def count_upload(self, caller: Caller, num_bytes: int) -> None:
        """Charge an upload to whoever sent it. Raises TooManyRequests past the quota."""
        if caller.name is not None:
            self._uploads.take(caller.name, num_bytes)

    async def _recognise(self, key: str, request: Request) -> Caller:
        address = request.client.host if request.client else "unknown"
        self._failures.check(address)
        caller = await self._look_up(hashlib.sha256(key.encode("utf-8", "replace")).hexdigest(), key)
        if caller is None:
            self._failures.take(address)
            raise Unauthorized("the API key is not known, or was revoked", fix="check it, or ask for a new one")
        return caller

    async def _look_up(self, digest: str, key: str) -> Caller | None:
        now = time.monotonic()
        until, caller = self._remembered.get(digest, (0.0, None))
        if now >= until:
            caller = await run_in_threadpool(self._verify, key)
            if len(self._remembered) >= MAX_REMEMBERED:
                self._remembered.clear()
            if caller is not None:
                self._remembered[digest] = (now + REMEMBER_SECONDS, caller)
        return caller

    def _verify(self, key: str) -> Caller | None:
        with self._store.reading() as session:
            found = keys.verify(session, key)
            return None if found is None else Caller(found.name, found.role)

    async def _resume_session(self, cookie: str) -> Caller:
        payload = self._signed(cookie)
        stated = json.loads(payload) if payload else {}
        name = stated.get("name") if stated.get("until", 0) > time.time() else None
        caller = await run_in_threadpool(self._find_by_name, name) if name else None
        if caller is None:
            raise Unauthorized("the session has ended", fix="GET /login asks for the key again")
        return caller

    def _find_by_name(self, name: str) -> Caller | None:
        with self._store.reading() as session:
            for key in keys.list(session):
                if key.name == name and key.revoked_at is None:
                    return Caller(name, key.role, by_cookie=True)
        return None

    def _sign(self, payload: bytes) -> str:
        mark = hmac.digest(self._secret, payload, "sha256")
        return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in (payload, mark))

    def _signed(self, text: str) -> bytes | None:
        """The payload, if this lab signed it."""
        try:
            payload, mark = (base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)) for part in text.split("."))
        except ValueError:
            return None
        return payload if hmac.compare_digest(mark, hmac.digest(self._secret, payload, "sha256")) else None


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
    """The key that sessions are signed with, made once; processes that start together agree on it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        temporary = path.with_name(f"{path.name}.{os.getpid()}")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(32))
        try:
            os.link(temporary, path)  # unlike a rename, fails if another process was first
        except FileExistsError:
            pass
        finally:
            temporary.unlink()
    return path.read_bytes()
