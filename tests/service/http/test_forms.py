"""Forms taken apart in one go give what the general parser gives, or are left to it."""

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.types import Message

from models.errors import EpochalError
from service.http.errors import BadRequest
from service.http.forms import split_form
from service.http.uploads import MAX_IMAGES, Upload, _read_parts

TEXT = st.text(st.characters(codec="latin-1", categories=["L", "N", "P", "S", "Zs"]), max_size=8)
NAMES = st.sampled_from(["image", "image", "images", ""]) | TEXT
CONTENT = st.binary(max_size=40) | st.sampled_from(
    [b"\r\n--cut", b"\r\n--cut--\r\n", b"--cut\r\n\r\n", b"\r\n\r\n", b"\r"]
)
HEADS = st.sampled_from(
    [
        'Content-Disposition: form-data; name="{name}"; filename="{file}"',
        'Content-Disposition: form-data; name="{name}"; filename="{file}"\r\nContent-Type: image/png',
        'Content-Type: image/png\r\nContent-Disposition: form-data; name="{name}"; filename="{file}"',
        "content-disposition: form-data; name={name}; filename={file}",
        'Content-Disposition: form-data; name="{name}"',
        'Content-Disposition: form-data; name="{name}"; filename="{file}"; filename*=utf-8\'\'{file}',
    ]
)
ENDS = st.sampled_from(["\r\n--cut--\r\n", "\r\n--cut--", "\r\n--cut", "", "\r\n--cut--\r\nmore"])


def plain(files: Sequence[tuple[str, bytes]]) -> bytes:
    return (
        b"".join(
            b'--cut\r\nContent-Disposition: form-data; name="image"; filename="%b"\r\n\r\n%b\r\n'
            % (name.encode(), data)
            for name, data in files
        )
        + b"--cut--\r\n"
    )


def parse_by_the_general_parser(content_type: str, body: bytes) -> list[Upload]:
    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    scope = {"type": "http", "method": "POST", "headers": [(b"content-type", content_type.encode("latin-1"))]}
    return asyncio.run(_read_parts(Request(scope, receive)))


@given(
    st.lists(st.tuples(HEADS, NAMES, TEXT, CONTENT), min_size=1, max_size=3),
    ENDS,
    st.sampled_from(["", "\r\n", "preamble\r\n"]),
)
def test_what_is_split_is_what_the_general_parser_reads(
    parts: list[tuple[str, str, str, bytes]], end: str, before: str
) -> None:
    written = b"\r\n--cut\r\n".join(
        head.format(name=name, file=file).encode("latin-1") + b"\r\n\r\n" + content
        for head, name, file, content in parts
    )
    body = before.encode() + b"--cut\r\n" + written + end.encode()
    found = split_form("multipart/form-data; boundary=cut", body, MAX_IMAGES)
    if found is None:
        return
    try:
        expected = parse_by_the_general_parser("multipart/form-data; boundary=cut", body)
    except EpochalError:
        assert {name for name, _, _ in found} != {"image"}
        return
    assert [Upload(name, data) for _, name, data in found] == expected


def test_a_form_that_was_cut_off_anywhere_is_refused_and_not_read_as_the_images_before() -> None:
    form = "multipart/form-data; boundary=cut"
    whole = plain([("a.png", b"a"), ("b.png", b"\r\nb--")])
    for length in range(len(whole) - len(b"--\r\n") + 2):
        assert split_form(form, whole[:length], MAX_IMAGES) is None
        with pytest.raises(BadRequest, match="ends before its last boundary"):
            parse_by_the_general_parser(form, whole[:length])
    for body in (whole, whole[:-2], whole[:-1], whole + b"epilogue"):
        assert [one.name for one in parse_by_the_general_parser(form, body)] == ["a.png", "b.png"]


def test_forms_of_common_clients_are_split() -> None:
    files = [("a.png", b"\x89PNG\r\n\x1a\n--cut"), ("b c.jpg", b"")]
    split = [("image", name, data) for name, data in files]
    for content_type in ("multipart/form-data; boundary=cut", 'multipart/form-data; boundary="cut"'):
        assert split_form(content_type, plain(files), 2) == split


def test_other_forms_are_left_to_the_general_parser() -> None:
    form = "multipart/form-data; boundary=cut"
    two = plain([("a.png", b"a"), ("b.png", b"b")])
    assert split_form(form, two, 1) is None
    assert split_form(form, two[:-4], 2) is None
    assert split_form(form, b"", 2) is None
    assert split_form(form, b"--cut--\r\n", 2) is None
    assert split_form("multipart/form-data", two, 2) is None
    assert split_form(f"{form}; charset=utf-8", two, 2) is None
    assert split_form(form, plain([("caf\u00e9.png", b"a")]), 2) is None
