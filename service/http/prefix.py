"""The path prefix under which a reverse proxy publishes the lab.

A lab at https://group.example/epochal/ gives out addresses under /epochal, whether the proxy takes that prefix off
before it passes a request on or leaves it there. The prefix is EPOCHAL_ROOT_PATH, or what a trusted proxy states in
X-Forwarded-Prefix. Inside, paths never carry it: `StripPrefix` takes it off, and `with_prefix` puts it on again where
an address leaves the lab.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from contextvars import ContextVar

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from models.addresses import PREFIX
from models.findings import FindingJson

MAX_PREFIX = 200
ADDRESS_IN_TEXT = re.compile(r"\b(GET|POST|PUT|PATCH|DELETE) /(?=[a-z\s]|$)")
"""Pattern by which messages name an address of the lab."""

_prefix: ContextVar[str] = ContextVar("prefix", default="")
"""Prefix of the current request; copied into the threads that work for it."""


def prefix() -> str:
    """Return the current request's prefix: empty, or a path that begins with a slash and does not end with one."""
    return _prefix.get()


def set_prefix(text: str) -> None:
    """Set the prefix in the current context, for answers made outside the application."""
    _prefix.set(text)


def with_prefix(path: str) -> str:
    """Add the current prefix to a path of this lab, as the client has to write it."""
    return _prefix.get() + path


def with_prefix_in(text: str) -> str:
    """Add the current prefix to every "GET /api/v1/..." in a message."""
    before = _prefix.get()
    return ADDRESS_IN_TEXT.sub(rf"\1 {before}/", text) if before else text


def with_prefix_in_suggestions(findings: Sequence[FindingJson]) -> list[FindingJson]:
    """Return findings or warnings with the current prefix on the addresses that their suggestions name."""
    return [
        {**finding, "suggestion": with_prefix_in(finding["suggestion"])} if finding.get("suggestion") else finding
        for finding in findings
    ]


class StripPrefix:
    """ASGI middleware that strips the prefix from the path, if present, and sets it for `with_prefix`."""

    def __init__(self, app: ASGIApp, *, root_path: str, trusts: Callable[[Scope], bool], own: Iterable[str]) -> None:
        self.app = app
        self.root_path = root_path
        self.own = frozenset(own)
        """First segments of the lab's own paths: if the prefix is one of them, the second segment decides."""
        self._trusts = trusts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        found = self._stated(scope) or self.root_path
        set_prefix(found)
        if found:
            scope = {**scope, "path": self._without(found, scope["path"])}
        await self.app(scope, receive, send)

    def _without(self, found: str, path: str) -> str:
        if path != found and not path.startswith(f"{found}/"):
            return path
        rest = path[len(found) :] or "/"
        return path if _first(found) in self.own and _first(rest) not in self.own else rest

    def _stated(self, scope: Scope) -> str:
        """Return the prefix that a trusted proxy states. Proxies in a chain each put theirs in front."""
        if not self._trusts(scope):
            return ""
        values = Headers(scope=scope).getlist("x-forwarded-prefix")
        parts = [part.strip().rstrip("/") for value in values for part in value.split(",")]
        stated = "".join(part if part.startswith("/") else f"/{part}" for part in parts if part)
        return stated if len(stated) <= MAX_PREFIX and PREFIX.fullmatch(stated) else ""


def _first(path: str) -> str:
    return path.split("/", 2)[1]
