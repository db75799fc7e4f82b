"""Mail addresses with letters of all scripts (RFC 6531), and with the dots that IDNA takes for one (RFC 3490, 3.1).

Scripts that part words with blanks are told from those that do not: there an address begins and ends within a run of
letters, and what is Latin in it is taken for itself: `邮件wang@example.com谢谢`.
"""

from unicodedata import category

LONGEST = 320  # characters; RFC 5321: 64 before the @, 255 after it

_UNPARTED = (
    (0x0E00, 0x0FFF),  # Thai, Lao, Tibetan
    (0x1000, 0x109F),  # Myanmar
    (0x1100, 0x11FF),  # Hangul, after which particles stand
    (0x1780, 0x17FF),  # Khmer
    (0x1950, 0x19FF),  # Tai
    (0x2E80, 0x9FFF),  # Han, kana, Bopomofo
    (0xA000, 0xA4CF),  # Yi
    (0xA960, 0xA9FF),  # Hangul, Javanese, Myanmar
    (0xAA60, 0xAADF),  # Myanmar, Tai
    (0xAC00, 0xD7FF),  # Hangul
    (0xF900, 0xFAFF),  # Han
)


def _letters(ranges: tuple[tuple[int, int], ...]) -> str:
    """Letters with their marks, as the inside of a set; ranges go on over what no character is assigned to."""
    found: list[list[int]] = []
    for start, end in ranges:
        goes_on = False
        for code in range(start, end + 1):
            kind = category(chr(code))
            if kind[0] in "LM":
                found[-1:] = [[found[-1][0], code]] if goes_on else [*found[-1:], [code, code]]
                goes_on = True
            elif kind != "Cn":
                goes_on = False
    return "".join(f"\\u{first:04x}-\\u{last:04x}" for first, last in found)


def _between(ranges: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
    """The rest of the Basic Multilingual Plane."""
    edges = [0, *(edge for first, last in ranges for edge in (first, last + 1)), 0x10000]
    return tuple((first, last - 1) for first, last in zip(edges[::2], edges[1::2], strict=True))


_UNPARTED_LETTER = _letters(_UNPARTED)
_LETTER = _letters(_between(_UNPARTED))
_ANY = f"{_LETTER}{_UNPARTED_LETTER}"
_LABEL = f"[{_ANY}0-9](?:[{_ANY}0-9-]*[{_ANY}0-9])?"
_LAST = f"(?:[{_LETTER}][{_LETTER}0-9-]*[{_LETTER}]|[{_UNPARTED_LETTER}]{{2,}})"
# An ideographic full stop also ends a sentence: it is a dot before Latin letters, small ones where there was a dot
# before, and before what is a top-level domain in the root zone.
_IDEOGRAPHIC = (
    "中国|中國|公司|网络|網絡|网址|网站|在线|商城|香港|台湾|台灣|新加坡|政务|公益|广告|みんな|コム|한국|닷컴|닷넷"
)
_DOMAIN = (
    rf"{_LABEL}(?:(?:\.|。(?=[A-Za-z]))(?:{_LABEL}(?:\.|。(?=[a-z])))*{_LAST}|(?:\.{_LABEL})*。(?:{_IDEOGRAPHIC}))"
)

# What may stand first is a letter, a digit or `_`: quotes and marks of emphasis before an address are not its own.
ADDRESS = rf"[{_LETTER}0-9_][{_LETTER}0-9.!#$%&'*+/=?^_`{{|}}~-]*@{_DOMAIN}"
# 64 octets are 21 such letters.
UNPARTED_ADDRESS = rf"(?<![{_UNPARTED_LETTER}])[{_UNPARTED_LETTER}]{{1,21}}@{_DOMAIN}"
