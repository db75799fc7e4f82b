"""Payment cards: whose numbers begin how, and how long they are. Facts, each with where it is written down."""

from typing import NamedTuple

_ISO = "ISO/IEC 7812 as listed in en.wikipedia.org/wiki/Payment_card_number"
_BRAINTREE = "github.com/braintree/credit-card-type"
_16_19 = (16, 17, 18, 19)


class Network(NamedTuple):
    """first, last: what its numbers begin with, both included. digits: how many they have."""

    name: str
    first: str
    last: str
    digits: tuple[int, ...]
    source: str


NETWORKS = (
    Network("Visa", "4", "4", (13, 16, 18, 19), _BRAINTREE),
    Network("Mastercard", "51", "55", (16,), _ISO),
    Network("Mastercard", "2221", "2720", (16,), _ISO),
    Network("American Express", "34", "34", (15,), _ISO),
    Network("American Express", "37", "37", (15,), _ISO),
    Network("Diners Club", "300", "305", (14, *_16_19), _ISO),
    Network("Diners Club", "3095", "3095", (14, *_16_19), _ISO),
    Network("Diners Club", "36", "36", (14, *_16_19), _ISO),
    Network("Diners Club", "38", "39", (14, *_16_19), _ISO),
    Network("Discover", "6011", "6011", _16_19, _ISO),
    Network("Discover", "644", "649", _16_19, _ISO),
    Network("Discover, RuPay, Troy, Elo", "65", "65", _16_19, _ISO),
    Network("UnionPay", "62", "62", _16_19, _ISO),
    Network("UnionPay", "8100", "8171", _16_19, _BRAINTREE),
    Network("JCB", "1800", "1800", (15,), _BRAINTREE),
    Network("JCB", "2131", "2131", (15,), _BRAINTREE),
    Network("JCB, LankaPay", "3528", "3589", _16_19, _ISO),
    Network("Maestro, Verve, Elo", "50", "50", _16_19, _BRAINTREE),
    Network("Maestro", "56", "58", _16_19, _BRAINTREE),
    Network("Maestro, InterPayment, InstaPayment, Elo", "63", "63", _16_19, _BRAINTREE),
    Network("Maestro, Bancontact", "67", "67", _16_19, _BRAINTREE),
    Network("Maestro", "5018", "5018", (12, 13, 14, 15), _ISO),
    Network("Maestro", "5020", "5020", (12, 13, 14, 15), _ISO),
    Network("Maestro", "5038", "5038", (12, 13, 14, 15), _ISO),
    Network("Maestro", "5893", "5893", (12, 13, 14, 15), _ISO),
    Network("Maestro", "6304", "6304", (12, 13, 14, 15), _ISO),
    Network("Maestro", "6759", "6759", (12, 13, 14, 15), _ISO),
    Network("Maestro", "6761", "6763", (12, 13, 14, 15), _ISO),
    Network("Mir, Borica", "2200", "2205", _16_19, _ISO),
    Network("Troy", "9792", "9792", (16,), _ISO),
    Network("RuPay, NPS Pridnestrovie, UkrCard, Hipercard", "60", "60", _16_19, _ISO),
    Network("RuPay", "81", "82", (16,), _ISO),
    Network("RuPay", "353", "353", (16,), _ISO),
    Network("RuPay", "356", "356", (16,), _ISO),
    Network("Uzcard", "8600", "8600", (16,), _ISO),
    Network("Humo", "9860", "9860", (16,), _ISO),
    Network("Napas", "9704", "9704", (16, 19), _ISO),
)


def _lengths() -> dict[str, set[int]]:
    """By what a number begins with."""
    found: dict[str, set[int]] = {}
    for network in NETWORKS:
        for prefix in range(int(network.first), int(network.last) + 1):
            found.setdefault(str(prefix), set()).update(network.digits)
    return found


_LENGTHS = _lengths()


def issued(number: str) -> bool:
    """Whether some network gives out numbers that begin so and are so long. The check digit is another matter."""
    return any(len(number) in _LENGTHS.get(number[:size], ()) for size in range(1, 5))
