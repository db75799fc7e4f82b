"""How often presets take for personal or secret what is neither, over samples that are made anew from a seed.

One digit of ten is a check digit that fits, so that a number of a card's length and beginning may be taken for one.
"""

import base64
import random
import uuid
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from dispatcher.policies.presets import PRESETS
from dispatcher.policies.rules import PatternsPolicy, RuleSet

COUNT = 500  # samples of a kind
WORDS = (
    "api auth cache client data get hf id index key list live load name new path read secret sk test token value xai"
)


def digits(chance: random.Random, count: int) -> str:
    return "".join(chance.choices("0123456789", k=count))


def checked(number: str) -> str:
    """With its check digit, ISO/IEC 7812-1."""
    doubled = [sum(divmod(2 * int(each), 10)) if at % 2 == 0 else int(each) for at, each in enumerate(reversed(number))]
    return f"{number}{-sum(doubled) % 10}"


def epoch(chance: random.Random) -> str:
    """In seconds, milliseconds, microseconds or nanoseconds."""
    return str(chance.randrange(10**9, 2 * 10**9)) + digits(chance, chance.choice((0, 3, 6, 9)))


def date(chance: random.Random) -> str:
    form = chance.choice(("%Y-%m-%dT%H:%M:%SZ", "%d.%m.%Y %H:%M", "%m/%d/%Y", "%Y%m%d%H%M%S", "%d %m %Y", "%d-%m-%y"))
    return datetime.fromtimestamp(chance.randrange(2 * 10**9), UTC).strftime(form)


def digest(chance: random.Random) -> bytes:
    return chance.randbytes(chance.choice((16, 20, 28, 32, 64)))


def words(chance: random.Random) -> list[str]:
    return chance.choices(WORDS.split(), k=chance.randrange(2, 7))


SAMPLES: dict[str, Callable[[random.Random], str]] = {
    "UUIDs": lambda chance: str(uuid.UUID(bytes=chance.randbytes(16), version=4)),
    "hashes": lambda chance: digest(chance).hex(),
    "hashes in base64": lambda chance: base64.b64encode(digest(chance)).decode(),
    "hashes in base64url": lambda chance: base64.urlsafe_b64encode(digest(chance)).decode().rstrip("="),
    "timestamps": epoch,
    "dates": date,
    "floats": lambda chance: repr(
        chance.choice((chance.random(), chance.uniform(-1e6, 1e6), chance.expovariate(1e-9)))
    ),
    "IMEI": lambda chance: checked(chance.choice(("35", "86", "01", "99")) + digits(chance, 12)),
    "ICCID": lambda chance: checked("89" + digits(chance, chance.choice((16, 17)))),
    "ids of 8 to 12 digits": lambda chance: str(chance.randrange(10**7, 10 ** chance.randrange(8, 13))),
    "ids of 13 to 19 digits": lambda chance: str(chance.randrange(10**12, 10 ** chance.randrange(13, 20))),
    "ids of letters and digits": lambda chance: "".join(
        chance.choices("ABCDEFGHJKMNPQRSTVWXYZabcdefghijk0123456789", k=chance.choice((12, 21, 26)))
    ),
    "names_of_words": lambda chance: "_".join(words(chance)),
    "names-of-words": lambda chance: "-".join(words(chance)),
    "hosts": lambda chance: ".".join(str(chance.randrange(256)) for _ in range(4)) + f":{chance.randrange(65536)}",
    "tables": lambda chance: " ".join(str(chance.randrange(10 ** chance.randrange(1, 6))) for _ in range(8)),
}

# Of all samples in percent; where nothing is said, none is taken.
AT_MOST = {
    ("payment_card", "ids of 13 to 19 digits"): 3.0,
    ("phone", "ids of 8 to 12 digits"): 1.0,  # 89 and nine digits: Russia
    ("phone", "tables"): 20.0,  # two numbers of five digits: India
    ("cn_mobile", "ids of 8 to 12 digits"): 3.0,
    ("cn_mobile", "ids of 13 to 19 digits"): 0.4,
    ("cn_mobile", "tables"): 1.0,
    ("cn_id", "ids of 13 to 19 digits"): 0.4,
    ("payment_card", "tables"): 0.4,
}


@pytest.mark.parametrize("preset", PRESETS)
def test_what_is_neither_personal_nor_secret_passes(preset: str) -> None:
    rules = RuleSet([PatternsPolicy("p", presets=(preset,), reads=frozenset({"prompt"}), action="redact")])
    for kind, sample in SAMPLES.items():
        chance = random.Random(kind)
        texts = [f"it is {sample(chance)} now" for _ in range(COUNT)]
        taken = [text for text in texts if rules.prompt([text]).denied]
        assert len(taken) <= COUNT * AT_MOST.get((preset, kind), 0.0) / 100, (kind, taken[:5])
