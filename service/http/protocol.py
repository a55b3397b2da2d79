"""uvicorn's HTTP protocol with the limits it lacks: a deadline for the head, and caps on it and on chunk framing.

uvicorn waits for ever for a request's head and counts none of its bytes; a client that sends a header line a minute, or
chunks of one byte behind kilobytes of chunk extension, costs it memory or a core for as long as it likes. So does one
that never reads; it parses all that is pipelined at once; and a client that is refused while it sends loses the answer.
"""

import asyncio
import json
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from models.errors import EpochalError, Unavailable
from service.http.connections import Connections
from service.http.errors import PROBLEM_TYPE, BadRequest, RequestTimeout, problem_document

MAX_OVERHEAD_BYTES = 64 * 1024
"""What a request may hold beside its body: the head, chunk framing, trailers."""
FRAMING_PER_BODY_BYTE = 2
"""Chunks smaller than a few bytes cost more framing than this."""
END_OF_HEAD = b"\r\n\r\n"
MAX_PIPELINED = 16
"""Requests that may wait behind one that is being answered where they came in one piece with its body: as bytes, those
behind a request without one are not parsed before its answer is complete, and their number has no bound."""
LINGER_SECONDS, LINGER_SILENCE_SECONDS, LINGER_BYTES = 30.0, 5.0, 128_000_000
"""How long, how long without a byte, and how much is read and thrown away after an answer that came early."""
CONNECTIONS = "connections"
"""Key of the Connections in the lifespan's state."""
CLOSING = "closing"
"""Key of an asyncio.Event in the lifespan's state that is set when the server begins to stop."""


class HeadTooLarge(EpochalError):
    """More header bytes than any honest client sends."""

    code = "request-header-fields-too-large"
    status = 431
    title = "The request's head is too large"


class Transport:
    """A connection's transport that counts what is written, and whose closing is the protocol's decision."""

    def __init__(self, raw: asyncio.Transport, protocol: "GuardedProtocol") -> None:
        self.raw = raw
        self.num_written = 0
        self._protocol = protocol
        self.get_write_buffer_size, self.abort = raw.get_write_buffer_size, raw.abort

    def write(self, data: bytes) -> None:
        """Send, unless the connection is being given up."""
        if not self.is_closing():
            self.num_written += len(data)
            self.raw.write(data)

    def close(self) -> None:
        """Close it once the client has its answer."""
        self._protocol.hang_up()

    def is_closing(self) -> bool:
        """Whether nothing more is sent."""
        return self._protocol.lingering or self.raw.is_closing()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.raw, name)


class GuardedProtocol(HttpToolsProtocol):
    """One connection. The body's deadline is in service.http.perimeter, since only it knows who reads it."""

    head_seconds = 10.0
    linger_silence_seconds = LINGER_SILENCE_SECONDS

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.lingering = False
        self._known: Connections = self.app_state.setdefault(CONNECTIONS, Connections())
        self._line: Transport
        self._unparsed = b""
        """What came behind the request that is being answered."""
        self._error: EpochalError | None = None
        self._running: RequestResponseCycle | None = None
        self._timer: asyncio.TimerHandle | None = None
        """Of the head that is waited for, or of lingering."""
        self._head_complete = False
        self._in_message = False
        self._message_bytes = self._head_bytes = self._body_bytes = 0
        self._linger_until = self._heard_at = 0.0
        self._lingered_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._line = Transport(transport, self)
        super().connection_made(self._line)  # type: ignore[arg-type]
        if self._known.arrive(self._line, self.client[0] if self.client else None):
            self._known.rest(self._line)
            self._await_head()
        else:
            self._refuse(Unavailable("there are too many connections, all of them at work", retry_after_seconds=5))

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        self._known.leave(self._line)
        self._unparsed = b""
        waiting = [cycle for cycle, _ in self.pipeline]
        self.pipeline.clear()
        for cycle in (self._running, *waiting):  # uvicorn tells the last one only
            if cycle is not None and not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.lingering:
            self._heard_at = self.loop.time()
            self._lingered_bytes += len(data)
            if self._lingered_bytes > LINGER_BYTES:
                self._line.raw.close()
            return
        self._unparsed += data
        self._parse()

    def _parse(self) -> None:
        """Parse what has come, head by head, until a request waits for its answer: the next ones stay bytes."""
        while self._unparsed and not self.transport.is_closing():
            idle = self.cycle is None or self.cycle.response_complete
            if not idle and not self._in_message:
                if len(self._unparsed) > MAX_OVERHEAD_BYTES:
                    self.flow.pause_reading()
                return
            end = -1 if self._in_message and self._head_complete else self._unparsed.find(END_OF_HEAD)
            size = len(self._unparsed) if end < 0 else end + len(END_OF_HEAD)
            piece, self._unparsed = self._unparsed[:size], self._unparsed[size:]
            if self._timer is None and idle:
                self._await_head()
            self._feed(piece)

    def _feed(self, data: bytes) -> None:
        self._message_bytes += len(data)
        super().data_received(data)
        if self.transport.is_closing():
            return
        overhead = self._message_bytes - self._body_bytes
        if overhead > MAX_OVERHEAD_BYTES + FRAMING_PER_BODY_BYTE * self._body_bytes:
            self._refuse(self._overhead_error(overhead))

    def on_message_begin(self) -> None:
        self._message_bytes = self._head_bytes = self._body_bytes = 0
        self._head_complete, self._in_message = False, True
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        self._count_head(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._head_complete:
            return  # a trailer: it must not pass for a header that a proxy has checked
        self._count_head(len(name) + len(value) + 4)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if len(self.pipeline) >= MAX_PIPELINED:
            self._fail(BadRequest(f"more than {MAX_PIPELINED} requests came before the first was answered"))
        self._head_complete = True
        self._stop_waiting()
        self._known.work(self._line)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._in_message = False
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._parse()
        if not self.pipeline and self.cycle.response_complete:
            self._known.rest(self._line)

    def pause_writing(self) -> None:
        self._known.owes()
        super().pause_writing()

    def send_400_response(self, msg: str) -> None:
        self._refuse(self._error or BadRequest(msg.rstrip(".") + ", so it was not read any further"))

    def shutdown(self) -> None:
        """Tell the application, through the lifespan's state, so that event streams end by themselves."""
        if (closing := self.app_state.get(CLOSING)) is not None:
            closing.set()
        if self.lingering:
            self._line.raw.close()
        else:
            super().shutdown()

    def hang_up(self) -> None:
        """Close, but not into the face of a client that still sends: it would lose the answer to a reset connection.

        As nginx does: end our side, then read and throw away what comes, for a while.
        """
        raw = self._line.raw
        if self.lingering or raw.is_closing():
            return
        if not self._in_message or self.parser is None:
            raw.close()
            return
        self.lingering = True
        self._stop_waiting()
        self._known.rest(self._line)
        self.flow.resume_reading()
        try:
            raw.write_eof()
        except (OSError, RuntimeError):
            raw.close()
            return
        self._heard_at = self.loop.time()
        self._linger_until = self._heard_at + LINGER_SECONDS
        self._linger()

    def _linger(self) -> None:
        end = min(self._linger_until, self._heard_at + self.linger_silence_seconds)
        if self.loop.time() < end:
            self._timer = self.loop.call_at(end, self._linger)
        elif self._line.get_write_buffer_size():
            self._line.abort()
        else:
            self._line.raw.close()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def _await_head(self) -> None:
        self._timer = self.loop.call_later(self.head_seconds, self._head_is_late)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _head_is_late(self) -> None:
        self._timer = None
        if not self.transport.is_closing():
            self._refuse(RequestTimeout(f"the request's head was not complete after {self.head_seconds:g} s"))

    def _count_head(self, num_bytes: int) -> None:
        self._head_bytes += num_bytes
        if self._head_bytes > MAX_OVERHEAD_BYTES:
            self._fail(HeadTooLarge(f"the request's head is longer than {MAX_OVERHEAD_BYTES:,} bytes"))

    def _fail(self, error: EpochalError) -> None:
        """Stop the parser, from one of its callbacks; what it then says is replaced by this error."""
        self._error = error
        raise error

    def _overhead_error(self, overhead: int) -> EpochalError:
        if not self._head_complete:
            return HeadTooLarge(f"the request's head is longer than {MAX_OVERHEAD_BYTES:,} bytes")
        return BadRequest(
            f"{overhead:,} bytes of chunk framing came with {self._body_bytes:,} bytes of body",
            fix="send larger chunks, or a Content-Length",
        )

    def _refuse(self, error: EpochalError) -> None:
        """Answer at once, past the application, and hang up; only hang up where an answer has begun already."""
        self._stop_waiting()
        free = self.cycle is None or self.cycle.response_complete or not self.cycle.response_started
        if free and not self.pipeline:
            body = json.dumps(problem_document(error)).encode()
            head = (
                f"content-type: {PROBLEM_TYPE}\r\ncontent-length: {len(body)}\r\n"
                "x-content-type-options: nosniff\r\nconnection: close\r\n\r\n"
            )
            self.transport.write(STATUS_LINE[error.status] + head.encode() + body)
        self._in_message = self._message_bytes > 0
        self.transport.close()
