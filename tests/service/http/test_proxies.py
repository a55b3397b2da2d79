"""The client's address behind proxies: X-Forwarded headers count from trusted proxies only."""

from typing import Any

import pytest
from pydantic import ValidationError

from models.settings import Settings
from service.http.proxies import FORWARDED_SCHEME, TrustedProxies


def unwrapped(named: list[str], client: str, *headers: tuple[str, str]) -> dict[str, Any]:
    scope: dict[str, Any] = {
        "type": "http",
        "client": (client, 1234),
        "scheme": "http",
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in headers],
    }
    TrustedProxies(named).unwrap(scope)
    return scope


@pytest.mark.parametrize("peer", ["10.0.0.1", "127.0.0.1", "2001:db8::1"])
def test_a_proxy_that_nobody_named_is_a_client_like_any_other(peer: str) -> None:
    scope = unwrapped([], peer, ("X-Forwarded-For", "1.2.3.4"), ("X-Forwarded-Proto", "https"))
    assert (scope["client"][0], scope["scheme"]) == (peer, "http")
    assert FORWARDED_SCHEME not in scope


@pytest.mark.parametrize(
    ("forwarded", "client"),
    [
        (["1.2.3.4"], "1.2.3.4"),
        (["6.6.6.6, 1.2.3.4"], "1.2.3.4"),
        (["6.6.6.6", "1.2.3.4"], "1.2.3.4"),
        (["1.2.3.4, 10.0.0.7"], "1.2.3.4"),
        (["1.2.3.4:5678"], "1.2.3.4"),
        (["[2001:db8::2]:5678"], "2001:db8::2"),
        (["::ffff:1.2.3.4"], "1.2.3.4"),
        (["10.0.0.8, 10.0.0.7"], "10.0.0.8"),
        (["nonsense"], "10.0.0.1"),
        (["1.2.3.4, nonsense"], "10.0.0.1"),
        ([""], "10.0.0.1"),
        ([], "10.0.0.1"),
    ],
)
def test_the_client_is_the_last_address_that_no_trusted_proxy_has(forwarded: list[str], client: str) -> None:
    scope = unwrapped(["10.0.0.0/8"], "10.0.0.1", *(("X-Forwarded-For", value) for value in forwarded))
    assert scope["client"][0] == client


@pytest.mark.parametrize(("given", "scheme"), [("https", "https"), ("http, HTTPS", "https"), ("gopher", "http")])
def test_the_scheme_is_what_the_nearest_proxy_says(given: str, scheme: str) -> None:
    assert unwrapped(["10.0.0.1"], "10.0.0.1", ("X-Forwarded-Proto", given))["scheme"] == scheme


def test_an_ipv4_proxy_is_known_behind_an_ipv6_socket() -> None:
    assert unwrapped(["10.0.0.1"], "::ffff:10.0.0.1", ("X-Forwarded-For", "1.2.3.4"))["client"][0] == "1.2.3.4"


def test_what_is_no_address_is_no_setting() -> None:
    assert Settings(trusted_proxies=["10.0.0.1", "fd00::/8"]).trusted_proxies == ["10.0.0.1/32", "fd00::/8"]
    with pytest.raises(ValidationError):
        Settings(trusted_proxies=["proxy.example"])
