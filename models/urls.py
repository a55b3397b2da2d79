"""URLs of the database, the broker and a lab: accepted forms, normalisation, and display without secrets.

Each `read_*` function takes what was written and returns the form that the rest of the code uses, or raises ValueError
with the form that is wanted.
"""

import re
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlsplit

DATABASE_FORM = "postgresql://USER:PASSWORD@HOST:5432/NAME or sqlite:////FOLDER/FILE.db"
BROKER_FORM = "redis://HOST:6379/0, rediss://HOST:6379/0 or redis+socket:///FOLDER/broker.sock"
LAB_FORM = "http://HOST:PORT or https://HOST"
ESCAPES = "; write / @ : ? # % in a user name or password as %2F %40 %3A %3F %23 %25"
POSTGRES_SCHEMES = ("postgres", "postgresql", "postgresql+psycopg", "postgres+psycopg")
SQLITE_SCHEMES = ("sqlite", "sqlite+pysqlite")
SOCKET_SCHEMES = ("redis+socket", "unix")
SOCKET_PARAMETERS = {"virtual_host", "db"}
TLS_PARAMETERS = {"ssl_cert_reqs", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_check_hostname"}

_POSTGRES_ADDRESS = re.compile(
    r"(?:[^:/@]*(?::[^@]*)?@)?"  # user and password
    r"(?P<host>\[[^/\]@]+\]|[^/:?@\[\]]*)"  # or several, with commas between
    r"(?::(?P<port>[^/?@]*))?(?:/[^?]*)?(?:\?.*)?",
)
_SECRET_PARAMETER = re.compile(r"(?i)([?&][^=&#]*(?:pass|pwd|secret|token|key)[^=&#]*=)[^&#]*")
_NOT_A_PORT = re.compile(r"(//(?:\[[^/\]]*\]|[^/:@?#]*):)(?!\d{1,5}(?:[/?#]|$))[^/?#]+")


def mask(address: str) -> str:
    """The address without user name, password and secret parameters, however badly it is written."""
    head, at, tail = address.rpartition("@")
    if at:
        scheme = re.match(r"\s*[\w+.-]*://", head)
        address = f"{scheme[0] if scheme else ''}***@{tail}"
    return _SECRET_PARAMETER.sub(r"\1***", _NOT_A_PORT.sub(r"\1***", address))


def read_database_url(text: str) -> str:
    """postgres:// and postgresql:// with the driver that is used; sqlite:/// with an absolute path."""
    scheme, separator, rest = text.partition("://")
    if separator and scheme in POSTGRES_SCHEMES:
        return _read_postgres_url(rest)
    if separator and scheme in SQLITE_SCHEMES:
        return _read_sqlite_url(rest)
    raise ValueError(DATABASE_FORM)


def _read_postgres_url(rest: str) -> str:
    found = _POSTGRES_ADDRESS.fullmatch(rest)
    if not found or not rest.strip("/"):
        raise ValueError(DATABASE_FORM + ESCAPES)
    for host in found["host"].split(","):
        _check_host(host, DATABASE_FORM)
    if found["port"] is not None:
        _check_port(found["port"], DATABASE_FORM + ESCAPES)
    if find_spec("psycopg") is None:
        raise ValueError("for PostgreSQL its driver, which is not installed here: pip install 'psycopg[binary]'")
    return f"postgresql+psycopg://{rest}"


def _read_sqlite_url(rest: str) -> str:
    place, mark, query = rest.partition("?")
    path = unquote(place.removeprefix("/"))
    if not place.startswith("/") or path in ("", ":memory:") or path.startswith("file:"):
        raise ValueError(f"{DATABASE_FORM}; SQLite needs a file, which every process of the lab opens")
    return f"sqlite:///{quote(str(absolute(Path(path))), safe='/')}{mark}{query}"


def read_broker_url(text: str) -> str:
    """A Redis or Valkey by host and port, or by its socket."""
    parts = _split(text, BROKER_FORM)
    is_socket = parts.scheme in SOCKET_SCHEMES
    known = SOCKET_PARAMETERS if is_socket else TLS_PARAMETERS
    if unknown := {name for name, _ in parse_qsl(parts.query, keep_blank_values=True)} - known:
        raise ValueError(f"{BROKER_FORM}; after ? it takes {', '.join(sorted(known))}, not {sorted(unknown)[0]!r}")
    if is_socket:
        if not parts.path.strip("/") or parts.netloc.rpartition("@")[2]:
            raise ValueError(BROKER_FORM)
    elif parts.scheme not in ("redis", "rediss") or not parts.hostname:
        raise ValueError(BROKER_FORM + ESCAPES)
    elif not re.fullmatch(r"/?\d{0,9}", parts.path):
        raise ValueError(f"{BROKER_FORM}; the number of a database is all that follows the host")
    return text


def read_lab_url(text: str) -> str:
    """Read a lab's URL and drop its final slash; a path is a proxy's prefix."""
    parts = _split(text, LAB_FORM)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or not text.isprintable():
        raise ValueError(LAB_FORM)
    if " " in text or "\\" in text:
        raise ValueError(LAB_FORM)
    return text.rstrip("/")


def _split(text: str, form: str) -> SplitResult:
    """Split a URL. Raises ValueError with the expected form if it cannot be parsed."""
    try:
        parts = urlsplit(text)
        host = parts.hostname or ""
    except ValueError:
        raise ValueError(form) from None
    if "://" not in text or "#" in text:
        raise ValueError(form + (ESCAPES if "@" in text else ""))
    _check_host(host, form)
    authority = parts.netloc.rpartition("@")[2]
    port = authority.rpartition("]")[2].partition(":")
    if port[1]:
        _check_port(port[2], form + ESCAPES if parts.username is None and "@" in text else form)
    return parts


def _check_host(host: str, form: str) -> None:
    """Refuse a host that no resolver accepts or that Python cannot encode; a socket's path is escaped with %."""
    try:
        host.encode("idna")
    except UnicodeError:
        if "%" not in host:
            raise ValueError(f"{form}; between its dots a host's name has parts of 1 to 63 characters") from None


def _check_port(text: str, form: str) -> None:
    if not (text.isascii() and text.isdigit() and 0 < int(text) <= 65535):
        raise ValueError(f"{form}; a port is a number from 1 to 65535")


def absolute(path: Path) -> Path:
    """Return the absolute path, with `~` and links resolved. Raises ValueError for one that is not UTF-8."""
    try:
        found = path.expanduser().resolve()
        str(found).encode()
    except UnicodeEncodeError:
        raise ValueError("a path whose name is UTF-8") from None
    except (OSError, RuntimeError) as error:  # a loop of links, a user without a home, a working directory that is gone
        raise ValueError(f"a path that can be followed ({error})") from None
    return found
