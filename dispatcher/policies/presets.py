"""Patterns for what is usually not to get out: personal data that can be told by its form, and secrets.

Numbers are checked beyond their form where their issuers gave them a check digit. What is found may be written with the
usual separators. A preset holds back no more than its longest form.
"""

import re
from collections.abc import Callable
from unicodedata import digit

import msgspec

from dispatcher.policies.keys import KEYS


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
    compact = re.sub(r"[\s-]", "", text).upper()
    if _IBAN_LENGTHS.get(compact[:2]) != len(compact):
        return False
    return int("".join(str(int(character, 36)) for character in compact[4:] + compact[:4])) % 97 == 1


def _cn_id(text: str) -> bool:
    """GB 11643: ISO 7064, MOD 11-2; the last may be an X."""
    characters = re.sub(r"[\s-]", "", text)
    weights = [2 ** (17 - at) % 11 for at in range(18)]
    values = [10 if character in "Xx" else digit(character) for character in characters]
    return bool(sum(weight * value for weight, value in zip(weights, values, strict=True)) % 11 == 1)


_GAP = r"[ \u00a0\u2000-\u200a\u202f\u2010-\u2015\u2212-]"  # a space or a dash
_ALNUM = "[A-Za-z0-9]"
_LETTERS = r"A-Za-z\u00c0-\u024f\u0300-\u036f\u0370-\u052f"  # of alphabets that part their words, RFC 6531
_LABEL = rf"[{_LETTERS}0-9](?:[{_LETTERS}0-9-]*[{_LETTERS}0-9])?"
# Also as a quotation, and as a program's strings, one for each line.
_KEY_BODY = r"(?:\n[ \t]*[>#*|]+|[\"'][\s+,.&\\]*[\"']|[A-Za-z0-9+/=\s:,.\\]|-(?!-))*"
_KEY_NAME = r"(?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----"

# A header in JSON, a payload or what stands for one, and a signature (RFC 7515) or what is encrypted (RFC 7516).
_JWT = (
    r"(?:eyJ|eyA|ewo|ew0)[A-Za-z0-9_-]{10,}=*\."
    r"(?:(?:eyJ|eyA|ewo|ew0)[A-Za-z0-9_-]{10,}=*|[A-Za-z0-9_-]*\.[A-Za-z0-9_-]{16,})(?:\.[A-Za-z0-9_-]+=*){0,3}"
)
# Each behind what no key goes on from on the left. All in one expression, so that a text that begins like several of
# them is followed once.
_KEYS = "|".join(key.expression for key in KEYS)

PRESETS: dict[str, tuple[Form, ...]] = {
    "email": (
        # RFC 5321: 64 characters before the @, 255 after it
        Form(rf"[{_LETTERS}0-9.!#$%&'*+/=?^_`{{|}}~-]+@(?:{_LABEL}\.)+[{_LETTERS}][{_LETTERS}0-9-]*[{_LETTERS}]", 320),
    ),
    "phone": (
        # E.164: a + (or 00) and up to 15 digits, in groups
        Form(r"(?<![\w+])\+[1-9](?:[ \u00a0().\u2010-\u2015/-]{0,2}[0-9]){6,14}(?![0-9])", 44),
        Form(r"(?<![\w+])00[1-9](?:[ \u00a0().\u2010-\u2015/-]{0,2}[0-9]){8,14}(?![0-9])", 45),
        # North American
        Form(
            rf"(?<![\w+-])(?:1{_GAP})?(?:\([2-9][0-9]{{2}}\){_GAP}?|[2-9][0-9]{{2}}(?:{_GAP}|\.))"
            rf"[2-9][0-9]{{2}}(?:{_GAP}|\.)[0-9]{{4}}(?![\w-])",
            18,
        ),
        # national, with its leading 0, in groups; after two digits only in those that no date has
        Form(
            rf"(?<![\w+.,/-])(?:\(0[1-9]\){_GAP}?|\(?0[1-9][0-9]{{1,4}}(?:\){_GAP}?|{_GAP}|/))"
            rf"[0-9]{{2,5}}(?:{_GAP}?[0-9]{{2,4}}){{1,3}}(?![\w-])",
            32,
        ),
        Form(rf"(?<![\w+.,/-])0[1-9](?:(?:{_GAP}|\.)[0-9]{{2}}){{4}}(?![\w-])", 14),
        Form(rf"(?<![\w+.,/-])0[1-9]{_GAP}[0-9]{{3,5}}(?:{_GAP}?[0-9]){{4,5}}(?![\w-])", 18),
    ),
    "payment_card": (Form(rf"(?<![0-9])[2-68](?:{_GAP}?[0-9]){{12,18}}(?![0-9])", 37, _luhn),),
    "iban": (Form(rf"(?<!{_ALNUM})[A-Za-z]{{2}}[0-9]{{2}}(?:{_GAP}?{_ALNUM}){{11,30}}(?!{_ALNUM})", 64, _iban),),
    "cn_id": (
        Form(
            rf"(?<![0-9])[1-9][0-9]{{5}}{_GAP}?(?:18|19|20)[0-9]{{2}}(?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01]){_GAP}?"
            rf"[0-9]{{3}}[0-9Xx](?!{_ALNUM})",
            20,
            _cn_id,
        ),
    ),
    "cn_mobile": (
        Form(rf"(?<![0-9])(?:(?:\+|00)?86{_GAP}?)?1[3-9][0-9]{_GAP}?[0-9]{{4}}{_GAP}?[0-9]{{4}}(?![0-9])", 18),
    ),
    "api_keys": (Form(rf"(?<!{_ALNUM})(?:{_KEYS})", 200), Form(rf"(?<!{_ALNUM}){_JWT}", 4096)),
    "private_keys": (
        Form(rf"-----BEGIN {_KEY_NAME}{_KEY_BODY}(?:-----END {_KEY_NAME})?", 100),
        Form(r"PuTTY-User-Key-File-[0-9]: ", 30),
        Form(rf"(?<!{_ALNUM})AGE-SECRET-KEY-1[0-9A-Z]{{58}}", 80),
    ),
}
