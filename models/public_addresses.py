"""Which addresses the lab may send webhooks to: those of the public internet, however they are written.

The networks are those of IANA's special-purpose registries (RFC 6890 and its successors) as of 2026. They are listed
here since `ipaddress.is_global` differs between releases of Python, and takes multicast for global.
"""

import ipaddress
import re
import socket
from urllib.parse import SplitResult, urlsplit

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

MAX_URL = 2000
LOWEST_PORT = 1024
"""Below it are only 80 and 443: a webhook is no way to talk to a mail server or to SSH."""
NOT_PUBLIC = tuple(
    ipaddress.IPv4Network(text)
    for text in (
        "0.0.0.0/8",  # this host
        "10.0.0.0/8",
        "100.64.0.0/10",  # carrier-grade NAT
        "127.0.0.0/8",
        "169.254.0.0/16",  # link-local; clouds keep credentials there
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and broadcast
    )
)
GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
"""All else of IPv6 is private, local, multicast or reserved, but for what embeds an IPv4 address."""
NOT_PUBLIC_IPV6 = tuple(
    ipaddress.IPv6Network(text)
    for text in ("2001::/23", "2001:db8::/32", "3fff::/20")  # protocols (Teredo too); documentation twice
)
EMBEDDING = (
    (ipaddress.IPv6Network("::ffff:0:0/96"), 0),  # IPv4-mapped
    (ipaddress.IPv6Network("64:ff9b::/96"), 0),  # NAT64
    (ipaddress.IPv6Network("2002::/16"), 80),  # 6to4
)
"""Networks of IPv6 addresses with an IPv4 address in them, and by how many bits that is shifted."""
HOST = re.compile(r"[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?")
NUMERIC = re.compile(r"(.*\.)?([0-9]+|0x[0-9a-f]*)")
"""Hosts that resolvers read as an IPv4 address: 2130706433, 0x7f.1, 017700000001 are all 127.0.0.1."""


def is_public(address: Address) -> bool:
    """Whether an address belongs to the public internet, and so does the IPv4 address that it may embed."""
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in network for network in NOT_PUBLIC)
    for network, shift in EMBEDDING:
        if address in network:
            return is_public(ipaddress.IPv4Address((int(address) >> shift) & 0xFFFFFFFF))
    return address in GLOBAL_UNICAST and not any(address in network for network in NOT_PUBLIC_IPV6)


def read_public_url(text: str, *, allow_private: bool) -> str:
    """An address to which webhooks may be sent, in one form: lower-case host, no default port, IPv4 in four numbers.

    A name is not looked up: what it resolves to is checked when something is sent, since it may change. Raises
    ValueError with the rule that the text breaks.
    """
    parts = _split(text)
    if parts.scheme not in ("http", "https"):
        raise ValueError(f"has the scheme '{parts.scheme[:20]}'; write https://... or http://...")
    if "@" in parts.netloc:
        raise ValueError("has a user or password in it; requests are signed instead")
    try:
        port = parts.port
    except ValueError:
        raise ValueError("has a port that is not a number from 1 to 65535") from None
    if port is not None and port not in (80, 443) and port < LOWEST_PORT:
        raise ValueError(f"has the port {port}; allowed are 80, 443, and {LOWEST_PORT} and above")
    host = _read_host(parts.hostname or "", allow_private=allow_private)
    default = 443 if parts.scheme == "https" else 80
    where = host if port in (None, default) else f"{host}:{port}"
    return f"{parts.scheme}://{where}{parts.path or '/'}" + (f"?{parts.query}" if parts.query else "")


def _split(text: str) -> SplitResult:
    if len(text) > MAX_URL:
        raise ValueError(f"has {len(text):,} characters, of {MAX_URL:,} allowed")
    if not re.fullmatch(r"[!-~]+", text) or "\\" in text:
        raise ValueError("has blanks, backslashes or characters beyond ASCII; escape them, a host as punycode")
    if "#" in text:
        raise ValueError("has a fragment (#...), which is never sent; leave it out")
    try:
        return urlsplit(text)
    except ValueError as error:
        raise ValueError(f"is not an address: {str(error)[:100]}") from None


def _read_host(host: str, *, allow_private: bool) -> str:
    name = host.lower().removesuffix(".")
    address: Address | None = None
    if ":" in name:
        try:
            address = ipaddress.IPv6Address(name)
        except ValueError:
            raise ValueError(f"has the host '[{host[:60]}]', which is not an IPv6 address") from None
    elif NUMERIC.fullmatch(name):
        try:
            address = ipaddress.IPv4Address(socket.inet_aton(name))
        except OSError:
            raise ValueError(f"has the host '{host[:60]}', which is neither a name nor an IPv4 address") from None
    elif not HOST.fullmatch(name) or len(name) > 253 or any(not 1 <= len(part) <= 63 for part in name.split(".")):
        raise ValueError(f"has the host '{host[:60]}', which is not a host name")
    if allow_private:
        return written(name if address is None else address)
    if name == "localhost" or name.endswith(".localhost") or (address is not None and not is_public(address)):
        raise ValueError(f"has the host '{host[:60]}', which is not on the public internet; {ALLOW}")
    return written(name if address is None else address)


ALLOW = "EPOCHAL_WEBHOOK_PRIVATE=1 allows hosts of this machine and of private networks"


def written(host: str | Address) -> str:
    """A host as a URL and a Host header have it: IPv6 addresses in brackets."""
    text = str(host)
    return f"[{text}]" if ":" in text else text
