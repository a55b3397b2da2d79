"""The open connections of the API: how many there may be, of one address too, and how long an answer waits to be read.

A new connection always finds room: where there are as many as there may be, the one that has waited longest without
sending a request makes way. An answer that its client does not read is given up, as a body that does not arrive is.
"""

import asyncio
import ipaddress
import resource
from collections import defaultdict
from dataclasses import dataclass
from typing import Protocol

from service.http.proxies import TrustedProxies

MAX_CONNECTIONS = 4096
MAX_AN_ADDRESS = 256
ROOM_FOR_OTHERS = 512
"""Connections that this machine and trusted proxies, whose share is larger, leave to the rest."""
UNKNOWN = "unknown"
"""Under what those are counted that have no address."""
SWEEP_SECONDS = 1.0
SWEEP_SOON_SECONDS = 0.1
READ_GRACE_SECONDS = 20.0
READ_BYTES_PER_SECOND = 32_000
"""An answer must be read at this rate after the grace; a slow link manages it, a client that does not read does not."""
MAX_UNREAD_BYTES = 64_000_000
"""Of all answers that wait to be read; beyond, those go first that nobody has read from since the last look."""


class Line(Protocol):
    """What is asked of a connection's transport."""

    num_written: int

    def get_write_buffer_size(self) -> int:
        """Bytes that wait to be sent."""
        ...

    def abort(self) -> None:
        """Close it now, whatever waits."""
        ...


@dataclass(slots=True)
class _Debt:
    """An answer that is being read: since when, and how much of it has been."""

    since: float
    num_read_then: int
    num_read: int
    stalled: bool = False

    def is_overdue(self, now: float) -> bool:
        return now > self.since + READ_GRACE_SECONDS + (self.num_read - self.num_read_then) / READ_BYTES_PER_SECOND


class Connections:
    """Who is connected. For the event loop's thread."""

    def __init__(self, proxies: TrustedProxies | None = None, *, most: int | None = None) -> None:
        self.most = most or min(MAX_CONNECTIONS, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2)
        self._proxies = proxies or TrustedProxies()
        self._address_of: dict[Line, str] = {}
        self._of: dict[str, set[Line]] = defaultdict(set)
        self._resting: dict[Line, None] = {}
        """Those that wait for a request, in the order in which they began to."""
        self._resting_of: dict[str, dict[Line, None]] = defaultdict(dict)
        self._debts: dict[Line, _Debt] = {}
        self._sweep: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._address_of)

    def arrive(self, line: Line, host: str | None) -> bool:
        """Take in a new connection, and close one that rests where there are too many; False if none rests."""
        address, most = self._share(host)
        if len(self._of[address]) >= most and not _close_first(self._resting_of[address]):
            return False
        if len(self) >= self.most and not _close_first(self._resting):
            return False
        self._address_of[line] = address
        self._of[address].add(line)
        self._sweep_within(SWEEP_SECONDS)
        return True

    def rest(self, line: Line) -> None:
        """Say that a connection waits for its client: for a request, or to be closed."""
        if (address := self._address_of.get(line)) is not None:
            self._resting[line] = self._resting_of[address][line] = None

    def work(self, line: Line) -> None:
        """Say that a connection has a request."""
        self._resting.pop(line, None)
        if (address := self._address_of.get(line)) is not None:
            self._resting_of[address].pop(line, None)

    def leave(self, line: Line) -> None:
        """Forget a connection that has ended."""
        self.work(line)
        self._debts.pop(line, None)
        if (address := self._address_of.pop(line, None)) is not None:
            self._of[address].discard(line)
            if not self._of[address]:
                del self._of[address]
                self._resting_of.pop(address, None)

    def owes(self) -> None:
        """Say that an answer is not read as fast as it is written."""
        self._sweep_within(SWEEP_SOON_SECONDS)

    def _share(self, host: str | None) -> tuple[str, int]:
        """Under what an address is counted, and how many connections it may have."""
        address = neighbourhood(host)
        if address == UNKNOWN:
            return address, self.most
        if ipaddress.ip_network(address).is_loopback or self._proxies.trusts(str(_address(host))):
            return address, self.most - min(ROOM_FOR_OTHERS, self.most // 8)
        return address, min(MAX_AN_ADDRESS, self.most // 2)

    def _sweep_within(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + seconds
        if self._sweep is not None:
            if self._sweep.when() <= due:
                return
            self._sweep.cancel()
        self._sweep = loop.call_at(due, self._look_at_answers, loop)

    def _look_at_answers(self, loop: asyncio.AbstractEventLoop) -> None:
        """Give up the answers that are overdue, and so many that stand still that the rest is bounded."""
        self._sweep = None
        now = loop.time()
        unread: dict[Line, int] = {}
        for line in list(self._address_of):
            if (num_bytes := line.get_write_buffer_size()) == 0:
                self._debts.pop(line, None)
                continue
            num_read = line.num_written - num_bytes
            debt = self._debts.setdefault(line, _Debt(now, num_read, -1))
            debt.stalled, debt.num_read = debt.num_read == num_read, num_read
            if debt.is_overdue(now):
                line.abort()
            else:
                unread[line] = num_bytes
        excess = sum(unread.values()) - MAX_UNREAD_BYTES
        for line in sorted(unread, key=unread.__getitem__, reverse=True):
            if excess <= 0:
                break
            if self._debts[line].stalled:
                line.abort()
                excess -= unread[line]
        if self._address_of:
            self._sweep_within(SWEEP_SECONDS)


def neighbourhood(host: str | None) -> str:
    """Under what a client's address is counted. IPv6 is given out by networks, so those of one network count as one."""
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


def _close_first(resting: dict[Line, None]) -> bool:
    """Close the connection that has rested longest, if any does."""
    if (line := next(iter(resting), None)) is None:
        return False
    resting.pop(line)
    line.abort()
    return True
