"""A PostgreSQL server for tests: Debian's programs, a new cluster in a temporary folder, a free port.

    python -m tests.postgres COMMAND...     runs the command with EPOCHAL_TEST_POSTGRES pointing to such a server

PostgreSQL refuses to run as root, so that root's cluster belongs to the user `postgres`.
"""

import os
import pwd
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from sqlalchemy import NullPool, create_engine, make_url, text

VARIABLE = "EPOCHAL_TEST_POSTGRES"
SERVER = os.environ.get(VARIABLE)
"""URL of a PostgreSQL server; with it the store's, the worker's and the system's tests run there."""

MISSING = "no PostgreSQL server was found: apt-get install postgresql (Debian, Ubuntu), or put initdb on the PATH"
USER = "postgres"


def programs() -> Path | None:
    """The folder of initdb and pg_ctl, the newest version's; None where PostgreSQL is not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if found:
        return found[-1].parent
    on_path = shutil.which("initdb")
    return Path(on_path).resolve().parent if on_path else None


class Postgres:
    """One server, which can be stopped and started again with what it holds. `close` leaves nothing."""

    def __init__(self) -> None:
        folder = programs()
        if folder is None:
            raise FileNotFoundError(MISSING)
        self._programs = folder
        self._folder = Path(tempfile.mkdtemp(prefix="epochal-postgres-"))
        self._cluster = self._folder / "cluster"
        self.password = secrets.token_hex(8)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        password_file = self._folder / "password"
        password_file.write_text(self.password)
        if os.geteuid() == 0:
            account = pwd.getpwnam(USER)
            for path in (self._folder, password_file):
                os.chown(path, account.pw_uid, account.pw_gid)
        self._run("initdb", "-U", USER, "-A", "scram-sha-256", "--pwfile", str(password_file), "-E", "UTF8", "-N")
        self.start()

    @property
    def url(self) -> str:
        """Its address, for the database `postgres`."""
        return f"postgresql://{USER}:{self.password}@127.0.0.1:{self.port}/postgres"

    def put_first_in_hba(self, *lines: str) -> None:
        """Put lines at the top of pg_hba.conf, where the first that fits decides who may connect, and apply them."""
        file = self._cluster / "pg_hba.conf"
        file.write_text("\n".join([*lines, file.read_text()]))
        self._run("pg_ctl", "reload")

    def start(self) -> None:
        """Start it and wait until it answers."""
        settings = {
            "port": str(self.port),
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "''",
            "max_connections": "200",
            "fsync": "off",  # which keeps what a power cut would lose; the servers of tests are only ever killed
        }
        options = " ".join(f"-c {name}={value}" for name, value in settings.items())
        self._run("pg_ctl", "-w", "-t", "120", "-l", str(self._folder / "log"), "-o", options, "start")

    def stop(self, mode: str = "immediate") -> None:
        """Stop it: `immediate` cuts every connection, as a crash does."""
        self._run("pg_ctl", "-w", "-t", "120", "-m", mode, "stop")

    def close(self) -> None:
        """Stop it if it runs, and remove its folder."""
        if (self._cluster / "postmaster.pid").exists():
            self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, program: str, *arguments: str) -> None:
        as_user = ["runuser", "-u", USER, "--"] if os.geteuid() == 0 else []
        command = [*as_user, str(self._programs / program), "-D", str(self._cluster), *arguments]
        ended = subprocess.run(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=self._folder, check=False, text=True
        )
        if ended.returncode:
            raise RuntimeError(f"{program} failed: {ended.stderr.strip()}")


def new_database(template: str = "template1", server: str | None = SERVER) -> str:
    """URL of a new database on a server, a copy of another one."""
    name = f"epochal_test_{secrets.token_hex(6)}"
    engine = create_engine(str(server), isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name} TEMPLATE {template}"))
    return make_url(str(server)).set(database=name).render_as_string(hide_password=False)


def main() -> int:
    """Run a command beside a new server; its exit code."""
    try:
        server = Postgres()
    except (FileNotFoundError, KeyError):
        sys.stderr.write(f"{MISSING}\n")
        return 2
    with server:
        sys.stdout.write(f"PostgreSQL {server._programs.parent.name} on port {server.port}\n")
        sys.stdout.flush()
        return subprocess.run(sys.argv[1:], env={**os.environ, VARIABLE: server.url}, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
