"""Translation of database drivers' errors into models.errors."""

import re

from sqlalchemy.exc import DataError, DBAPIError, OperationalError

from models.errors import CorruptFile, EpochalError, InvalidRequest, StorageFull, Unavailable
from models.files import FREE_SPACE

BUSY_SQLITE = ("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_PROTOCOL")
FULL_SQLITE = ("SQLITE_FULL", "SQLITE_IOERR", "SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_PERM")
DAMAGED_SQLITE = ("SQLITE_CORRUPT", "SQLITE_NOTADB")
BUSY_POSTGRES = ("55P03", "40001", "40P01")  # lock_not_available, serialization_failure, deadlock_detected
FULL_POSTGRES = ("53100", "58030")  # disk_full, io_error

CORRECT = "correct EPOCHAL_DATABASE_URL, or the server's settings"
AGAIN = "try again"
PRIMARY = "have EPOCHAL_DATABASE_URL name the primary server (target_session_attrs=read-write finds it among several)"
GRANT = "GRANT ALL ON SCHEMA public TO the user of EPOCHAL_DATABASE_URL, or make it the owner of the database"

NO_POSTGRES = " is not PostgreSQL: something else answers at that host and port"

REASONS = (  # a refused connection has no SQLSTATE: libpq only has words for it
    ("password authentication failed", " refuses the user name or password", CORRECT),
    ("no password supplied", " requires a password", CORRECT),
    ("pg_hba.conf", " refuses this user or machine (pg_hba.conf)", CORRECT),
    ("authentication failed", " refuses this user (pg_hba.conf)", CORRECT),
    ("role * does not exist", " has no user of that name", CORRECT),
    ("role * is not permitted to log in", " refuses this user", CORRECT),
    ("permission denied for database", " refuses this user", CORRECT),
    ("database * does not exist", " server has no database of that name", CORRECT),
    ("not currently accepting connections", " does not accept connections", AGAIN),
    ("too many", " has reached its limit of connections", AGAIN),
    ("remaining connection slots", " has reached its limit of connections", AGAIN),
    ("starting up", " is starting", AGAIN),
    ("not yet accepting connections", " is starting", AGAIN),
    ("shutting down", " is shutting down", AGAIN),
    ("invalid connection option", "'s address has a parameter that its driver refuses", CORRECT),
    (" value: *", "'s address has a value that its driver refuses", CORRECT),
    ("for connection option", "'s address has a value that its driver refuses", CORRECT),
    ("invalid response to ssl negotiation", NO_POSTGRES, CORRECT),
    ("expected authentication request", NO_POSTGRES, CORRECT),
    ("ssl", " and this machine do not agree on TLS", CORRECT),
    ("could not translate host name", " cannot be found: no such host", CORRECT),
    ("failed to resolve host", " cannot be found: no such host", CORRECT),
    ("connection refused", " does not answer: nothing listens at that host and port", AGAIN),
    ("no such file or directory", " does not answer: nothing listens at that socket", AGAIN),
    ("timeout", " does not answer in time", AGAIN),
    ("timed out", " does not answer in time", AGAIN),
    ("no route to host", " does not answer: no route to its host", AGAIN),
    ("network is unreachable", " does not answer: its network is unreachable", AGAIN),
    ("fatal:", " refuses the connection", AGAIN),
)
"""Part of what PostgreSQL or its driver says (* is a name or value), the reason after "the database", what to do."""

SERVER_NAME = re.compile(r'connection to server (at|on socket) "[^"]*".*? failed: ')
QUOTED = re.compile(r"""".*"|'.*'""")


def translate(error: DBAPIError, *, only_reads: bool = False) -> EpochalError | DBAPIError:
    """The error a user can act on, or the same one when it is a mistake in the code."""
    sqlite_name = str(getattr(error.orig, "sqlite_errorname", ""))
    sqlstate = str(getattr(error.orig, "sqlstate", "") or "")
    words = str(error.orig)
    if words.startswith("attempt to write a readonly database") and sqlite_name == "SQLITE_READONLY":
        return StorageFull("the database cannot be written", fix=FREE_SPACE)
    if sqlite_name.startswith(BUSY_SQLITE) or sqlstate in BUSY_POSTGRES:
        return Unavailable("the database was busy for too long", fix="try again", retry_after_seconds=5)
    if sqlite_name.startswith(FULL_SQLITE) or sqlstate in FULL_POSTGRES:
        return StorageFull(f"the database cannot be written ({words})", fix=FREE_SPACE)
    if sqlite_name.startswith(DAMAGED_SQLITE):
        return CorruptFile(f"the database is damaged ({words})", fix="stop the lab and restore a backup")
    if "no such table" in words or sqlstate == "42P01":
        return Unavailable("the database has no tables yet", fix="start the lab with `epochal up`, which makes them")
    if sqlstate == "25006" and not only_reads:
        return Unavailable(
            "the database does not accept changes: it is a standby server, or read-only",
            fix=PRIMARY,
            retry_after_seconds=5,
        )
    if sqlstate == "42501":
        return Unavailable("the database does not allow this user to create or change tables", fix=GRANT)
    if isinstance(error, DataError):
        return InvalidRequest("the database cannot hold a value that was sent", fix="leave out NUL characters")
    lost = error.connection_invalidated and not sqlite_name
    never_made = "invalid connection option" in words
    if lost or never_made or (isinstance(error, OperationalError) and (sqlstate or not sqlite_name)):
        reason, fix = _why(words)
        return Unavailable(f"the database{reason}", fix=fix, retry_after_seconds=5)
    return error


def _why(words: str) -> tuple[str, str]:
    """Return the reason of a failed PostgreSQL connection, and its fix.

    Names of hosts, users and databases are neither shown nor searched: a database may be called "ssl".
    """
    said = QUOTED.sub("*", SERVER_NAME.sub("", words.lower()))
    return next(((reason, fix) for part, reason, fix in REASONS if part in said), (" does not answer", AGAIN))
