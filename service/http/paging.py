"""Pages of lists: cursors that are numbers."""

import re

from models.errors import InvalidRequest

CURSOR = re.compile(r"[1-9][0-9]{0,17}")


def read_cursor(cursor: str | None) -> int | None:
    """The number that a page's cursor is; None for the first page. Raises InvalidRequest for a damaged one."""
    if cursor is None:
        return None
    if not CURSOR.fullmatch(cursor):
        raise damaged_cursor()
    return int(cursor)


def damaged_cursor() -> InvalidRequest:
    """The error for a cursor that no page gave out."""
    return InvalidRequest("the cursor is damaged", fix="use `next` unchanged, or get the first page")
