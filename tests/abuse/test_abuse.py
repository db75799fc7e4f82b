"""Nobody stalls anybody: each attack with an honest user beside it, who waits no longer and reads its whole text.

make test-abuse
.venv/bin/pytest -m abuse tests/abuse -k heads
"""

import pytest

from tests.abuse import http
from tests.abuse.house import Attack, House, Seen

pytestmark = [pytest.mark.abuse, pytest.mark.timeout(180), pytest.mark.asyncio(loop_scope="module")]

TRIES = 3  # a machine that is busy with others slows whom it will; a stall comes again

ATTACKS: dict[str, Attack] = {
    "heads of 100 MB": http.heads,
    "pipelines": http.pipelines,
    "drips": http.drips,
    "bodies that are slow to read": http.bodies,
    "readers that never read": http.readers,
    "prompts that wait": http.prompts,
}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
async def test_nobody_else_is_harmed(attack: Attack, one_house: House, when_quiet: Seen, capsys) -> None:
    harm: list[str] = []
    for _ in range(TRIES):
        seen = await one_house.beside(attack)
        with capsys.disabled():
            print(f"\n  {seen}", end=" ")
        if not (harm := seen.harm(when_quiet)):
            break
    assert not harm
    assert not await one_house.left()
