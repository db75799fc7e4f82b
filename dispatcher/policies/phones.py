"""Telephone numbers as they are written: in groups, with the usual marks between them, an extension behind.

International ones begin with a + (or 00) and have up to 15 digits (ITU-T E.164, E.123). The national forms are those of
the twenty countries with the most people and some more, as libphonenumber's metadata has them
(github.com/google/libphonenumber, resources/PhoneNumberMetadata.xml).
"""

from typing import NamedTuple

LONGEST = 80  # characters, with all marks and an extension

_SPACES = r" \u00a0\u2000-\u200a\u202f"
_DASHES = r"\u2010-\u2015\u2212-"
_SPACE = f"[{_SPACES}]"
GAP = f"(?:{_SPACE}?[{_DASHES}]{_SPACE}?|{_SPACE})"  # between groups of any number; three characters at most
_MARKS = rf"(?:{_SPACE}[{_DASHES}]{_SPACE}|[{_SPACES}()./{_DASHES}]{{0,2}})"
# `x12`, `ext. 12`, `#12`, also touching the number; `;ext=12` (RFC 3966)
_EXTENSION = rf"(?:[,;]?{_SPACE}?[eE][xX][tT]\.?|{_SPACE}?[xX#]){_SPACE}?[=:.]?{_SPACE}?[0-9]{{1,7}}(?!\w)"

INTERNATIONAL = (
    rf"(?<![\w+])\+[1-9](?:{_MARKS}[0-9]){{6,14}}(?:{_EXTENSION}|(?![0-9]))",
    rf"(?<![\w+./-])00[1-9](?:{_MARKS}[0-9]){{8,14}}(?:{_EXTENSION}|(?![0-9]))",
)


class National(NamedTuple):
    """form: an expression in which `d` is any digit, a blank a space or a dash between groups, `~` one of these or a
    dot.
    """

    countries: str
    form: str

    @property
    def expression(self) -> str:
        form = self.form.replace("~", r"(?: |\.)").replace(" ", GAP).replace("d", "[0-9]")
        # not within a name, a date, a fraction or a longer number
        return rf"(?<![\w+./-])(?:{form})(?:{_EXTENSION}|(?![\w-]))"


NATIONAL = (
    National("United States, Canada, Mexico", r"(?:1 )?(?:\([2-9]dd\) ?ddd~dddd|[2-9]dd(?: ddd dddd|\.ddd\.dddd))"),
    # With the 0 of most countries: Bangladesh, DR Congo, Egypt, Ethiopia, Germany, India, Indonesia, Iran, Japan,
    # Nigeria, Pakistan, Philippines, Thailand, Turkey, Vietnam; Australia, Britain, Italy, Korea, South Africa.
    # After two digits only in groups that no date has.
    National("with a leading 0", r"(?:\(0[1-9]d{0,4}\) ?|0[1-9](?:d{1,2}|d{4})(?: | ?/ ?))d{2,5}(?: ?d{2,4}){1,3}"),
    # Five and four digits are a ZIP code.
    National("with a leading 0", r"0[1-9]ddd(?: | ?/ ?)(?:d{3,5}(?: ?d{2,4}){1,3}|dd d{2,4}(?: ?d{2,4}){0,2})"),
    National("with a leading 0", r"0[1-9] d{3,5}(?: ?d){4,5}"),
    National("France", r"0[1-9](?:~dd){4}"),
    National("Brazil", r"\([1-9][1-9]\) ?9?dddd ?dddd|[1-9][1-9] (?:9dddd dddd|(?:[3-5]d|2[1-9])dd-dddd)"),
    National("China", r"1[3-9]d dddd dddd"),
    National("India", r"[6-9]dddd ddddd"),
    National("Mexico", r"(?:33|55|56|81) dddd dddd"),
    National("Russia, Kazakhstan", r"8(?: ?\([34789]dd\) ?| [34789]dd )ddd ?dd ?dd|89d{9}"),
    National("Russia, Turkey", r"(?:\([2-9]dd\) ?|[2-9]dd )ddd dd dd"),
    National("Thailand", r"0-[1-9]ddd-dddd"),
    National("Italy", r"3dd d{6,7}"),
    National("Spain", r"[6-9]dd dd dd dd"),
)
# In one group, with the 0.
TOGETHER = rf"(?<![\w+./-])0[1-9][0-9]{{8,9}}(?:{_EXTENSION}|(?![\w-]))"


def not_counted_nor_a_book(text: str) -> bool:
    """Neither the digits in their order, as programs have them, nor an ISBN-10 by its check digit (ISO 2108)."""
    number = text[: 11 if text[10:11].isdigit() else 10]
    weighed = sum(weight * int(digit) for weight, digit in zip(range(10, 0, -1), number, strict=False))
    counted = "012345678901234567890"
    return number not in counted and number[::-1] not in counted and (len(number) != 10 or weighed % 11 != 0)
