"""Proxies in front of the lab: their headers say who really asks, and are believed from named addresses only."""

import ipaddress
from collections.abc import Iterable
from functools import lru_cache

from starlette.datastructures import Headers
from starlette.types import Scope

from models.addresses import Network, normal_network

SCHEMES = ("http", "https")
FORWARDED_SCHEME = "epochal.forwarded_scheme"
"""Key in the scope: the scheme that a trusted proxy says the client used."""


class TrustedProxies:
    """The addresses and networks of proxies whose X-Forwarded headers are believed (EPOCHAL_TRUSTED_PROXIES)."""

    def __init__(self, named: Iterable[str] = ()) -> None:
        """Raises ValueError for what is neither an address nor a network."""
        self._networks: list[Network] = [normal_network(name) for name in named]
        self.trusts = lru_cache(maxsize=1024)(self._trusts)

    def _trusts(self, host: str) -> bool:
        address = _address(host)
        return address is not None and any(address in network for network in self._networks)

    def sent(self, scope: Scope) -> bool:
        """Whether a request comes straight from a trusted proxy. Ask before `unwrap`, which replaces the client."""
        client = scope.get("client")
        return bool(self._networks and client and self.trusts(client[0]))

    def unwrap(self, scope: Scope) -> None:
        """Put the real client and scheme into the scope of a request that a trusted proxy passed on.

        Every proxy appends the address that it saw to X-Forwarded-For, so the list is read from its end: the first
        address that is not a trusted proxy's is the client. What stands before it was written by the client itself.
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
    """An address as X-Forwarded-For has it, with a port or without; an IPv4 one inside IPv6 is taken out."""
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
