"""The lab over HTTP, as the commands use it: JSON in and out, problems as exceptions, events as they come."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self
from urllib.parse import urlsplit

import httpx

from models.errors import EpochalError

API = "/api/v1"
Json = Any


class Problem(EpochalError):
    """What the lab answered instead of what was asked for: its problem document, whole."""

    def __init__(self, document: dict[str, Any]) -> None:
        super().__init__(str(document.get("detail") or document.get("title") or "no reason given"))
        self.title = str(document.get("title") or "The lab refused")
        self.code = str(document.get("code") or "error")
        self.status = int(document.get("status") or 500)
        self.fix = document.get("fix")
        self.document = document


class NoAnswer(EpochalError):
    """Nothing that speaks for a lab is at the address."""

    code = "no-answer"
    title = "The lab does not answer"


@dataclass(frozen=True, slots=True)
class Event:
    """One server-sent event: its kind, its data, and its id if it is one that is stored."""

    kind: str
    data: dict[str, Any]
    id: str | None


class Client:
    """One lab at one address."""

    def __init__(self, url: str, api_key: str | None = None) -> None:
        if urlsplit(url).scheme not in ("http", "https"):
            raise NoAnswer(f"{url!r} is not an address", fix="An address starts with http:// or https://.")
        self.url = url.rstrip("/")
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        timeout = httpx.Timeout(60.0, connect=5.0)
        self._http = httpx.Client(base_url=self.url, headers=headers, timeout=timeout, follow_redirects=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def get(self, path: str, **params: Any) -> Json:
        """GET a JSON document below /api/v1."""
        return self._send("GET", API + path, params=_given(params)).json()

    def get_bytes(self, path: str, **params: Any) -> bytes:
        """GET a picture or a table below /api/v1."""
        return self._send("GET", API + path, params=_given(params)).content

    def post(self, path: str, body: Json = None, *, headers: dict[str, str] | None = None, **params: Any) -> Json:
        """POST a JSON document, or nothing, and read the JSON that comes back."""
        return self._send("POST", API + path, json=body, headers=headers, params=_given(params)).json()

    def post_text(self, path: str, text: bytes, content_type: str, **params: Any) -> Json:
        """POST a body as it is."""
        headers = {"Content-Type": content_type}
        return self._send("POST", API + path, content=text, headers=headers, params=_given(params)).json()

    def post_images(self, path: str, files: list[Path], **params: Any) -> Json:
        """POST files as parts named `image`, in their order."""
        opened: list[tuple[str, tuple[str, IO[bytes]]]] = []
        try:
            opened.extend(("image", (file.name, file.open("rb"))) for file in files)
            return self._send("POST", API + path, files=opened, params=_given(params)).json()
        finally:
            for _, (_, handle) in opened:
                handle.close()

    def delete(self, path: str) -> None:
        """DELETE what is below /api/v1."""
        self._send("DELETE", API + path)

    def events(self, path: str, last_id: str | None) -> Iterator[Event]:
        """Server-sent events from after `last_id` until the stream closes. Raises NoAnswer when it breaks."""
        headers = {"Accept": "text/event-stream", **({"Last-Event-ID": last_id} if last_id else {})}
        timeout = httpx.Timeout(60.0, connect=5.0)
        try:
            with self._http.stream("GET", API + path, headers=headers, timeout=timeout) as response:
                if response.status_code >= 400:
                    response.read()
                    raise problem_of(response)
                yield from parse_events(response.iter_lines())
        except httpx.TransportError as error:
            raise self._no_answer(error) from error

    def _send(self, method: str, path: str, **kwargs: Any) -> httpx.Response:
        try:
            response = self._http.request(method, path, **kwargs)
        except httpx.TransportError as error:
            raise self._no_answer(error) from error
        if response.status_code >= 300:
            raise problem_of(response)
        return response

    def _no_answer(self, error: Exception) -> NoAnswer:
        return NoAnswer(
            f"{self.url}: {error or type(error).__name__}",
            fix="Start a lab with `epochal up`, or name another with --url or EPOCHAL_URL.",
        )


def problem_of(response: httpx.Response) -> EpochalError:
    """The problem document of an answer, or a stand-in for an answer that has none (a proxy, another server)."""
    try:
        document = response.json()
    except ValueError:
        document = None
    if isinstance(document, dict) and ("title" in document or "detail" in document):
        return Problem({"status": response.status_code, **document})
    return NoAnswer(
        f"{response.url} answered {response.status_code} without saying why; it may not be a lab",
        fix="Check --url or EPOCHAL_URL.",
    )


def parse_events(lines: Iterator[str]) -> Iterator[Event]:
    """Events out of the lines of a text/event-stream body; comments and keep-alives are passed over."""
    kind, data, event_id = "message", "", None
    for line in lines:
        if not line:
            if data:
                yield Event(kind, json.loads(data), event_id)
            kind, data, event_id = "message", "", None
            continue
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            kind = value
        elif field == "data":
            data = f"{data}\n{value}" if data else value
        elif field == "id":
            event_id = value


def _given(params: dict[str, Any]) -> dict[str, Any]:
    """Query parameters without those left out."""
    return {name: value for name, value in params.items() if value is not None}
