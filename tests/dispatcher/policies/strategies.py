"""Phrases, and texts in pieces in which parts and disguises of them are likely."""

from unicodedata import combining, normalize

from hypothesis import strategies as st

from tests.dispatcher.policies import oracle
from tests.dispatcher.policies.oracle import Wanted

# Few characters, so that they collide: case, width, ligatures, expansions, marks that change places, accents and marks
# that are none, syllables whole and in jamo, white space, dashes, what is ignored.
ALPHABET = (
    "abfiosABÁáàạø\uff46\ufb01ßſςσᾳιİǆ \u0301\u0300\u0323\u0344\uff9eかがุ\u094d"
    "가각나\u1100\u1161\u11a8ㄱㅏ㈎ \n\xa0\x85´'\u2019-\u2010\u200d\u00ad\u3164\u034f\0\ufff9"
)

characters = st.sampled_from(ALPHABET)


@st.composite
def phrase_lists(draw: st.DrawFn) -> list[str]:
    """Phrases that do not fold to nothing, nor begin with a mark; some are parts of others."""
    phrase = st.text(characters, min_size=1, max_size=5).filter(_is_phrase)
    phrases = draw(st.lists(phrase, min_size=1, max_size=3, unique=True))
    whole = draw(st.sampled_from(phrases))
    start, end = sorted(draw(st.tuples(st.integers(0, len(whole)), st.integers(0, len(whole)))))
    part = whole[start:end]
    return [*phrases, part] if _is_phrase(part) and part not in phrases else phrases


def _is_phrase(text: str) -> bool:
    return bool(oracle.string(text)) and not combining(oracle.string(text)[0])


def disguises(phrase: str) -> list[str]:
    forms = [normalize("NFC", phrase), normalize("NFD", phrase), normalize("NFKC", phrase), normalize("NFKD", phrase)]
    joined = [between.join(phrase) for between in ("\u200d", "\0", "\u0301", "\u0323")]
    return [*forms, phrase.upper(), phrase.swapcase(), "\u3164".join(forms[1]), *joined, phrase.replace(" ", " \n")]


def texts(phrases: list[str]) -> st.SearchStrategy[str]:
    phrase = st.sampled_from(phrases)
    part = st.one_of(
        st.text(characters, max_size=3),
        phrase.flatmap(lambda phrase: st.sampled_from(disguises(phrase))),
        phrase.flatmap(lambda phrase: st.integers(0, len(phrase)).map(lambda end: phrase[:end])),
    )
    return st.lists(part, max_size=4).map(lambda parts: "".join(parts)[:14])


@st.composite
def splits(draw: st.DrawFn, text: str) -> list[str]:
    cuts = sorted(draw(st.sets(st.integers(0, len(text)), max_size=len(text))))
    return [text[i:j] for i, j in zip([0, *cuts], [*cuts, len(text)], strict=True)]


@st.composite
def wanted_lists(draw: st.DrawFn, actions: tuple[str, ...] = ("stop", "redact", "observe")) -> list[Wanted]:
    phrases = draw(phrase_lists())
    return [
        Wanted(phrase, draw(st.sampled_from(actions)), draw(st.booleans()), draw(st.booleans())) for phrase in phrases
    ]


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[Wanted], list[str]]:
    """What is looked for, and the pieces of a text."""
    wanted = draw(wanted_lists())
    return wanted, draw(splits(draw(texts([each.phrase for each in wanted]))))
