"""Selects the newest installed SQLite library, since Debian 12's own can corrupt a WAL database.

Versions 3.7.0 to 3.51.2 can when the WAL is reset beside a second connection; fixed in 3.51.3, 3.50.7 and 3.44.6.
The pysqlite3 wheels, on platforms that have them, contain a newer version.
"""

from types import ModuleType


def _pick() -> ModuleType:
    try:
        from pysqlite3 import dbapi2
    except ImportError:
        from sqlite3 import dbapi2
    return dbapi2  # type: ignore[no-any-return]


dbapi = _pick()


def is_safe(version: str) -> bool:
    """Whether an SQLite version is free of the WAL-reset bug."""
    numbers = tuple(int(part) for part in version.split("."))
    mended = ((3, 44, 6), (3, 50, 7))
    return numbers >= (3, 51, 3) or any(numbers[:2] == fix[:2] and numbers >= fix for fix in mended)
