"""A page is the lab's own if its Origin names what the Host header names, default ports filled in."""

import pytest

from service.http.origins import is_own_origin


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://lab.example", "lab.example"),
        ("http://lab.example", "lab.example:80"),
        ("http://lab.example:80", "lab.example"),
        ("https://lab.example", "lab.example:443"),
        ("https://lab.example", "lab.example"),
        ("https://LAB.example", "lab.Example"),
        ("http://lab.example:8000", "lab.example:8000"),
        ("http://[::1]:8000", "[::1]:8000"),
        ("http://[::1]", "[::1]:80"),
    ],
)
def test_own_pages(origin: str, host: str) -> None:
    assert is_own_origin(origin, host)


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://evil.example", "lab.example"),
        ("http://lab.example:81", "lab.example"),
        ("http://lab.example", "lab.example:443"),
        ("https://lab.example", "lab.example:80"),
        ("http://lab.example.evil.example", "lab.example"),
        ("http://lab.example@evil.example", "lab.example"),
        ("http://evil.example/lab.example", "lab.example"),
        ("ftp://lab.example", "lab.example"),
        ("null", "lab.example"),
        ("", ""),
        ("http://", ""),
        ("http://[", "lab.example"),
        ("http://a]b", "lab.example"),
        ("http://lab.example:99999", "lab.example"),
        ("http://lab.example:x", "lab.example:x"),
        ("http://[::1", "[::1"),
    ],
)
def test_other_pages(origin: str, host: str) -> None:
    assert not is_own_origin(origin, host)


def test_a_scheme_that_a_proxy_vouches_for_must_be_the_origins() -> None:
    assert is_own_origin("https://lab.example", "lab.example", "https")
    assert not is_own_origin("http://lab.example", "lab.example", "https")
