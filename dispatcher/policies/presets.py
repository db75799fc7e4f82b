"""Patterns for what is usually not to get out: personal data that can be told by its form, and secrets.

Numbers are checked beyond their form where their issuers gave them a check digit. What is found may be written with the
usual separators. A preset holds back no more than its longest form.
"""

import re
from collections.abc import Callable
from unicodedata import digit

import msgspec

from dispatcher.policies.cards import issued
from dispatcher.policies.keys import KEYS
from dispatcher.policies.mail import ADDRESS, UNPARTED_ADDRESS
from dispatcher.policies.mail import LONGEST as MAIL_LONGEST
from dispatcher.policies.phones import GAP, INTERNATIONAL, NATIONAL, TOGETHER, not_counted_nor_a_book
from dispatcher.policies.phones import LONGEST as PHONE_LONGEST


class Form(msgspec.Struct, frozen=True):
    """longest: characters that are held at most while it is undecided."""

    expression: str
    longest: int
    check: Callable[[str], bool] | None = None


def _digits(text: str) -> list[int]:
    return [value for character in text if (value := digit(character, -1)) >= 0]


def _luhn(text: str) -> bool:
    """ISO/IEC 7812-1, annex B. A number of one digit only is nobody's."""
    digits = _digits(text)
    doubled = [sum(divmod(2 * each, 10)) if at % 2 else each for at, each in enumerate(reversed(digits))]
    return sum(doubled) % 10 == 0 and len(set(digits)) > 1


def _card(text: str) -> bool:
    return issued("".join(map(str, _digits(text)))) and _luhn(text)


# ISO 13616: the length of each country's IBAN, from the SWIFT registry, release 99.
_IBAN_LENGTHS = {
    country[:2]: int(country[2:])
    for country in re.findall(
        r"\w+",
        "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BI27 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DJ27 DK18 DO28 EE20 EG29 "
        "ES24 FI18 FK18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HN28 HR21 HU28 IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20 "
        "LB28 LC32 LI21 LT20 LU20 LV21 LY25 MC27 MD24 ME22 MK19 MN20 MR27 MT31 MU30 NI28 NL18 NO15 OM23 PK24 PL28 PS29 "
        "PT25 QA29 RO24 RS22 RU33 SA24 SC31 SD18 SE24 SI19 SK24 SM27 SO23 ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20 "
        "YE30",
    )
}


def _iban(text: str) -> bool:
    """ISO 7064, MOD 97-10, over the letters as two digits each."""
    compact = re.sub(r"[\W_]", "", text).upper()
    if _IBAN_LENGTHS.get(compact[:2]) != len(compact):
        return False
    return int("".join(str(int(character, 36)) for character in compact[4:] + compact[:4])) % 97 == 1


def _cn_id(text: str) -> bool:
    """GB 11643: ISO 7064, MOD 11-2; the last may be an X."""
    characters = re.sub(r"[\W_]", "", text)
    weights = [2 ** (17 - at) % 11 for at in range(18)]
    values = [10 if character in "Xx" else digit(character) for character in characters]
    return bool(sum(weight * value for weight, value in zip(weights, values, strict=True)) % 11 == 1)


_ALNUM = "[A-Za-z0-9]"
# The groups in which cards are written: of four, as American Express has them, of six and the rest, or of one.
_DOT = rf"(?:{GAP}|\.)"
_MARK = rf"(?:{GAP}|[._])"
_CARD = (
    rf"(?:[0-9]{{12,19}}|[0-9]{{4}}(?:{_MARK}[0-9]{{4}}){{2,3}}(?:{_MARK}[0-9]{{1,4}})?"
    rf"|[0-9]{{4}}{_MARK}[0-9]{{6}}{_MARK}[0-9]{{4,5}}|[0-9]{{6}}{GAP}[0-9]{{10,13}}|[0-9](?:{GAP}[0-9]){{12,18}})"
)

# A key's text may be quoted, numbered, in a table, escaped for a URL or for HTML, or a program's strings.
_BLANK = r"(?:[ +_]|%20|&nbsp;|&#32;)"
_KEY_NAME = (
    rf"(?:(?i:(?:[A-Z0-9]+{_BLANK}){{0,3}}PRIVATE{_BLANK}KEY(?:{_BLANK}BLOCK)?)"
    rf"|OpenVPN{_BLANK}Static{_BLANK}key{_BLANK}V1){_BLANK}?-{{4,6}}"
)
_BAR = r"|\u2192\u2500-\u257f"  # also drawn, or an arrow
_BESIDE_KEY = (
    rf"(?:\n[ \t]*[>#*|]+|[\"'`][\s+,.&:)\\0-9>#*{_BAR}]*[\"'`]|%[0-9A-Fa-f]{{2}}|&(?:amp;)*#?[0-9A-Za-z]{{1,8}};"
    rf"|</?[A-Za-z][^<>\n]{{0,60}}>|\x1b\[[0-9;]*m|[\s:,.\\{_BAR}]|-(?!-))"
)
# From the end of a string to the next line's, whatever the statements are: `" >> key` and `echo "`.
_STATEMENT = r"[\"'`][^\"'`\n]{0,40}\n[^\"'`\n]{0,40}[\"'`](?:\\[nr])*"
_PEM = (
    rf"-{{4,6}}{_BLANK}?(?i:BEGIN){_BLANK}{_KEY_NAME}"
    rf"(?:{_BESIDE_KEY}*[A-Za-z0-9+/=]+|(?:{_BESIDE_KEY}*{_STATEMENT})+[A-Za-z0-9+/=]{{3,}})*"
    rf"(?:(?:{_BESIDE_KEY}*{_STATEMENT})*{_BESIDE_KEY}*-{{4,6}}{_BLANK}?(?i:END){_BLANK}{_KEY_NAME})?"
)
# A PuTTY key's lines: named ones, and base64 up to the end of a line; a MAC is the last.
_PUTTY_LINE = rf"\r?\n[>#*+\"'` \t{_BAR}-]*[0-9]{{0,6}}[>#*+\"'`:.)\] \t{_BAR}-]*"
_PUTTY = (
    r"PuTTY-User-Key-File-[0-9]: (?:(?:ssh|ecdsa)-[^\r\n]*"
    rf"(?:{_PUTTY_LINE}(?:(?:Encryption|Comment|(?:Public|Private)-Lines|Key-Derivation|Argon2-[A-Za-z]+):[^\r\n]*"
    rf"|[A-Za-z0-9+/=]{{2,}}[ \t\"'`,+\\{_BAR}]*(?=[\r\n]|\Z)))*"
    rf"(?:{_PUTTY_LINE}Private-(?:MAC|Hash):[^\r\n]*)?)?"
)

# A header in JSON, a payload or what stands for one, and a signature (RFC 7515) or what is encrypted (RFC 7516).
_JWT = (
    r"(?:eyJ|eyA|ewo|ewk|ew0)[A-Za-z0-9+/_-]{10,}=*\."
    r"(?:(?:eyJ|eyA|ewo|ewk|ew0)[A-Za-z0-9+/_-]{10,}=*|[A-Za-z0-9+/_-]*\.[A-Za-z0-9+/_-]{16,})"
    r"(?:\.[A-Za-z0-9+/_-]+=*){0,3}"
)
# Each behind what no key goes on from on the left. All in one expression, so that a text that begins like several of
# them is followed once.
_KEYS = "|".join(key.expression for key in KEYS)

# Of each preset: the places at which a text may make it stand at once, at most (`cost`).
PRESET_PLACES = {
    "email": 44,
    "phone": 220,
    "payment_card": 30,
    "iban": 6,
    "cn_id": 9,
    "cn_mobile": 10,
    "api_keys": 71,
    "private_keys": 39,
}

PRESETS: dict[str, tuple[Form, ...]] = {
    "email": (Form(ADDRESS, MAIL_LONGEST), Form(UNPARTED_ADDRESS, MAIL_LONGEST)),
    "phone": (
        *(Form(expression, PHONE_LONGEST) for expression in INTERNATIONAL),
        *(Form(national.expression, PHONE_LONGEST) for national in NATIONAL),
        Form(TOGETHER, PHONE_LONGEST, not_counted_nor_a_book),
    ),
    # Not behind a decimal point, nor within hexadecimal digits; 19 digits with three characters between them.
    "payment_card": (Form(rf"(?<![0-9.])(?=[1-689]){_CARD}(?![0-9A-Fa-f])", 73, _card),),
    "iban": (Form(rf"(?<!{_ALNUM})[A-Za-z]{{2}}[0-9]{{2}}(?:{_DOT}?{_ALNUM}){{11,30}}(?!{_ALNUM})", 124, _iban),),
    "cn_id": (
        Form(
            rf"(?<![0-9])[1-9][0-9]{{5}}{GAP}?(?:18|19|20)[0-9]{{2}}(?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01]){GAP}?"
            rf"[0-9]{{3}}[0-9Xx](?!{_ALNUM})",
            24,
            _cn_id,
        ),
    ),
    "cn_mobile": (
        Form(rf"(?<![0-9.])(?:(?:\+|00)?86{_DOT}?)?1[3-9][0-9]{_DOT}?[0-9]{{4}}{_DOT}?[0-9]{{4}}(?![0-9A-Fa-f])", 24),
    ),
    "api_keys": (Form(rf"(?<!{_ALNUM})(?:{_KEYS})", 200), Form(rf"(?<!{_ALNUM}){_JWT}", 4096)),
    "private_keys": (
        Form(_PEM, 200),
        Form(_PUTTY, 1000),
        Form(rf"(?<!{_ALNUM})AGE-SECRET-KEY-(?:PQ-)?1[0-9A-Z]{{58,}}", 80),
    ),
}
