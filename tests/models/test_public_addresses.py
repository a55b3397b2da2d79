"""Webhooks go to the public internet, however an address is written."""

import ipaddress
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.public_addresses import EMBEDDING, Address, is_public, read_public_url

PRIVATE = (
    *("127.0.0.1", "127.255.0.9", "10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.1.1", "169.254.169.254"),
    *("100.64.0.1", "0.0.0.0", "0.1.2.3", "224.0.0.1", "239.255.255.250", "255.255.255.255", "240.0.0.1"),
    *("192.0.0.8", "192.0.2.1", "198.18.0.1", "198.51.100.1", "203.0.113.1"),
    *("::", "::1", "::7f00:1", "fe80::1", "fe80::1%1", "fc00::1", "fdff::1", "fec0::1", "ff02::1", "2001:db8::1"),
    *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::a00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::a00:1"),
    *("2002:7f00:1::", "2002:c0a8:101::1", "2001:0:7f00:1::", "100::1", "3fff::1", "5f00::1"),
)
PUBLIC = ("1.1.1.1", "93.184.216.34", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1")


@pytest.mark.parametrize("text", PRIVATE)
def test_private_local_and_special_addresses_are_not_public(text: str) -> None:
    assert not is_public(ipaddress.ip_address(text))


@pytest.mark.parametrize("text", PUBLIC)
def test_addresses_of_the_internet_are_public(text: str) -> None:
    assert is_public(ipaddress.ip_address(text))


@given(st.ip_addresses())
def test_no_address_is_public_that_the_standard_library_takes_for_anything_else(address: Address) -> None:
    flags = ("is_private", "is_loopback", "is_link_local", "is_multicast", "is_reserved", "is_unspecified")
    embeds = any(address in network for network, _ in EMBEDDING if address.version == network.version)
    if not embeds and any(getattr(address, flag) for flag in flags):
        assert not is_public(address)


@given(st.ip_addresses(v=4), st.sampled_from(EMBEDDING))
def test_an_address_that_embeds_another_is_as_public_as_that(
    inner: ipaddress.IPv4Address, embedding: tuple[ipaddress.IPv6Network, int]
) -> None:
    network, shift = embedding
    outer = ipaddress.IPv6Address(int(network.network_address) | int(inner) << shift)
    assert is_public(outer) == is_public(inner)


def spelled(address: ipaddress.IPv4Address, parts: int, bases: list[str]) -> str:
    """As inet_aton reads it: one to four numbers, each decimal, hexadecimal or octal."""
    value, numbers = int(address), []
    for place in range(parts - 1):
        numbers.append((value >> 8 * (3 - place)) & 0xFF)
    numbers.append(value & (1 << 8 * (5 - parts)) - 1)
    forms = {"d": "{:d}", "x": "0x{:x}", "o": "0{:o}"}
    return ".".join(forms[base].format(number) for base, number in zip(bases, numbers, strict=False))


@given(st.ip_addresses(v=4), st.integers(1, 4), st.lists(st.sampled_from("dxo"), min_size=4, max_size=4), st.booleans())
def test_an_ipv4_address_is_recognised_in_every_spelling(
    address: ipaddress.IPv4Address, parts: int, bases: list[str], dot: bool
) -> None:
    url = f"http://{spelled(address, parts, bases)}{'.' if dot else ''}/hook"
    if is_public(address):
        assert read_public_url(url, allow_private=False) == f"http://{address}/hook"
    else:
        with pytest.raises(ValueError, match="not on the public internet"):
            read_public_url(url, allow_private=False)
    assert read_public_url(url, allow_private=True) == f"http://{address}/hook"


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("ftp://hooks.example/", "scheme"),
        ("file:///etc/passwd", "scheme"),
        ("hooks.example", "scheme"),
        ("https://ada:secret@hooks.example/", "user or password"),
        ("https://hooks.example@127.0.0.1/", "user or password"),
        ("https://hooks.example:22/", "port 22"),
        ("https://hooks.example:0/", "port 0"),
        ("https://hooks.example:99999/", "port"),
        ("https://hooks.example:x/", "port"),
        ("https:///path", "not a host name"),
        ("https://-x.example/", "not a host name"),
        ("https://hooks..example/", "not a host name"),
        ("https://127%2e0.0.1/", "neither a name nor an IPv4 address"),
        ("https://1.2.3.4.5/", "neither a name nor an IPv4 address"),
        ("https://999.1.1.1/", "neither a name nor an IPv4 address"),
        ("https://[::1/", "not an address"),
        ("https://[fe80::1%25eth0]/", "not"),
        ("https://hooks.example/#a", "fragment"),
        ("https://hooks.example\\@127.0.0.1/", "backslashes"),
        ("https://hooks.example/a b", "blanks"),
        ("https://hooks.exa\nmple/", "blanks"),
        ("http://\uff11\uff12\uff17.0.0.1/", "ASCII"),
        ("https://hooks.example/" + "a" * 2000, "characters"),
        ("http://localhost:9000/", "not on the public internet"),
        ("http://api.localhost/", "not on the public internet"),
        ("http://[::ffff:7f00:1]/", "not on the public internet"),
    ],
)
def test_an_address_that_cannot_be_used_is_refused_with_the_rule(url: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        read_public_url(url, allow_private=False)


def test_an_address_is_kept_in_one_form() -> None:
    def read(url: str) -> str:
        return read_public_url(url, allow_private=False)

    assert read("HTTPS://Hooks.Example.:443") == "https://hooks.example/"
    assert read("http://hooks.example:8080/a?b=c") == "http://hooks.example:8080/a?b=c"
    assert read("https://[2606:4700:4700:0::1111]:8443/x") == "https://[2606:4700:4700::1111]:8443/x"


@given(
    st.sampled_from(["http://", "https://", "http:", ""]), st.text("abx01.:@[]/%?#\\ 7-", max_size=20), st.booleans()
)
def test_whatever_is_accepted_names_one_host_and_reads_the_same_again(head: str, rest: str, private: bool) -> None:
    try:
        url = read_public_url(head + rest, allow_private=private)
    except ValueError:
        return
    parts = urlsplit(url)
    assert parts.hostname
    assert parts.username is None
    assert read_public_url(url, allow_private=private) == url
    try:
        address = ipaddress.ip_address(parts.hostname)
    except ValueError:
        return
    assert private or is_public(address)
