"""Text with everything escaped that a terminal would obey or hide."""

import re

INVISIBLE = "\u007f-\u009f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff"
"""What a terminal obeys or hides beside C0: DEL and C1, marks and overrides of writing direction, separators, halves of
surrogate pairs (as which bytes of a file name that are not UTF-8 arrive)."""
_FOR_PEOPLE = re.compile(f"[\u0000-\u001f{INVISIBLE}]")


def visible(text: object) -> str:
    """Escape control characters, direction marks and line breaks, so that text cannot control the terminal."""
    return _FOR_PEOPLE.sub(_escape, str(text))


def _escape(match: re.Match[str]) -> str:
    letter = match[0]
    if "\udc80" <= letter <= "\udcff":  # a byte of a file name that is no UTF-8
        return f"\\x{ord(letter) - 0xDC00:02x}"
    return ascii(letter)[1:-1]
