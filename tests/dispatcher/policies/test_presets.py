"""What the presets find, in any split, and what they let pass; no number here is anybody's."""

import pytest

from dispatcher.policies.presets import PRESETS
from dispatcher.policies.rules import PatternsPolicy, RuleSet

# «…» is what has to be found.
FOUND = {
    "email": [
        "write to «john.doe+news@mail.example.co.uk», please",
        "«a@b.io»",
        "邮件«wang@example.com»谢谢",
        "<«jane_doe%x@sub-domain.example.org»>.",
        "mailto:«o'neil@example.museum»?subject=x",
        "«ＪＯＨＮ＠ＥＸＡＭＰＬＥ．ＣＯＭ»",
        "«jo\u200bhn@exam\u00adple.com»",
        "«{}@example.com»".format("x" * 64),
        "me@x «you@example.net»",
        "«müller@exämple.de», «mu\u0308ller@example.com»",
        "пиши на «иван@пример.рф».",
    ],
    "phone": [
        "call «+1 (415) 555-2671» now",
        "«+442079460958»",
        "«+49 30 901820»,",
        "«0044 20 7946 0958»",
        "«(415) 555-2671» or «415-555-2671» or «415.555.2671»",
        "«1 415 555 2671»",
        "Paris: «01 42 68 53 00»",
        "«030/901820»",
        "«01.42.68.53.00»",
        "Tokyo «03-1234-5678», Sydney «02 9374 4000», Brussels «02 512 34 56»",
        "London «(020) 7946 0958»",
        "«+8613800138000»",
    ],
    "payment_card": [
        "card «4111 1111 1111 1111» 12/26",
        "«4111111111111111»",
        "«5500-0055-5555-5559»",
        "«378282246310005»;",
        "«6011 0009 9013 9424»x",
        "«30569309025904»",
        "«3530111333300000»",
        "«6200000000000005»",
        "«４１１１ １１１１ １１１１ １１１１»",
        "«4111\u200b1111\u00ad11111111»",
        "«4222222222222»",
    ],
    "iban": [
        "pay to «GB82 WEST 1234 5698 7654 32» is my wish",
        "«DE89370400440532013000»",
        "«fr14 2004 1010 0505 0001 3m02 606»",
        "(«NO93 8601 1117 947»)",
        "«MT84MALT011000012345MTLCAST001S»",
    ],
    "cn_id": ["身份证«11010519491231002X»。", "«110105 19491231 002x»", "ID:«440524188001010014»"],
    "cn_mobile": [
        "手机«13800138000»，",
        "«+86 138-0013-8000»",
        "«008613800138000»",
        "tel «8613912345678»",
        "«199 1234 5678»",
    ],
    "api_keys": [
        "key «sk-proj-abcdefghijklmnopqrstuvwxyz0123456789»!",
        "«sk-ant-api03-abcdefghijklmnopqrstuvwxyz»",
        'AWS="«AKIAIOSFODNN7EXAMPLE»"',
        "«ghp_0123456789abcdefghijklmnopqrstuvwxyz»",
        "«github_pat_0123456789abcdefghijkl_mnop»",
        "«xoxb-0123456789-abcdefghij»",
        "«AIzaSyA0123456789abcdefghijklmnopqrstuv»",
        "«hf_abcdefghijklmnopqrstuvwxyzABCDEFGH»",
        "«sk_" + "live_0123456789abcdefABCDEF»",
        "«glpat-abcdefghij0123456789»",
        "«123456789:AAabcdefghijklmnopqrstuvwxyz0123456»",
        "«LTAI0123456789abcdef»",
    ],
    "private_keys": [
        "x «-----BEGIN RSA PRIVATE KEY-----\nMIIE+/=\nabc\n-----END RSA PRIVATE KEY-----»\nand on",
        "«-----BEGIN PRIVATE KEY-----\\nMIIEvQ\\n-----END PRIVATE KEY-----»\\n",
        "«-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAA»",
        "«-----BEGIN PGP PRIVATE KEY BLOCK-----\n\nlQ\n-----END PGP PRIVATE KEY BLOCK-----»",
        (
            "«-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,0F\n\n"
            "MH\n-----END EC PRIVATE KEY-----»"
        ),
        "> «-----BEGIN RSA PRIVATE KEY-----\n> MIIE\n>\n> abc\n> -----END RSA PRIVATE KEY-----»\n> so",
        'k = ("«-----BEGIN PRIVATE KEY-----\\n"\n     "MIIEvQ\\n" +\n  "-----END PRIVATE KEY-----»\\n")',
        'The line "«-----BEGIN PRIVATE KEY-----»" begins a "key".',
    ],
}

PASSED = {
    "email": ["@john", "a@b", "user@localhost", "5 @ 3.50", "a @b.com", "git@", "x@.com", "a@b.c", "@media (x)"],
    "phone": [
        "2024-01-15",
        "in 2024, 1,000,000 of 100 000 000",
        "192.168.100.200",
        "ISBN 978-3-16-148410-0",
        "1700000000",
        "+12",
        "a+1234567",
        "12:30-13:45",
        "£0.99 to 0.25",
        "pages 415-555",
        "01/02/2024, 01-02-2024, 01.02.2024 10:30 or 01 02 2024",
        "05/2024 and 05-2024",
        "01/02/24 09:15",
    ],
    "payment_card": [
        "4111111111111112",  # fails its check
        "1234567812345670",  # nobody issues it
        "0000 0000 0000 0000",
        "411111111111",  # too short
        "41111111111111111111",  # too long
        "2222222222222222",
        "123e4567-e89b-12d3-a456-426614174000",
    ],
    "iban": [
        "GB82 WEST 1234 5698 7654 33",
        "XX82 WEST 1234 5698 7654 32",
        "DE8937040044053201300",
        "is 12 good old men and 1 more",
    ],
    "cn_id": ["110105194912310021", "11010519491331002X", "911010519491231002X", "20240101"],
    "cn_mobile": ["12800138000", "138001380001", "5138001380001", "1380013800"],
    "api_keys": [
        "task-force-of-the-century-x",
        "sk-short",
        "AKIAIOSFODNN7EXAMPL",
        "ghp_short",
        "risk-abcdefghijklmnopqrstuvwx",
    ],
    "private_keys": [
        "-----BEGIN PUBLIC KEY-----",
        "-----BEGIN CERTIFICATE-----",
        "----- BEGIN -----",
        "BEGIN PRIVATE KEY",
    ],
}


def shown(preset: str, text: str, size: int) -> str:
    rules = RuleSet([PatternsPolicy("p", presets=(preset,), action="redact", replacement="#")])
    gate = rules.gate(0.0)
    gate.resume(0)
    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    return "".join(gate.content(piece, 1.0).text for piece in pieces) + gate.end(1.0).text


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
@pytest.mark.parametrize(("preset", "marked"), [(preset, text) for preset in FOUND for text in FOUND[preset]])
def test_what_is_found_in_any_split(preset: str, marked: str, size: int) -> None:
    parts = marked.replace("«", "»").split("»")
    expected = "".join("#" if at % 2 else part for at, part in enumerate(parts))
    assert shown(preset, "".join(parts), size) == expected


@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize(("preset", "text"), [(preset, text) for preset in PASSED for text in PASSED[preset]])
def test_near_misses_pass(preset: str, text: str, size: int) -> None:
    assert shown(preset, text, size) == text


@pytest.mark.parametrize("size", [1, 5, 1000])
@pytest.mark.parametrize(("preset", "marked"), [(preset, text) for preset in FOUND for text in FOUND[preset]])
def test_nothing_of_it_gets_out_where_it_stops(preset: str, marked: str, size: int) -> None:
    gate = RuleSet([PatternsPolicy("p", presets=(preset,))]).gate(0.0)
    gate.resume(0)
    text, out = marked.replace("«", "").replace("»", ""), ""
    for at in range(0, len(text), size):
        release = gate.content(text[at : at + size], 1.0)
        out += release.text
        if release.violation:
            break
    else:
        release = gate.end(1.0)
        out += release.text
    assert release.violation
    assert out == marked.partition("«")[0]


PROSE = "The quick brown fox jumps over the lazy dog, who sleeps in a quiet corner of the old and sunny garden. "


@pytest.mark.parametrize(
    ("preset", "held"),
    # a word may be an address's beginning, or Terraform's; two letters an IBAN's
    [("email", 7), ("iban", 2), ("api_keys", 7), ("phone", 0), ("payment_card", 0), ("cn_id", 0), ("cn_mobile", 0)],
)
def test_prose_is_held_no_longer_than_needed(preset: str, held: int) -> None:
    gate = RuleSet([PatternsPolicy("p", presets=(preset,))]).gate(0.0)
    gate.resume(0)
    most = 0
    for character in PROSE:
        gate.content(character, 1.0)
        most = max(most, gate.held)
    assert most <= held


@pytest.mark.parametrize("preset", PRESETS)
def test_a_long_word_is_held_up_to_the_longest_form_and_not_stopped(preset: str) -> None:
    gate = RuleSet([PatternsPolicy("p", presets=(preset,))]).gate(0.0)
    gate.resume(0)
    for _ in range(1000):
        assert gate.content("deadbeefz", 1.0).violation is None
    assert gate.held <= max(form.longest for form in PRESETS[preset])


def test_every_preset_is_tested() -> None:
    assert set(FOUND) == set(PASSED) == set(PRESETS)
