"""A fast parser for multipart forms in the form in which programs and browsers usually write them.

The general parser calls back for each header and each piece of content, which takes longer than a small network does.
It parses all other forms.
"""

import re

FORM = re.compile(r"""multipart/form-data; ?boundary=("?)([0-9A-Za-z'()+_,./:=?-]{1,70})\1""")
PART = re.compile(
    rb'\r\nContent-Disposition: form-data; name="(?P<name>[!#-\[\]-~]{1,100})"; '
    rb'filename="(?P<filename>[ !#-\[\]-~]{1,200})"'
    rb"(?:\r\nContent-Type: [!-~]{1,100})?"
)
"""The head of a part that is a file; its names need no decoding: ASCII, no quotes, no backslashes."""


def split_form(content_type: str, body: bytes, most: int) -> list[tuple[str, str, bytes]] | None:
    """The files of a form (name of the part, file name, content); None if the general parser has to parse it.

    None too for a form of more than `most` files, or of none.
    """
    kind = FORM.fullmatch(content_type)
    if kind is None:
        return None
    delimiter = f"\r\n--{kind[2]}".encode()
    if not body.startswith(delimiter[2:]) or body.count(delimiter) > most:
        return None
    *parts, end = body[len(delimiter) - 2 :].split(delimiter)
    if end not in (b"--", b"--\r\n"):
        return None
    files = []
    for part in parts:
        head, _, content = part.partition(b"\r\n\r\n")
        if (found := PART.fullmatch(head)) is None or len(head) + len(content) == len(part):
            return None
        files.append((found["name"].decode(), found["filename"].decode(), content))
    return files or None
