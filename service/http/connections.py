"""Limits on open connections, in total and per client network, and on how long a client may take to read an answer.

At the limit a new connection replaces the one that has been idle longest. A connection whose client reads its answer
too slowly is aborted, like one whose request body does not arrive.
"""

import asyncio
import ipaddress
import resource
from collections import defaultdict
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

from service.http.proxies import TrustedProxies

MAX_CONNECTIONS = 4096
MAX_AN_ADDRESS = 256
RESERVED_FOR_OTHERS = 512
"""Connections that loopback and trusted proxies, whose limit is higher, leave to other clients."""
UNKNOWN = "unknown"
"""Name under which connections without a known address are counted."""
SWEEP_SECONDS = 1.0
SWEEP_SOON_SECONDS = 0.1
READ_GRACE_SECONDS = 20.0
READ_BYTES_PER_SECOND = 32_000
"""Minimum rate at which a client must read an answer after the grace period; a slow link manages it."""
MAX_UNREAD_BYTES = 64_000_000
"""Limit on the unread bytes of all answers; above it, connections stalled since the last check are aborted first."""


class Connection(Protocol):
    """The part of a connection's transport that is used here."""

    num_written: int

    def get_write_buffer_size(self) -> int:
        """Return the number of bytes not sent yet."""
        ...

    def abort(self) -> None:
        """Close the connection at once, dropping unsent data."""
        ...


@dataclass(slots=True)
class _UnreadResponse:
    """Progress of a client reading an answer: since when, and how many bytes."""

    since: float
    num_read_then: int
    num_read: int
    stalled: bool = False

    def is_overdue(self, now: float) -> bool:
        return now > self.since + READ_GRACE_SECONDS + (self.num_read - self.num_read_then) / READ_BYTES_PER_SECOND


class Connections:
    """Registry of open connections. To be used from the event loop's thread."""

    def __init__(self, proxies: TrustedProxies | None = None, *, most: int | None = None) -> None:
        self.most = most or min(MAX_CONNECTIONS, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2)
        self._proxies = proxies or TrustedProxies()
        self._address_of: dict[Connection, str] = {}
        self._of: dict[str, set[Connection]] = defaultdict(set)
        self._idle: dict[Connection, None] = {}
        """Connections waiting for a request, the longest idle first."""
        self._idle_of: dict[str, dict[Connection, None]] = defaultdict(dict)
        self._unread: dict[Connection, _UnreadResponse] = {}
        self._sweep: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._address_of)

    def add(self, connection: Connection, host: str | None) -> bool:
        """Register a connection, closing the longest idle one at the limit; False if none is idle."""
        address, most = self._limit_for(host)
        if len(self._of[address]) >= most and not _close_first(self._idle_of[address]):
            return False
        if len(self) >= self.most and not _close_first(self._idle):
            return False
        self._address_of[connection] = address
        self._of[address].add(connection)
        self._sweep_within(SWEEP_SECONDS)
        return True

    def mark_idle(self, connection: Connection) -> None:
        """Mark a connection as idle: it waits for a request, or for its client to close."""
        if (address := self._address_of.get(connection)) is not None:
            self._idle[connection] = self._idle_of[address][connection] = None

    def mark_active(self, connection: Connection) -> None:
        """Mark a connection as serving a request."""
        self._idle.pop(connection, None)
        if (address := self._address_of.get(connection)) is not None:
            self._idle_of[address].pop(connection, None)

    def remove(self, connection: Connection) -> None:
        """Remove a closed connection."""
        self.mark_active(connection)
        self._unread.pop(connection, None)
        if (address := self._address_of.pop(connection, None)) is not None:
            self._of[address].discard(connection)
            if not self._of[address]:
                del self._of[address]
                self._idle_of.pop(address, None)

    def check_unread_soon(self) -> None:
        """Schedule an early check of unread answers: a client reads more slowly than the answer is written."""
        self._sweep_within(SWEEP_SOON_SECONDS)

    def _limit_for(self, host: str | None) -> tuple[str, int]:
        """Return the network that an address is counted under, and its limit of connections."""
        address = client_network(host)
        if address == UNKNOWN:
            return address, self.most
        if ipaddress.ip_network(address).is_loopback or self._proxies.trusts(str(_address(host))):
            return address, self.most - min(RESERVED_FOR_OTHERS, self.most // 8)
        return address, min(MAX_AN_ADDRESS, self.most // 2)

    def _sweep_within(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + seconds
        if self._sweep is not None:
            if self._sweep.when() <= due:
                return
            self._sweep.cancel()
        self._sweep = loop.call_at(due, self._abort_unread, loop)

    def _abort_unread(self, loop: asyncio.AbstractEventLoop) -> None:
        """Abort connections whose reading is overdue, and stalled ones until MAX_UNREAD_BYTES holds."""
        self._sweep = None
        now = loop.time()
        unread: dict[Connection, int] = {}
        for connection in list(self._address_of):
            if (num_bytes := connection.get_write_buffer_size()) == 0:
                self._unread.pop(connection, None)
                continue
            num_read = connection.num_written - num_bytes
            response = self._unread.setdefault(connection, _UnreadResponse(now, num_read, -1))
            response.stalled, response.num_read = response.num_read == num_read, num_read
            if response.is_overdue(now):
                connection.abort()
            else:
                unread[connection] = num_bytes
        excess = sum(unread.values()) - MAX_UNREAD_BYTES
        for connection in sorted(unread, key=unread.__getitem__, reverse=True):
            if excess <= 0:
                break
            if self._unread[connection].stalled:
                connection.abort()
                excess -= unread[connection]
        if self._address_of:
            self._sweep_within(SWEEP_SECONDS)


@lru_cache(maxsize=4096)
def client_network(host: str | None) -> str:
    """Return the network that a client's address is counted under: the IPv4 address, or the /64 of an IPv6 address.

    IPv6 addresses are assigned by network, so all of one network count as one client.
    """
    address = _address(host)
    if address is None:
        return UNKNOWN
    if address.version == 4 or address.is_loopback:
        return str(address)
    return str(ipaddress.ip_network((address, 64), strict=False))


def _address(host: str | None) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address((host or "").partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _close_first(idle: dict[Connection, None]) -> bool:
    """Abort the connection that has been idle longest; False if none is idle."""
    if (connection := next(iter(idle), None)) is None:
        return False
    idle.pop(connection)
    connection.abort()
    return True
