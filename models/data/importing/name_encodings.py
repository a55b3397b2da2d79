"""Decodes names in archives that do not say their encoding, by what their bytes look like.

A zip has one bit for "UTF-8"; without it a name is in code page 437, says the format (APPNOTE 4.4.4, appendix D), and
in whatever the system used that wrote it, say the zips: Shift-JIS, GBK, EUC-KR, a Russian code page. macOS writes UTF-8
without the bit. A tar of GNU's or the older format has bytes alone.
"""

import re
from collections.abc import Callable, Sequence

from models.data.importing.names import shown
from models.text import plural

MOST_LOOKED_AT = 5_000
"""Names or lines, evenly spread, by which an encoding is guessed."""
MIN_USUAL = 0.6
"""The part of the characters that must be usual ones of a language for its encoding to be taken."""
MIN_HANGUL = 0.4
"""The part of Korean's syllables that are in HANGUL; of Chinese text read as EUC-KR a tenth is."""
MIN_WORD = 3
"""Letters of a Cyrillic word on average. One or two Chinese characters look like words of two or four."""
TITLES = {
    "cp932": "Shift-JIS", "gbk": "GBK", "big5": "Big5", "cp949": "EUC-KR", "cp866": "code page 866",
    "cp1251": "Windows-1251", "cp437": "code page 437", "cp850": "code page 850", "cp1252": "Windows-1252",
}  # fmt: skip
LATIN, CYRILLIC = ("cp437", "cp850", "cp1252"), ("cp866", "cp1251")
"""As archives have them: DOS's first. In a text of Windows' programs they come in the opposite order."""
HANGUL = frozenset(
    "이다는을가에의하한고도로지를사은리기어인자대일시그서전아해정스들나부원상보제주수여장비라구관과성만있미동오마니안조게"
    "차연소선생공국우회경유면트무신화교야방진드모통분물실치개학년간크문중내적결산발단바업계불음입재영체용반양식호러행속려건강"
    "종명데예포합세금설심작역위거토석점새꽃말곰코끼닭남녀파초검흰돼늑빨정량더폴른왼쪽래좋등급품병잎씨털눈손머몸집책컵배버럭랑쥐염"
)
"""Common syllables of Korean nouns. Chinese text read as EUC-KR is of syllables too, but of rare ones."""
WORD = re.compile(r"[^\W\d_]+")


def decode_names(raw: Sequence[bytes], kind: str) -> tuple[list[str], list[str]]:
    """The names of an archive's members that are in one encoding and do not say which, and a warning about a guess."""
    encoding = guess_encoding(raw)
    names = [_decode(name, encoding or "utf-8") or name.decode("cp437") for name in raw]
    if not raw or encoding == "utf-8":
        return names, []
    of = f"the {kind} does not say the encoding of {plural(len(raw), 'name')}, '{shown(names[0])}' among them"
    fix = "pack the folder again with names in UTF-8 (7-Zip: parameter cu=on)"
    if encoding is None:
        return names, [f"{of}, and it could not be recognised; {fix}"]
    return names, [f"{of}; they were read as {TITLES[encoding]}. If they are wrong, {fix}"]


def guess_encoding(names: Sequence[bytes], *, of_windows: bool = False) -> str | None:
    """The encoding of names that are in one and do not say which; None for none that they look like.

    With `of_windows` they are lines of a text, in which Windows' code pages are more likely than those of DOS.
    """
    step = -1 if of_windows else 1
    if _decode(b"\n".join(names), "utf-8") is not None:
        return "utf-8"
    text = b"\n".join(names[:: 1 + len(names) // MOST_LOOKED_AT])
    readable = {encoding: found for encoding in TITLES if (found := _decode(text, encoding)) is not None}
    for encoding in LATIN[::step]:
        if encoding in readable and _are_words(readable[encoding], "\u024f", part=(0, 0.5)):
            return encoding
    usual = {
        encoding: _usual_part(readable[encoding], encoding, is_usual) if encoding in readable else 0.0
        for encoding, is_usual in _USUAL.items()
    }
    if usual["cp932"] >= MIN_USUAL:
        return "cp932"
    for encoding in CYRILLIC[::step]:
        if encoding in readable and _are_words(readable[encoding], "\u04ff", part=(1, 1), shortest=MIN_WORD):
            return encoding
    if usual["cp949"] >= MIN_HANGUL and _is_hangul(readable["cp949"]):
        return "cp949"
    best = max(("gbk", "big5"), key=usual.__getitem__)
    if usual[best] >= MIN_USUAL:
        return best
    for encoding in LATIN[::step]:
        if encoding in readable and _are_words(readable[encoding], "\u024f", part=(0, 1)):
            return encoding
    return None


def _decode(text: bytes, encoding: str) -> str | None:
    try:
        return text.decode(encoding)
    except UnicodeDecodeError:
        return None


def _are_words(text: str, last: str, *, part: tuple[float, float], shortest: int = 1) -> bool:
    """Whether all other characters than ASCII are letters up to `last`, in words whose capitals stand as they should.

    They must be between two parts of all letters in these words (accents are few, another script is all of them), and
    the words have to have so many letters on average.
    """
    words = [word for word in WORD.findall(text) if not word.isascii()]
    others = sum(not character.isascii() for character in text)
    of_words = sum(not character.isascii() for word in words for character in word)
    if of_words < others or any(max(word) > last for word in words):
        return False
    if any(not (word.islower() or word.isupper() or word.istitle()) for word in words):
        return False
    letters = sum(map(len, words))
    if letters < shortest * len(words):
        return False
    return part[0] * letters <= of_words <= part[1] * letters


def _is_hangul(text: str) -> bool:
    return all("가" <= character <= "힣" for character in text if not character.isascii())


def _usual_part(text: str, encoding: str, is_usual: Callable[[int], bool]) -> float:
    """The part of the characters beyond ASCII that are usual, by their code in an encoding."""
    codes = [int.from_bytes(character.encode(encoding, "replace")) for character in text if not character.isascii()]
    return sum(map(is_usual, codes)) / max(1, len(codes))


def _japanese(code: int) -> bool:
    """Kana, and kanji of the first level."""
    return 0x829F <= code <= 0x82F1 or 0x8340 <= code <= 0x8396 or 0x889F <= code <= 0x9872 or code in (0x8158, 0x815B)


def _korean(code: int) -> bool:
    return 0xB0A1 <= code <= 0xC8FE and code.to_bytes(2).decode("cp949", "replace") in HANGUL


def _simplified(code: int) -> bool:
    """Characters of the first level of GB 2312."""
    return 0xB0A1 <= code <= 0xD7F9 and code & 0xFF >= 0xA1


def _traditional(code: int) -> bool:
    """Characters of Big5's first level."""
    return 0xA440 <= code <= 0xC67E


_USUAL: dict[str, Callable[[int], bool]] = {
    "cp932": _japanese, "cp949": _korean, "gbk": _simplified, "big5": _traditional,
}  # fmt: skip
