"""What the presets find, in any split, and what they let pass; no number here is anybody's."""

from functools import cache

import pytest

from dispatcher.policies.matches import Action
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
        "`«jane@example.com»`, **«jane@example.com»**, '«jane@example.com»', {«jane@example.com»}",
        "«name/surname@example.com», «mailhost!user%example@example.org», «_x+jane=example.com@example.org»",
        "«müller@exämple.de», «mu\u0308ller@example.com»",
        "пиши на «иван@пример.рф».",
        # one script each
        "«χρήστης@παράδειγμα.ελ» «квіточка@пошта.укр» «अजय@डाटा.भारत» «ইউজার@উদাহরণ.বাংলা» «பயனர்@உதாரணம்.இந்தியா»",
        "«مستخدم@مثال.إختبار» «משתמש@דוגמה.קום» «օգտվող@օրինակ.հայ» «მომხმარებელი@მაგალითი.გე» «ተጠቃሚ@ምሳሌ.ኢትዮ»",
        "«用户@例子.广告», «ユーザー@例え.テスト»! «사용자@예시.한국» «ผู้ใช้@ตัวอย่าง.ไทย» «អ្នកប្រើ@ឧទាហរណ៍.ខ្មែរ»",
        "请联系«123456@qq.com»谢谢, 发到«wang@例子.中国»。메일은 «hong@example.com»으로",
        "«jane@example。com»! «jane@mail．example｡com»; «jane@例子。中国»。谢谢",
        "在«wang@example.com»。谢谢大家",
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
        "«+1 (202) 555 - 0143» or «+33\u202f1\u202f42\u202f68\u202f53\u202f00» or «+49\u200930\u2009901820»",
        "«202-555-0143x12». Or «(202) 555-0143 ext. 12» or «+1-202-555-0143;ext=12» or «202.555.0143 #7»",
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
        "«9792885393363384».",
        "«2200 1234 5678 9019», «6759 6498 2643 8453», «5018 0000 0009»",
        "«4111-1111-1111-1111»,«5500000000000004»",
        "«4111.1111.1111.1111», «4111_1111_1111_1111», «3782.822463.10005»",
        "«4111 - 1111 - 1111 - 1111» and «4 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1»",
        "«3782 822463 10005»; «6799990100000000019»; «180001638277392»; «5066991111111118»; «8600 1234 5678 9012»",
    ],
    "iban": [
        "pay to «GB82 WEST 1234 5698 7654 32» is my wish",
        "«DE89370400440532013000»",
        "«fr14 2004 1010 0505 0001 3m02 606»",
        "(«NO93 8601 1117 947»)",
        "«MT84MALT011000012345MTLCAST001S»",
        "«DE89.3704.0044.0532.0130.00». Or «NL91.ABNA.0417.1643.00», «gb29.nwbk.6016.1331.9268.19».",
        "«DE89–3704–0044–0532–0130–00», «DE89\u20093704\u20090044\u20090532\u20090130\u200900»",
    ],
    "cn_id": [
        "身份证«11010519491231002X»。",
        "«110105 19491231 002x»",
        "ID:«440524188001010014», «110105–19491231–002X»",
    ],
    "cn_mobile": [
        "手机«13800138000»，",
        "«+86 138-0013-8000»",
        "«008613800138000»",
        "tel «8613912345678»",
        "«199 1234 5678»",
        "«138.0013.8000». Or «86.138.0013.8000»",
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
        'echo "«-----BEGIN PRIVATE KEY-----" > k\necho "MIIEvQ+/" >> k\necho "-----END PRIVATE KEY-----»" >> k',
        (
            'echo "«-----BEGIN RSA PRIVATE KEY-----" > k\necho "Proc-Type: 4,ENCRYPTED" >> k\n'
            'echo "DEK-Info: AES,0F" >> k\necho "\\n" >> k\necho "" >> k\necho "MIIE»" >> k'
        ),
        "$k = '«-----BEGIN PRIVATE KEY-----';\n$k .= 'MIIEvQ';\n$k .= '-----END PRIVATE KEY-----»';\n$k .= 'so';",
        'k = "«-----BEGIN PRIVATE KEY-----" & vbCrLf & _\r\n"MIIEvQ" & vbCrLf & _\r\n"-----END PRIVATE KEY-----»"',
        'The line "«-----BEGIN PRIVATE KEY-----»" begins a "key".',
        "1 | «-----BEGIN PRIVATE KEY-----\n2 | MIIEvQIBADANBgkqhkiG9w0B\n3 | -----END PRIVATE KEY-----»\n",
        "| «-----BEGIN PRIVATE KEY----- |\n| MIIEvQ |\n| -----END PRIVATE KEY-----» |\n",
        "   1 │ «-----BEGIN PRIVATE KEY-----\n   2 │ MIIEvQ\n   3 │ -----END PRIVATE KEY-----»\n",
        "\x1b[32m«-----BEGIN PRIVATE KEY-----\x1b[0m\n\x1b[32mMIIEvQ\x1b[0m\n-----END PRIVATE KEY-----»\x1b[0m",
        "1. `«-----BEGIN PRIVATE KEY-----`\n2. `MIIEvQ`\n3. `-----END PRIVATE KEY-----»`",
        "«-----BEGIN PRIVATE KEY-----&amp;#10;MIIEvQ&amp;#10;-----END PRIVATE KEY-----»",
        "k=«-----BEGIN%20PRIVATE%20KEY-----%0AMIIE%2BvQ%3D%3D%0A-----END%20PRIVATE%20KEY-----»%0A",
        "<code>«-----BEGIN PRIVATE KEY-----<br>MIIEvQ<br/>-----END PRIVATE KEY-----»</code>",
        "«-----BEGIN PRIVATE KEY-----&#10;MIIEvQ&#x2B;A&#10;-----END PRIVATE KEY-----»&#10;",
        "+«-----BEGIN PRIVATE KEY-----\n+MIIEvQ\n+-----END PRIVATE KEY-----»\n-and on",
        "«---- BEGIN SSH2 ENCRYPTED PRIVATE KEY ----\nP2/56wAAA\n---- END SSH2 ENCRYPTED PRIVATE KEY ----»",
        "«-----BEGIN OpenVPN Static key V1-----\n6acef03f62675b4b\n-----END OpenVPN Static key V1-----»",
        "«PuTTY-User-Key-File-3: ssh-ed25519\nPrivate-Lines: 1\nAAAAIGxSECRETSECRET»\n",
        (
            "«PuTTY-User-Key-File-2: ssh-rsa\r\nEncryption: none\r\nComment: me@home (100% & more)\r\n"
            "Public-Lines: 2\r\nAAAAB3NzaC1yc2EAAAABJQAAAQ\r\nEA==\r\nPrivate-Lines: 1\r\nAAABAQ\r\n"
            "Private-MAC: 8b1f»\r\nDone\r\n"
        ),
        "> 1 | «PuTTY-User-Key-File-3: ssh-rsa |\n> 2 | Private-Lines: 1 |\n> 3 | AAABAQ |»\n> 4 | Keep it safe. |",
        "«AGE-SECRET-KEY-1" + "Q" * 58 + "» or «AGE-SECRET-KEY-PQ-1" + "Q" * 62 + "»",
    ],
}

PASSED = {
    "email": [
        "@john",
        "a@b",
        "user@localhost",
        "5 @ 3.50",
        "a @b.com",
        "git@",
        "`@pydantic.dataclass`",
        "x@.com",
        "a@b.c",
        "@media (x)",
    ],
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
        "Boston, MA 02110-1301",
        "0123456789, 01234567890 and 0987654321, ISBN 0596000278",
        "192.168.1.100 - 10.0.0.1",
        'points="1215.25,268.028 1220.29,278.007 1225.25" of 20181221.005011.8974.0.001, clause 252.227-7013',
    ],
    "payment_card": [
        "4111111111111112",  # fails its check
        "1234567812345670",  # nobody issues it
        "0000 0000 0000 0000",
        "411111111111",  # too short
        "41111111111111111111",  # too long
        "2222222222222222",
        "123e4567-e89b-12d3-a456-426614174000",
        "2.6457513110645907 is it; 2.6457513110645906 too",  # the square root of 7
        "4111.1111.1111.1112, 4.1.1.1.1.1.1.1.1.1.1.1.1.1.1.1",
        "job 53033190-7660-45b1-99e1-7b552e94525c",
        "IMEI 490154203237518, ICCID 8991101200003204510",
        "1700000000000000009, 3000000000000000009",
        "41 42 43 44 45 46 47 48",  # letters, in hexadecimal
        "a94111111111111111f3",
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


@cache
def rules(preset: str, action: Action) -> RuleSet:
    return RuleSet([PatternsPolicy("p", presets=(preset,), action=action, replacement="#")])


def shown(preset: str, text: str, size: int) -> str:
    gate = rules(preset, "redact").gate(0.0)
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
    gate = rules(preset, "stop").gate(0.0)
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
    gate = rules(preset, "stop").gate(0.0)
    gate.resume(0)
    most = 0
    for character in PROSE:
        gate.content(character, 1.0)
        most = max(most, gate.held)
    assert most <= held


def test_text_without_blanks_is_held_no_longer_than_a_name_may_be() -> None:
    gate = rules("email", "stop").gate(0.0)
    gate.resume(0)
    for character in "今天天气很好我们去公园散步然后一起吃午饭再回家看书写字听音乐" * 3 + "。":
        gate.content(character, 1.0)
        assert gate.held <= 21
    assert gate.held == 0


@pytest.mark.parametrize("preset", PRESETS)
def test_a_long_word_is_held_up_to_the_longest_form_and_not_stopped(preset: str) -> None:
    gate = rules(preset, "stop").gate(0.0)
    gate.resume(0)
    for _ in range(1000):
        assert gate.content("deadbeefz", 1.0).violation is None
    assert gate.held <= max(form.longest for form in PRESETS[preset])


# As libphonenumber writes its examples of fixed and mobile numbers in their own country; and some with other marks.
NATIONAL = {
    "India": "074104 10123, 081234 56789, 81234 56789, 81234-56789, 022-23456789, 09812345678",
    "China": "010 1234 5678, 131 2345 6789, 0755-12345678, (021) 1234 5678",
    "United States": "(201) 555-0123, 201-555-0123, 201.555.0123, 1-201-555-0123",
    "Indonesia": "(021) 8350123, 0812-345-678, 0812 3456 7890",
    "Pakistan": "(021) 23456789, 0301 2345678, 0301-2345678, 03012345678",
    "Nigeria": "02033 12 3456, 0802 123 4567, 08021234567",
    "Brazil": "(11) 2345-6789, (11) 96123-4567, (11)961234567, 11 96123-4567, 11 2345-6789",
    "Bangladesh": "02-7111234, 01812-345678, 01812345678",
    "Russia": "8 (301) 123-45-67, 8 (912) 345-67-89, 8 912 345 67 89, 8-912-345-67-89, 8(912)345-67-89, 89123456789",
    "Kazakhstan": "8 777 254 64 83, 8 (777) 254-64-83",
    "Ethiopia": "011 111 2345, 091 123 4567, 0911234567",
    "Mexico": "200 123 4567, 222 123 4567, 55 1234 5678",
    "Japan": "03-1234-5678, 090-1234-5678, (03) 1234-5678, 09012345678",
    "Egypt": "02 34567890, 010 01234567, 01001234567",
    "Philippines": "(02) 3234 5678, 0905 123 4567, 0905-123-4567, 09051234567",
    "DR Congo": "012 34567, 0991 234 567, 0991234567",
    "Vietnam": "0210 1234 567, 0912 345 678, 0912345678",
    "Iran": "021 2345 6789, 0912 345 6789, 09123456789",
    "Turkey": "(0212) 345 67 89, 0501 234 56 78, 501 234 56 78, 05012345678",
    "Germany": "030 123456, 01512 3456789, 030/123456, 089 / 123456, 030 - 123456",
    "Thailand": "02 123 4567, 081 234 5678, 081-234-5678, 0812345678, 0-2123-4567",
    "Britain": "0121 234 5678, 07400 123456, 020 7946 0958, 07400123456",
    "France": "01 23 45 67 89, 06.12.34.56.78, 0612345678, 0142685300",
    "Italy": "02 1234 5678, 312 345 6789, 312 3456789",
    "Spain": "810 12 34 56, 612 34 56 78",
    "Korea": "02-212-3456, 010-2000-0000, 01020000000",
    "Australia": "(02) 1234 5678, 0412 345 678",
    "South Africa": "010 123 4567, 071 123 4567",
}


@pytest.mark.parametrize("country", NATIONAL)
def test_numbers_are_found_as_they_are_written_at_home(country: str) -> None:
    for number in NATIONAL[country].split(", "):
        for around in ("{}", "call {}.", "({})", "tel: {}, or", "{}\n", "{} ext. 5"):
            for size in (1, 100):
                hidden = around.replace(" ext. 5", "")
                assert shown("phone", around.format(number), size) == hidden.format("#"), around.format(number)


def test_every_preset_is_tested() -> None:
    assert set(FOUND) == set(PASSED) == set(PRESETS)
