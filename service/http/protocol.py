"""uvicorn's HTTP protocol with the limits it lacks: a deadline for the head, and caps on it and on chunk framing.

uvicorn has no timeout for a request's head and no limit on its bytes: a client that sends one header line a minute, or
chunks of one byte with kilobytes of chunk extension, costs memory or a core without end. Neither has it one for clients
that never read. It parses all pipelined requests at once, and a client that is refused while it sends loses the answer.
"""

import asyncio
import json
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from models.errors import EpochalError, Unavailable
from service.http.connections import Connections
from service.http.errors import PROBLEM_TYPE, BadRequest, RequestTimeout, problem_document

MAX_OVERHEAD_BYTES = 64 * 1024
"""Limit on a request's bytes beside its body: head, chunk framing, trailers."""
FRAMING_PER_BODY_BYTE = 2
"""Framing bytes allowed per byte of body; only chunks of a few bytes need more."""
END_OF_HEAD = b"\r\n\r\n"
MAX_PIPELINED = 16
"""Pipelined requests that may wait where they arrived in one piece with the previous body. Those behind a request
without a body stay unparsed bytes until it is answered, so their number needs no limit."""
LINGER_SECONDS, LINGER_SILENCE_SECONDS, LINGER_BYTES = 30.0, 5.0, 128_000_000
"""Limits of a lingering close: total time, time without a byte, and bytes read and discarded."""
CONNECTIONS = "connections"
"""Key of the Connections registry in the lifespan's state."""
CLOSING = "closing"
"""Key of an asyncio.Event in the lifespan's state that is set when the server begins to stop."""


class HeadTooLarge(EpochalError):
    """A request's head exceeds MAX_OVERHEAD_BYTES."""

    code = "request-header-fields-too-large"
    status = 431
    title = "The request's head is too large"


class Transport:
    """Wrapper of an asyncio transport that counts the bytes written and delegates closing to the protocol."""

    def __init__(self, raw: asyncio.Transport, protocol: "GuardedProtocol") -> None:
        self.raw = raw
        self.num_written = 0
        self._protocol = protocol
        self.get_write_buffer_size, self.abort = raw.get_write_buffer_size, raw.abort

    def write(self, data: bytes) -> None:
        """Send bytes, unless the connection is closing."""
        if not self.is_closing():
            self.num_written += len(data)
            self.raw.write(data)

    def close(self) -> None:
        """Close with a lingering close, so that the client receives its answer."""
        self._protocol.close_lingering()

    def is_closing(self) -> bool:
        """Whether nothing more can be sent."""
        return self._protocol.lingering or self.raw.is_closing()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.raw, name)


class GuardedProtocol(HttpToolsProtocol):
    """One HTTP connection. The body's deadline is in service.http.perimeter, which knows when a body is read."""

    head_seconds = 10.0
    linger_silence_seconds = LINGER_SILENCE_SECONDS

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.lingering = False
        self._registry: Connections = self.app_state.setdefault(CONNECTIONS, Connections())
        self._connection: Transport
        self._unparsed = b""
        """Bytes received behind the request that is being answered."""
        self._error: EpochalError | None = None
        self._running: RequestResponseCycle | None = None
        self._timer: asyncio.TimerHandle | None = None
        """Deadline of the next request's head, or of a lingering close."""
        self._head_complete = False
        self._in_message = False
        self._message_bytes = self._head_bytes = self._body_bytes = 0
        self._linger_until = self._heard_at = 0.0
        self._lingered_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._connection = Transport(transport, self)
        super().connection_made(self._connection)  # type: ignore[arg-type]
        if self._registry.add(self._connection, self.client[0] if self.client else None):
            self._registry.mark_idle(self._connection)
            self._await_head()
        else:
            self._refuse(Unavailable("too many connections are open, none of them idle", retry_after_seconds=5))

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        self._registry.remove(self._connection)
        self._unparsed = b""
        waiting = [cycle for cycle, _ in self.pipeline]
        self.pipeline.clear()
        for cycle in (self._running, *waiting):  # uvicorn notifies the last one only
            if cycle is not None and not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.lingering:
            self._heard_at = self.loop.time()
            self._lingered_bytes += len(data)
            if self._lingered_bytes > LINGER_BYTES:
                self._connection.raw.close()
            return
        self._unparsed += data
        self._parse()

    def _parse(self) -> None:
        """Parse received bytes, one head at a time, until a request is being answered; later ones stay unparsed."""
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
            return  # a trailer must not be taken for a header, which a proxy would have checked
        self._count_head(len(name) + len(value) + 4)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if len(self.pipeline) >= MAX_PIPELINED:
            self._fail(
                BadRequest(f"more than {MAX_PIPELINED} pipelined requests arrived before the first was answered")
            )
        self._head_complete = True
        self._stop_waiting()
        self._registry.mark_active(self._connection)
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
            self._registry.mark_idle(self._connection)

    def pause_writing(self) -> None:
        self._registry.check_unread_soon()
        super().pause_writing()

    def send_400_response(self, msg: str) -> None:
        self._refuse(self._error or BadRequest(msg.rstrip(".") + ", so reading it was stopped"))

    def shutdown(self) -> None:
        """Signal the application through the lifespan's state, so that event streams end, then shut down."""
        if (closing := self.app_state.get(CLOSING)) is not None:
            closing.set()
        if self.lingering:
            self._connection.raw.close()
        else:
            super().shutdown()

    def close_lingering(self) -> None:
        """Close the connection, lingering while the client still sends: a reset would lose it the answer.

        Like nginx's lingering_close: shut down the sending side, then read and discard for a limited time.
        """
        raw = self._connection.raw
        if self.lingering or raw.is_closing():
            return
        if not self._in_message or self.parser is None:
            raw.close()
            return
        self.lingering = True
        self._stop_waiting()
        self._registry.mark_idle(self._connection)
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
        elif self._connection.get_write_buffer_size():
            self._connection.abort()
        else:
            self._connection.raw.close()

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
        """Stop the parser from one of its callbacks; its own message is replaced by this error."""
        self._error = error
        raise error

    def _overhead_error(self, overhead: int) -> EpochalError:
        if not self._head_complete:
            return HeadTooLarge(f"the request's head is longer than {MAX_OVERHEAD_BYTES:,} bytes")
        return BadRequest(
            f"{overhead:,} bytes of chunk framing for {self._body_bytes:,} bytes of body are too many",
            fix="send larger chunks, or a Content-Length",
        )

    def _refuse(self, error: EpochalError) -> None:
        """Answer with a problem, bypassing the application, and close; only close if an answer has begun."""
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
