"""Nothing lost, nothing twice, nothing stuck, whatever breaks: the rig over both stores."""

import os
import random

import pytest

from tests.faults.rig import run
from tests.redis_servers import needed

SEED = int(os.environ.get("FAULT_SEED") or random.SystemRandom().randrange(2**32))
COUNT = int(os.environ.get("FAULT_COUNT") or 200)


@pytest.mark.faults
@pytest.mark.timeout(700)
@pytest.mark.parametrize("topology", ["sqlite", "redis"])
async def test_nothing_is_lost_doubled_or_stuck(topology, tmp_path, capsys):
    if topology == "redis":
        needed()
    report = await run(topology, SEED, COUNT, tmp_path)
    with capsys.disabled():
        print(f"\n{report}")
    assert not report.violations, report.failure()
