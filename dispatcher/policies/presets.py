"""Patterns for what is usually not to get out: personal data that can be told by its form, and secrets.

Numbers are checked beyond their form where their issuers gave them a check digit. What is found may be written with the
usual separators. A preset holds back no more than its longest form.
"""

import re
from collections.abc import Callable
from unicodedata import digit

import msgspec


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

# Each behind what no key goes on from on the left; after it, a key's letters may go on (longer keys are keys).
_API_KEYS = (
    r"sk-[A-Za-z0-9_-]{20,}",  # OpenAI, Anthropic, DeepSeek, OpenRouter
    r"gsk_[A-Za-z0-9]{20,}",  # Groq
    r"xai-[A-Za-z0-9]{20,}",
    r"r8_[A-Za-z0-9]{30,}",  # Replicate
    r"hf_[A-Za-z0-9]{30,}",  # Hugging Face
    r"pplx-[A-Za-z0-9]{20,}",  # Perplexity
    r"A(?:KI|SI|BI|CC)A[A-Z0-9]{16}",  # AWS
    r"AIza[A-Za-z0-9_-]{35}",  # Google
    r"ya29\.[A-Za-z0-9_-]{20,}",
    r"GOCSPX-[A-Za-z0-9_-]{20,}",
    r"gh[pousr]_[A-Za-z0-9]{36,}",  # GitHub
    r"github_pat_[A-Za-z0-9_]{22,}",
    r"glpat-[A-Za-z0-9_-]{20,}",  # GitLab
    r"xox[abeoprs]-[A-Za-z0-9-]{10,}",  # Slack
    r"xapp-[A-Za-z0-9-]{10,}",
    r"[rs]k_(?:live|test)_[A-Za-z0-9]{16,}",  # Stripe
    r"whsec_[A-Za-z0-9]{24,}",
    r"SG\.[A-Za-z0-9_-]{16,32}\.[A-Za-z0-9_-]{16,64}",  # SendGrid
    r"(?:AC|SK)[0-9a-f]{32}",  # Twilio
    r"key-[0-9a-f]{32}",  # Mailgun
    r"npm_[A-Za-z0-9]{36}",
    r"pypi-[A-Za-z0-9_-]{50,}",
    r"dckr_pat_[A-Za-z0-9_-]{20,}",  # Docker
    r"do[opr]_v1_[0-9a-f]{64}",  # DigitalOcean
    r"shp(?:at|ca|pa|ss)_[0-9a-fA-F]{32}",  # Shopify
    r"dapi[0-9a-f]{32}",  # Databricks
    r"lin_api_[A-Za-z0-9]{32,}",  # Linear
    r"secret_[A-Za-z0-9]{43}",  # Notion
    r"LTAI[A-Za-z0-9]{12,26}",  # Alibaba Cloud
    r"AKID[A-Za-z0-9]{32}",  # Tencent Cloud
    r"[0-9]{8,10}:AA[A-Za-z0-9_-]{33}",  # Telegram
)

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
    "api_keys": tuple(Form(rf"(?<!{_ALNUM}){expression}", 100) for expression in _API_KEYS),
    "private_keys": (
        Form(rf"-----BEGIN {_KEY_NAME}{_KEY_BODY}(?:-----END {_KEY_NAME})?", 100),
        Form(r"PuTTY-User-Key-File-[0-9]: ", 30),
        Form(rf"(?<!{_ALNUM})AGE-SECRET-KEY-1[0-9A-Z]{{58}}", 80),
    ),
}
