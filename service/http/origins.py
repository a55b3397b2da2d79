"""Checks of the Host header (DNS rebinding) and the Origin header (cross-site request forgery)."""

import ipaddress
from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import Scope

from models.addresses import DEFAULT_PORTS
from models.errors import Forbidden
from service.http.errors import BadRequest, shown
from service.http.proxies import FORWARDED_SCHEME

SAFE_METHODS = {"GET", "HEAD", "OPTIONS"}
NAMED_ORIGIN = "epochal.named_origin"
"""Scope key of a request from an allowed cross-origin page (service.http.cors)."""


class HostNames:
    """The host names at which the lab may be addressed."""

    def __init__(self, allowed: Iterable[str], *, any_address: bool) -> None:
        self.allowed = {host.lower() for host in allowed}
        self.any_address = any_address

    def check(self, headers: Headers) -> None:
        """Check the Host header against the allowed names, as protection from DNS rebinding.

        Raises Forbidden, and BadRequest for several Host headers, of which a proxy may have checked another one.
        """
        given = headers.getlist("host")
        if len(given) > 1:
            raise BadRequest(f"the request has {len(given)} Host headers", fix="send one")
        host = _host_name(given[0] if given else "")
        if "*" in self.allowed or host in self.allowed or self._is_own_address(host):
            return
        raise Forbidden(
            f"the host '{shown(host)}' is not one of this lab's allowed host names",
            fix="use an address in EPOCHAL_ALLOWED_HOSTS, or add this one there",
            allowed_hosts=sorted(self.allowed),
        )

    def _is_own_address(self, host: str) -> bool:
        """Whether a host is an IP address that is allowed: loopback always, others where a key is required."""
        try:
            address = ipaddress.ip_address(host.strip("[]"))
        except ValueError:
            return False
        return address.is_loopback or self.any_address


def check_origin(scope: Scope, headers: Headers) -> None:
    """Check the Origin and Sec-Fetch-Site headers of requests that change something. Raises Forbidden."""
    if scope["method"] in SAFE_METHODS or scope.get(NAMED_ORIGIN):
        return
    origin, site = headers.get("origin"), headers.get("sec-fetch-site")
    foreign = site is not None and site not in ("same-origin", "none")
    if origin is not None:
        foreign = foreign or not is_own_origin(origin, headers.get("host", ""), scope.get(FORWARDED_SCHEME))
    if foreign:
        raise Forbidden(
            f"a page of {shown(origin or 'another site')} may not change anything here",
            fix="send it from this lab's own pages or from a program, or name the origin in EPOCHAL_ALLOWED_ORIGINS",
        )


def is_own_origin(origin: str, host: str, scheme: str | None = None) -> bool:
    """Whether an Origin header names the host and port of a Host header, with default ports filled in.

    scheme: the client's, where a trusted proxy states it; otherwise the origin's own scheme is accepted, since a proxy
    that is not in EPOCHAL_TRUSTED_PROXIES may have terminated TLS in front of the lab.
    """
    its_scheme, separator, its_place = origin.strip().lower().partition("://")
    if not separator or its_scheme not in DEFAULT_PORTS or scheme not in (None, its_scheme):
        return False
    theirs, ours = _place(its_place, its_scheme), _place(host.strip().lower(), its_scheme)
    return theirs is not None and theirs == ours


def _place(text: str, scheme: str) -> tuple[str, int] | None:
    """Parse `host:port` into host and port; None for anything else."""
    try:
        parts = urlsplit(f"//{text}")
        port = parts.port
    except ValueError:
        return None
    if parts.netloc != text or "@" in text or not parts.hostname:
        return None
    return parts.hostname.rstrip("."), DEFAULT_PORTS[scheme] if port is None else port


def _host_name(header: str) -> str:
    """Return the name in a Host header, without its port and in lower case."""
    host = header.strip().lower()
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0].rstrip(".")
