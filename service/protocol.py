"""uvicorn's HTTP protocol with the limits it lacks: a deadline for the head, and caps on it and on chunk framing.

uvicorn waits for ever for a request's head and counts none of its bytes; a client that sends a header line a minute, or
chunks of one byte behind kilobytes of chunk extension, costs it memory or a core for as long as it likes.
"""

import asyncio
import json
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from models.errors import EpochalError, Unavailable
from service.errors import PROBLEM_TYPE, BadRequest, RequestTimeout, problem_document

MAX_OVERHEAD_BYTES = 64 * 1024
"""What a request may hold beside its body: the head, chunk framing, trailers."""
FRAMING_PER_BODY_BYTE = 2
"""Chunks smaller than a few bytes cost more framing than this."""
MAX_CONNECTIONS = 4096
CLOSING = "closing"
"""Key of an asyncio.Event in the lifespan's state that is set when the server begins to stop."""


class HeadTooLarge(EpochalError):
    """More header bytes than any honest client sends."""

    code = "request-header-fields-too-large"
    status = 431
    title = "The request's head is too large"


class GuardedProtocol(HttpToolsProtocol):
    """One connection. The body's deadline is the perimeter's (service.limits), since only it knows who reads it."""

    head_seconds = 10.0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head_timer: asyncio.TimerHandle | None = None
        self._head_complete = False
        self._message_bytes = 0
        self._body_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:
            self._refuse(Unavailable(f"{MAX_CONNECTIONS} connections are open already", retry_after_seconds=5))
        else:
            self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        if self._head_timer is None and (self.cycle is None or self.cycle.response_complete):
            self._await_head()
        self._message_bytes += len(data)
        super().data_received(data)
        if self.transport.is_closing():
            return
        overhead = self._message_bytes - self._body_bytes
        if overhead > MAX_OVERHEAD_BYTES + FRAMING_PER_BODY_BYTE * self._body_bytes:
            self._refuse(self._overhead_error(overhead))

    def on_message_begin(self) -> None:
        self._message_bytes = self._body_bytes = 0
        self._head_complete = False
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._head_complete = True
        self._stop_waiting()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        super().on_body(body)

    def send_400_response(self, msg: str) -> None:
        self._refuse(BadRequest(msg.rstrip(".") + ", so it was not read any further"))

    def shutdown(self) -> None:
        """Tell the application, through the lifespan's state, so that event streams end by themselves."""
        if (closing := self.app_state.get(CLOSING)) is not None:
            closing.set()
        super().shutdown()

    def _await_head(self) -> None:
        self._head_timer = self.loop.call_later(self.head_seconds, self._head_is_late)

    def _stop_waiting(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_is_late(self) -> None:
        self._head_timer = None
        if not self.transport.is_closing():
            self._refuse(RequestTimeout(f"the request's head was not complete after {self.head_seconds:g} s"))

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
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            body = json.dumps(problem_document(error)).encode()
            head = (
                f"content-type: {PROBLEM_TYPE}\r\ncontent-length: {len(body)}\r\n"
                "x-content-type-options: nosniff\r\nconnection: close\r\n\r\n"
            )
            self.transport.write(STATUS_LINE[error.status] + head.encode() + body)
        self.transport.close()
