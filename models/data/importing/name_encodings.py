"""Decodes names in archives that do not say their encoding, by what is likely as a name.

A zip has one bit for "UTF-8"; without it a name is in code page 437, says the format (APPNOTE 4.4.4, appendix D), and
in whatever the system used that wrote it, say the zips: Shift-JIS, GBK, EUC-KR, a Russian code page. macOS writes UTF-8
without the bit. A tar of GNU's or the older format has bytes alone.

All names of an archive are read in each encoding, and each character costs what it would take to tell it: the negative
logarithm of its frequency, roughly, in the languages that the encoding is for. The encoding of the lowest sum is taken,
so that many short names are as good as a long one.
"""

import re
from collections.abc import Callable, Sequence
from functools import cache

from models.data.importing.names import shown
from models.text import plural

MOST_LOOKED_AT = 5_000
"""Names or lines, evenly spread, by which an encoding is guessed."""
MOST_ODD = 0.2
"""The part of the characters beyond ASCII that may be no letters of an encoding's languages, for it to be taken."""
TITLES = {
    "cp932": "Shift-JIS", "gbk": "GBK", "big5": "Big5", "cp949": "EUC-KR", "cp866": "code page 866",
    "cp1251": "Windows-1251", "cp437": "code page 437", "cp850": "code page 850", "cp1252": "Windows-1252",
}  # fmt: skip
OF_DOS, OF_WINDOWS = ("cp437", "cp850", "cp866"), ("cp1251", "cp1252")
UNUSUAL_PAGE = 1.0
"""What a code page costs that is unusual where the names stand: one of Windows in an archive, one of DOS in a text."""

ASCII, USUAL, RARE, NONE = 3.3, 6.0, 9.0, 14.0
"""Costs of a character of ASCII, of one of those below of which there are hundreds, of a letter that is in no table
below, and of what is no letter."""
CAPITAL = 1.0
MISPLACED = 6.0
"""What a word costs that is of two scripts, or has a capital in its middle without being in capitals as a whole."""

WESTERN = {
    **dict.fromkeys("éäüö", 2.6), **dict.fromkeys("èáóíàñçãß", 3.2), **dict.fromkeys("êúôåøâæ", 4.2),
    **dict.fromkeys("îïëõûùìòœ", 5.8), "ý": 7.0,
    **dict.fromkeys("°º²³½", 7.0),
}  # fmt: skip
"""Letters with accents in Western Europe's languages together, and signs."""
CYRILLIC = {
    **dict.fromkeys("оеаинт", 2.6), **dict.fromkeys("срвлкмдпу", 3.3), **dict.fromkeys("яыьгзбчйхжі", 4.3),
    **dict.fromkeys("шюцщэфёїєъ", 5.8),
}  # fmt: skip
HAN = frozenset(
    "的一是不了在人有我他这个们中来上大为和国地到以说时要就出会可也你对生能而子那得于着下自之年过发后作里用道行所然家种事成方多经么去"
    "法学如都同现当没动面起看定天分还进好小部其些主样理心她本前开但因只从想实日军者意无力它与长把机十民第公此已工使情明性知全三又关点正"
    "业外将两高间由问很最重并物手应战向头文体政美相见被利什二等产或新己制身果加西月话合回特代内信表化老给世位次度门任常先海通教儿原东声"
    "提立及比员解水名真论处走义各入几口认条平系气题活更别打女变四神总何电数安少报才结反受目太量再感建务做接必场件计管期市直资命山金指许"
    "统区保至队形社便空决治展马科五基眼书非听白却界达光放强即像难且权思王象完设式色路记南品住告类求据程北边死张该交规万取格望觉术领共确"
    "传师观清今切院让识候带导争运"
    "猫狗鸟鱼牛羊猪鸡鸭鹅虎狮豹熊狼狐兔鼠蛇龙猴鹿鲸蜂蝶虫蛙龟车船飞汽轮卡摩托铁桥塔楼房屋树花草叶苹蕉橙葡萄瓜莓梨桃柿米饭包菜豆茶酒杯瓶"
    "盒袋纸板布玻璃塑料属木石土沙冰雪雨云风火红绿蓝黄黑紫粉灰圆角左右常异坏良缺陷瑕疵划痕裂纹锈病斑健康染肺炎癌肿瘤男孩图片照训练测试验证"
    "集标签夹未否是行垃圾玫瑰郁金香向日葵雏菊蒲公英香西否自"
    "這個們來為國說時會對過發後裡經沒動進樣學當還實軍無與長機萬開關業將間問應戰頭體見產麼點種話數電東門給處員聲論兒條氣題別變總報結場計"
    "資許統區隊決達強難權設類據邊張該規覺術領確傳師觀識帶導爭運貓鳥魚馬豬雞鴨鵝獅龍鯨蟲龜車飛輪鐵橋樓樹葉蘋麵紙屬雲風紅綠藍黃圓異壞劃鏽"
    "銹圖訓練測試驗證標籤夾鬱雛鋁塑膠"
    "犬豚鶏猿兎駅町村円写真画像習検証赤緑青黒丸裏傷薔薇自転帽靴服箱紙缶瓶桜梅竹松"
)
"""Characters that are frequent in Chinese and Japanese, or in what things in pictures are called."""
HANGUL = frozenset(
    "이다는을가에의하한고도로지를사은리기어인자대일시그서전아해정스들나부원상보제주수여장비라구관과성만있미동오마니안조게"
    "차연소선생공국우회경유면트무신화교야방진모통분물실치개학년간크문중내적결산발단바업계불음입재영체용반양식호러행속려건강"
    "종명데예포합세금설심작역위거토석점새꽃말곰코끼닭남녀파초검흰돼늑빨정량더폴른왼쪽래좋등급품병잎씨털눈손머몸집책컵배버럭랑쥐염"
    "각형삼격딸엔테레타카컴퓨텔튤립즈쿠키홍감박참깨늬군귀팔허벌목벽창별달름빗얼숲풀뿌줄열매표테류색색깔민플틱유종쓰기둥네모빨트럭"
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
    whole = b"\n".join(names)
    if _decode(whole, "utf-8") is not None:
        return "utf-8"
    looked_at = names[:: 1 + len(names) // MOST_LOOKED_AT]
    parts = {part for name in looked_at for part in re.split(rb"[/\n]", name) if not part.isascii()}
    text = b"/".join(sorted(parts))
    costs = {}
    for encoding, cost_of in _COSTS.items():
        if _decode(whole, encoding) is None:
            continue
        read = text.decode(encoding)
        beyond = [character for character in read if not character.isascii()]
        if sum(cost_of(character) >= NONE for character in beyond) <= MOST_ODD * len(beyond):
            unusual = encoding in (OF_DOS if of_windows else OF_WINDOWS)
            of_words = sum(map(_word_cost, WORD.findall(read)))
            costs[encoding] = sum(map(cost_of, read)) + of_words + UNUSUAL_PAGE * unusual
    return min(costs, key=costs.__getitem__, default=None)


def _decode(text: bytes, encoding: str) -> str | None:
    try:
        return text.decode(encoding)
    except UnicodeDecodeError:
        return None


def _word_cost(word: str) -> float:
    """What a word costs beside its characters: for misplaced capitals, two scripts, accents on every letter."""
    if word.isascii():
        return 0.0
    cost = 0.0 if word.islower() or word.isupper() or word[1:].islower() or word.lower() == word.upper() else MISPLACED
    plain = re.search("[a-z]", word) or (re.search("[A-Z]", word) and max(word) < "\u0500")  # 類型A is no mixture
    if max(word) > "\u024f":
        return cost + MISPLACED * bool(plain)
    accents_alone = len(word) > 1 and not plain
    return cost + MISPLACED * (accents_alone + bool(re.search("(?:^|[^aeiouäöüAEIOUÄÖÜ])ß", word)))


def _by_letter(letters: dict[str, float]) -> Callable[[str], float]:
    """The cost of a character in a code page of one script."""

    @cache
    def cost(character: str) -> float:
        if character.isascii():
            return ASCII
        if character.lower() in letters:
            return letters[character.lower()] + CAPITAL * (character != character.lower())
        return RARE if character.isalpha() else NONE

    return cost


def _by_level(encoding: str, usual: frozenset[str], levels: Callable[[int], float]) -> Callable[[str], float]:
    """The cost of a character in an encoding of East Asia: a usual one, or by its code."""

    @cache
    def cost(character: str) -> float:
        if character.isascii():
            return ASCII
        return USUAL if character in usual else levels(int.from_bytes(character.encode(encoding, "replace")))

    return cost


def _japanese(code: int) -> float:
    """Hiragana, katakana, kanji of the first level and the second, half-width katakana, signs of full width."""
    if 0x829F <= code <= 0x82F1 or 0x8340 <= code <= 0x8396 or code in (0x8158, 0x815B):
        return 4.8
    if 0x889F <= code <= 0x9872:
        return 8.2
    if 0xA1 <= code <= 0xDF:
        return 8.0
    return 11.0 if 0x989F <= code <= 0xEAA4 else RARE if 0x8140 <= code <= 0x829A else NONE


def _korean(code: int) -> float:
    """The other syllables of KS X 1001, and Chinese characters and signs in it."""
    if code & 0xFF < 0xA1:
        return NONE
    if 0xB0A1 <= code <= 0xC8FE:
        return 8.2
    return 12.0 if code >= 0xCAA1 else RARE if 0xA1A1 <= code <= 0xA3FE else NONE


def _simplified(code: int) -> float:
    """Characters of the first level of GB 2312, of the second, and signs."""
    if code & 0xFF < 0xA1 or code > 0xF7FE:
        return NONE
    if code >= 0xB0A1:
        return 8.2 if code <= 0xD7F9 else 11.0
    return RARE if 0xA1A1 <= code <= 0xA3FE else NONE


def _traditional(code: int) -> float:
    """Characters of Big5's first level, of the second, and signs."""
    if 0xA440 <= code <= 0xC67E:
        return 8.2
    return 11.0 if 0xC940 <= code <= 0xF9D5 else RARE if 0xA140 <= code <= 0xA3FE else NONE


_COSTS: dict[str, Callable[[str], float]] = {
    "cp437": _by_letter(WESTERN),
    "cp850": _by_letter(WESTERN),
    "cp1252": _by_letter(WESTERN),
    "cp866": _by_letter(CYRILLIC),
    "cp1251": _by_letter(CYRILLIC),
    "cp932": _by_level("cp932", HAN, _japanese),
    "gbk": _by_level("gbk", HAN, _simplified),
    "big5": _by_level("big5", HAN, _traditional),
    "cp949": _by_level("cp949", HANGUL, _korean),
}
