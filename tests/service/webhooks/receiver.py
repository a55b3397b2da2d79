"""A receiver of webhooks on loopback that answers as it is told and remembers what arrived."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self


@dataclass(frozen=True)
class Arrived:
    """One request."""

    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Receiver:
    """Answers with the next of `answers`, then with 200; an answer is a status, or what writes to the connection."""

    answers: list[int | Callable[[BaseHTTPRequestHandler], None]] = field(default_factory=list)
    arrived: list[Arrived] = field(default_factory=list)
    server: Any = None

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}/hook?from=lab"

    @property
    def port(self) -> int:
        """Its port."""
        return int(self.server.server_address[1])

    def __enter__(self) -> Self:
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                owner.answer(self)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, name="receiver").start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.server.shutdown()
        self.server.server_close()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        """Read a request and answer it."""
        body = request.rfile.read(int(request.headers["Content-Length"]))
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.arrived.append(Arrived(request.path, headers, body))
        how = self.answers.pop(0) if self.answers else 200
        if callable(how):
            how(request)
            return
        request.send_response(how)
        request.end_headers()
        request.wfile.write(b"thank you\x1b[2J")
