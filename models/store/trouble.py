"""What a database driver says, in the words of models.errors."""

from sqlalchemy.exc import DataError, DBAPIError, OperationalError

from models.errors import CorruptFile, EpochalError, InvalidRequest, StorageFull, Unavailable

FREE_SPACE = "free some space, or make the data directory writable, and try again"
BUSY_SQLITE = ("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_PROTOCOL")
FULL_SQLITE = ("SQLITE_FULL", "SQLITE_IOERR", "SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_PERM")
DAMAGED_SQLITE = ("SQLITE_CORRUPT", "SQLITE_NOTADB")
FULL_POSTGRES = ("53100", "58030")  # disk_full, io_error

REASONS = (  # a refused connection has no SQLSTATE: libpq only has words for it
    ("password authentication failed", "refuses the user name or password"),
    ("no password supplied", "asks for a password"),
    ("no pg_hba.conf entry", "refuses this machine or user (pg_hba.conf)"),
    ("peer authentication failed", "refuses this user (peer authentication)"),
    ("role ", "has no such user, or does not let it in"),
    ("database ", "has no database of that name, or does not let this user in"),
    ("too many clients", "has no connection left"),
    ("remaining connection slots", "has no connection left"),
    ("starting up", "is starting"),
    ("shutting down", "is shutting down"),
    ("ssl", "and this machine do not agree on TLS"),
    ("could not translate host name", "cannot be found: no such host"),
    ("name or service not known", "cannot be found: no such host"),
    ("failed to resolve host", "cannot be found: no such host"),
    ("connection refused", "does not answer: nothing listens at that host and port"),
    ("no such file or directory", "does not answer: nothing listens at that socket"),
    ("timeout", "does not answer in time"),
    ("timed out", "does not answer in time"),
    ("no route to host", "does not answer: no route to its host"),
    ("network is unreachable", "does not answer: its network is unreachable"),
)


def translate(error: DBAPIError) -> EpochalError | DBAPIError:
    """The error a user can act on, or the same one when it is a mistake in the code."""
    sqlite_name = str(getattr(error.orig, "sqlite_errorname", ""))
    sqlstate = str(getattr(error.orig, "sqlstate", "") or "")
    words = str(error.orig)
    if words.startswith("attempt to write a readonly database") and sqlite_name == "SQLITE_READONLY":
        return StorageFull("the database cannot be written", fix=FREE_SPACE)
    if sqlite_name.startswith(BUSY_SQLITE) or sqlstate == "55P03":
        return Unavailable("the database was busy for too long", fix="try again", retry_after_seconds=5)
    if sqlite_name.startswith(FULL_SQLITE) or sqlstate in FULL_POSTGRES:
        return StorageFull(f"the database cannot be written ({words})", fix=FREE_SPACE)
    if sqlite_name.startswith(DAMAGED_SQLITE):
        return CorruptFile(f"the database is damaged ({words})", fix="stop the lab and restore a backup")
    if "no such table" in words or sqlstate == "42P01":
        return Unavailable("the database has no tables yet", fix="start the lab with `epochal up`, which makes them")
    if isinstance(error, DataError):
        return InvalidRequest("the database cannot hold a value that was sent", fix="leave out NUL characters")
    lost = error.connection_invalidated and not sqlite_name
    if lost or (isinstance(error, OperationalError) and (sqlstate or not sqlite_name)):
        return Unavailable(f"the database {_why(words)}", fix="try again", retry_after_seconds=5)
    return error


def _why(words: str) -> str:
    """What PostgreSQL or its driver says of a connection, without the names of hosts and users that stand in it."""
    lower = words.lower()
    return next((reason for part, reason in REASONS if part in lower), "does not answer")
