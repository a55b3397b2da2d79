"""Trusted reverse proxies: X-Forwarded-For and -Proto give the real client, from configured addresses only."""

import ipaddress
from collections.abc import Iterable
from functools import lru_cache

from starlette.datastructures import Headers
from starlette.types import Scope

from models.addresses import Network, normal_network

SCHEMES = ("http", "https")
FORWARDED_SCHEME = "epochal.forwarded_scheme"
"""Scope key of the client's scheme, as stated by a trusted proxy."""


class TrustedProxies:
    """Addresses and networks of proxies with trusted X-Forwarded headers (EPOCHAL_TRUSTED_PROXIES)."""

    def __init__(self, named: Iterable[str] = ()) -> None:
        """Parse addresses and networks. Raises ValueError for anything else."""
        self._networks: list[Network] = [normal_network(name) for name in named]
        self.trusts = lru_cache(maxsize=1024)(self._trusts)

    def _trusts(self, host: str) -> bool:
        address = _address(host)
        return address is not None and any(address in network for network in self._networks)

    def sent(self, scope: Scope) -> bool:
        """Whether a request's peer is a trusted proxy. To be called before `unwrap`, which replaces the client."""
        client = scope.get("client")
        return bool(self._networks and client and self.trusts(client[0]))

    def unwrap(self, scope: Scope) -> None:
        """Set the scope's client and scheme from X-Forwarded headers, if a trusted proxy forwarded the request.

        Every proxy appends its peer's address to X-Forwarded-For, so the list is read from its end: the first address
        that is not a trusted proxy's is the client. Earlier entries were written by the client itself.
        """
        if not self.sent(scope):
            return
        headers = Headers(scope=scope)
        for entry in reversed(",".join(headers.getlist("x-forwarded-for")).split(",")):
            address = _address(entry)
            if address is None:
                break
            scope["client"] = (str(address), 0)
            if not self.trusts(str(address)):
                break
        scheme = headers.getlist("x-forwarded-proto")[-1:]
        if scheme and (last := scheme[0].rpartition(",")[2].strip().lower()) in SCHEMES:
            scope["scheme"] = scope[FORWARDED_SCHEME] = last


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Parse an entry of X-Forwarded-For, with or without a port; IPv4-mapped IPv6 becomes IPv4. None if invalid."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address):
        return address.ipv4_mapped or address
    return address
