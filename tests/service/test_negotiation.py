"""Accept headers choose as RFC 9110 says."""

import pytest

from service.negotiation import choose_type

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
