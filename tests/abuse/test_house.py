"""The judgement of the abuse runs: what is a wait, and what is damage."""

from dataclasses import replace

from tests.abuse.house import MORE_BYTES, SECONDS, TIMES, Seen

QUIET = Seen(words=100, gap=0.03, first=0.05, stop=0.02, late=0.0, trouble=[], peak=100 << 20, more=1 << 20)


def test_a_wait_above_its_limit_is_no_damage() -> None:
    for name, seconds in SECONDS.items():
        most = max(seconds, TIMES * getattr(QUIET, name))
        within, beyond = (replace(QUIET, **{name: most + more}) for more in (-0.01, 0.01))
        assert not within.waits(QUIET)
        assert [found.split()[0] for found in beyond.waits(QUIET)] == [name]
        assert not beyond.damage(QUIET)
        assert not replace(beyond, late=0.02).waits(QUIET), "the user's own process was late"


def test_a_lost_word_and_memory_are_damage_and_no_wait() -> None:
    grown = replace(QUIET, more=QUIET.more + MORE_BYTES + 1)
    for seen in (replace(QUIET, trouble=["failed the text is …''"]), grown):
        assert seen.damage(QUIET)
        assert not seen.waits(QUIET)
    assert not replace(grown, more=grown.more - 1).damage(QUIET)
