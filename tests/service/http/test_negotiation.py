"""Accept headers choose as RFC 9110 says."""

import pytest

from service.http.negotiation import accepts_gzip, choose_type

OFFERED = ("application/json", "text/csv")


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        (None, "application/json"),
        ("", "application/json"),
        ("*/*", "application/json"),
        ("text/csv", "text/csv"),
        ("TEXT/CSV", "text/csv"),
        ("text/*", "text/csv"),
        ("text/csv, application/json", "application/json"),
        ("text/csv, application/json;q=0.5", "text/csv"),
        ("application/json;q=0, */*", "text/csv"),
        ("text/html, */*;q=0.1", "application/json"),
        ("image/png", None),
        ("*/*;q=0", None),
        ("text/csv;q=oops", None),
        (";;;,,", None),
    ],
)
def test_choice(accept: str | None, chosen: str | None) -> None:
    assert choose_type(accept, OFFERED) == chosen


@pytest.mark.parametrize(
    ("accept_encoding", "gzip"),
    [
        (None, False),
        ("", False),
        ("gzip", True),
        ("GZip", True),
        ("x-gzip", True),
        ("deflate, gzip;q=1.0, *;q=0.5", True),
        ("br, zstd", False),
        ("*", True),
        ("*;q=0", False),
        ("gzip;q=0, *", False),
        ("gzip;q=0", False),
        ("identity", False),
        ("identity;q=0.5, gzip;q=0.8", True),
        ("identity;q=1, gzip;q=0.5", False),
        ("gzip;q=oops", False),
        (",;,", False),
    ],
)
def test_gzip_is_sent_to_whoever_accepts_it(accept_encoding: str | None, gzip: bool) -> None:
    assert accepts_gzip(accept_encoding) is gzip
