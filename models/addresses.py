"""Normalisation of networks, origins and path prefixes in settings."""

import ipaddress
import re
from urllib.parse import urlsplit

PREFIX = re.compile(r"(?!/api(/|$))(/(?!\.{1,2}(/|$))[A-Za-z0-9._~-]+)*")
"""A path prefix: nothing that has to be escaped in a path, a header, a cookie or a page, nor the API's own path."""
DEFAULT_PORTS = {"http": 80, "https": 443}
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def normal_prefix(text: str) -> str:
    """Normalise a path prefix: empty, or with a leading and no trailing slash. Raises ValueError."""
    path = f"/{text.strip().strip('/')}".rstrip("/")
    if not PREFIX.fullmatch(path):
        raise ValueError(
            f"{text!r} is not a path prefix; write one like /epochal, of letters, digits, '-', '.', '_', '~' and '/', "
            "and not below /api"
        )
    return path


def normal_origin(text: str) -> str:
    """An origin as browsers send it: lower case, without a default port. Raises ValueError for anything else."""
    try:
        parts = urlsplit(text.strip().rstrip("/").lower())
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    plain = not (parts.path or parts.query or parts.fragment or "@" in parts.netloc)
    if parts.scheme not in DEFAULT_PORTS or not parts.hostname or not plain or "*" in parts.netloc:
        raise ValueError(f"{text!r} is not an origin; write each one out, like https://notebooks.example")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}" + ("" if port in (None, DEFAULT_PORTS[parts.scheme]) else f":{port}")


def normal_network(text: str) -> Network:
    """An address, or a network in CIDR notation. Raises ValueError."""
    try:
        return ipaddress.ip_network(text.strip().strip("[]"), strict=False)
    except ValueError:
        raise ValueError(
            f"{text!r} is neither an address nor a network; write one like 10.0.0.7, 10.0.0.0/8 or fd00::/8"
        ) from None
