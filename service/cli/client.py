"""HTTP client of the commands: JSON requests, problem documents as exceptions, server-sent events."""

import ipaddress
import json
import os
import re
import ssl
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self
from urllib.parse import urlsplit

import httpx

from models.errors import EpochalError
from models.urls import mask

API = "/api/v1"
FILES = ("image/", "text/csv", "text/html", "text/markdown", "application/pdf")
"""Media types of what is saved as a file."""
NAME_A_LAB = "Start a lab with `epochal up`, or name another with --url or EPOCHAL_URL."
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
Json = Any
UNREACHABLE = (httpx.HTTPError, httpx.InvalidURL, UnicodeError, OSError)
"""Errors of connecting and reading: a host name that cannot be encoded (UnicodeError), certificates, the network."""


class Problem(EpochalError):
    """The lab answered with a problem document, kept in full."""

    def __init__(self, document: dict[str, Any]) -> None:
        super().__init__(str(document.get("detail") or document.get("title") or "no reason given"))
        self.title = str(document.get("title") or "The lab refused")
        self.code = str(document.get("code") or "error")
        self.status = int(document.get("status") or 500)
        self.fix = document.get("fix")
        self.document = document


class NoAnswer(EpochalError):
    """No lab answers at the address."""

    code = "no-answer"
    title = "The lab does not answer"


class ProxyUnusable(EpochalError):
    """The proxy in the environment variables cannot be used."""

    code = "proxy-unusable"
    title = "The proxy cannot be used"


class Document(dict[str, Any]):
    """A JSON object from the lab. A missing required member means that the answer is not from a lab."""

    def __missing__(self, key: str) -> Any:
        raise NoAnswer(f"the answer has no {key!r}, so it is not from a lab", fix="Check --url or EPOCHAL_URL.")


@dataclass(frozen=True, slots=True)
class Event:
    """One server-sent event: kind, data, and the id of a stored one."""

    kind: str
    data: dict[str, Any]
    id: str | None


class Client:
    """HTTP client of the lab at one address."""

    def __init__(self, url: str, api_key: str | None = None) -> None:
        self.url = without_credentials(url)
        """The lab's address as it may be shown."""
        # A key has a header of its own: user and password of the address are a proxy's, and travel as Authorization.
        headers = {"X-API-Key": api_key} if api_key else {}
        timeout = httpx.Timeout(60.0, connect=5.0)
        direct = is_loopback(self.url)
        try:
            # Loopback is reached without a proxy, whatever the proxy variables are.
            self._http = httpx.Client(
                base_url=url.rstrip("/"),
                headers=headers,
                timeout=timeout,
                follow_redirects=False,
                trust_env=not direct,
                verify=_certificates(url) if direct else True,
            )
        except httpx.InvalidURL as error:
            raise NoAnswer(f"{self.url} is not a valid address: {error}", fix=NAME_A_LAB) from error
        except (ImportError, ValueError) as error:
            raise _proxy_trouble(error, urlsplit(self.url).hostname) from error
        weakref.finalize(self, self._http.close)  # commands do not close it: its connections end with it

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def get(self, path: str, **params: Any) -> Json:
        """GET a JSON document below /api/v1."""
        return self._read(self._send("GET", API + path, params=_given(params)))

    def get_bytes(self, path: str, **params: Any) -> bytes:
        """GET a picture, a table as CSV, or a report, below /api/v1."""
        response = self._send("GET", API + path, params=_given(params))
        if not response.headers.get("content-type", "").startswith(FILES):
            raise self._no_lab(response, "no picture")
        return response.content

    def download(self, path: str, **params: Any) -> tuple[str, bytes]:
        """GET a file below /api/v1: the name that the lab gives it, and its content."""
        response = self._send("GET", API + path, params=_given(params))
        found = re.search(
            r'filename="([A-Za-z0-9][A-Za-z0-9._-]{0,150})"', response.headers.get("content-disposition", "")
        )
        if found is None:
            raise self._no_lab(response, "no file")
        return found[1], response.content

    def post_for_picture(self, path: str, file: Path, **params: Any) -> bytes:
        """POST one image and return the picture in the answer."""
        with file.open("rb") as handle:
            files = {"image": (sendable(file.name), handle)}
            response = self._send("POST", API + path, files=files, params=_given(params))
        if not response.headers.get("content-type", "").startswith("image/"):
            raise self._no_lab(response, "no picture")
        return response.content

    def post(self, path: str, body: Json = None, *, headers: dict[str, str] | None = None, **params: Any) -> Json:
        """POST a JSON document or nothing; return the JSON answer."""
        return self._read(self._send("POST", API + path, json=body, headers=headers, params=_given(params)))

    def put(self, path: str, body: Json, **params: Any) -> Json:
        """PUT a JSON document or nothing; return the JSON answer."""
        return self._read(self._send("PUT", API + path, json=body, params=_given(params)))

    def request(
        self, method: str, path: str, *, headers: dict[str, str], content: bytes | None = None
    ) -> httpx.Response:
        """Send a request and return the answer with its headers; used for uploads."""
        return self._send(method, API + path, headers=headers, content=content)

    def patch(self, path: str, body: Json) -> Json:
        """PATCH a JSON document; return the JSON answer."""
        return self._read(self._send("PATCH", API + path, json=body))

    def post_images(self, path: str, files: list[Path], **params: Any) -> Json:
        """POST files as parts named `image`, in their order."""
        opened: list[tuple[str, tuple[str, IO[bytes]]]] = []
        try:
            opened.extend(("image", (sendable(file.name), file.open("rb"))) for file in files)
            return self._read(self._send("POST", API + path, files=opened, params=_given(params)))
        finally:
            for _, (_, handle) in opened:
                handle.close()

    def delete(self, path: str) -> None:
        """DELETE a resource below /api/v1."""
        self._send("DELETE", API + path)

    def events(self, path: str, last_id: str | None) -> Iterator[Event]:
        """Server-sent events from after `last_id` until the stream closes. Raises NoAnswer when it breaks."""
        headers = {"Accept": "text/event-stream", **({"Last-Event-ID": last_id} if last_id else {})}
        timeout = httpx.Timeout(60.0, connect=5.0)
        try:
            with self._http.stream("GET", API + path, headers=headers, timeout=timeout) as response:
                if response.status_code >= 300:
                    response.read()
                    raise self._problem_of(response)
                if not response.headers.get("content-type", "").startswith("text/event-stream"):
                    raise self._no_lab(response, "no events")
                yield from parse_events(response.iter_lines())
        except UNREACHABLE as error:
            raise self._no_answer(error) from error

    def _send(self, method: str, path: str, **kwargs: Any) -> httpx.Response:
        try:
            response = self._http.request(method, path, **kwargs)
        except UNREACHABLE as error:
            raise self._no_answer(error) from error
        if response.status_code >= 300:
            raise self._problem_of(response)
        return response

    def _read(self, response: httpx.Response) -> Json:
        try:
            document = response.json(object_hook=Document)
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, Document):
            raise self._no_lab(response, "no JSON object")
        return document

    def _problem_of(self, response: httpx.Response) -> EpochalError:
        """Return an answer's problem document, or a substitute if it has none (from a proxy or another server)."""
        try:
            document = response.json()
        except (ValueError, RecursionError):
            document = None
        if isinstance(document, dict) and "title" in document and "code" in document:
            return Problem({"status": response.status_code, **document})
        if response.is_redirect:
            place = without_credentials(response.headers["location"])
            return NoAnswer(f"{self.url} redirects to {place}", fix="Pass that address with --url, if a lab is there.")
        return self._no_lab(response, "no reason")

    def _no_lab(self, response: httpx.Response, lacks: str) -> NoAnswer:
        status = f"{response.status_code} {response.reason_phrase}".strip()
        detail = f"{self.url} answered {status} with {lacks}, so no lab may be there"
        return NoAnswer(detail, fix="Check --url or EPOCHAL_URL.")

    def _no_answer(self, error: Exception) -> NoAnswer:
        return NoAnswer(f"{self.url}: {str(error) or type(error).__name__}", fix=NAME_A_LAB)


def _certificates(url: str) -> ssl.SSLContext:
    """Trusted certificates for an address that is reached directly; none without TLS, as reading them takes 50 ms."""
    return httpx.create_ssl_context() if url.startswith("https") else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def is_loopback(url: str) -> bool:
    """Whether an address is on loopback, which proxies cannot reach."""
    host = (urlsplit(url).hostname or "").rstrip(".")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
    return address.is_loopback or address.is_unspecified


def without_credentials(url: str) -> str:
    """Return an address without user, password and final slash, for messages."""
    scheme, separator, rest = url.rstrip("/").partition("://")
    authority, slash, path = rest.partition("/")
    return f"{scheme}{separator}{authority.rpartition('@')[2]}{slash}{path}"


def sendable(name: str) -> str:
    """Return a file's name for sending, with invalid UTF-8 and control characters escaped."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in name)


def _proxy_trouble(error: Exception, host: str | None) -> ProxyUnusable:
    values = {name: os.environ.get(name) or os.environ.get(name.lower()) for name in PROXIES}
    named = ", ".join(f"{name}={mask(value)}" for name, value in values.items() if value)
    if "socksio" in str(error):
        fix = f"Install it by pip install 'httpx[socks]', or set NO_PROXY={host} to connect without the proxy."
        return ProxyUnusable(f"{named}: a SOCKS proxy needs the package socksio", fix=fix)
    reason = re.sub(r"(?<=://)\S*@", "***@", str(error))
    return ProxyUnusable(f"{named}: {reason}", fix=f"Correct it, or set NO_PROXY={host} to connect without the proxy.")


def parse_events(lines: Iterator[str]) -> Iterator[Event]:
    """Parse the events in the lines of a text/event-stream body; comments (keep-alives) are skipped."""
    kind, data, event_id = "message", "", None
    for line in lines:
        if not line:
            if data:
                yield Event(kind, json.loads(data, object_hook=Document), event_id)
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
    """Return query parameters without those that are None."""
    return {name: value for name, value in params.items() if value is not None}
