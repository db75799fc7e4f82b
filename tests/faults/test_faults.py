"""Nothing lost, nothing twice, nothing stuck, whatever breaks: the rig over both stores."""

import os
import random

import pytest

from tests.faults.rig import run
from tests.faults.schedule import TopologyName
from tests.programs import need

SEED = int(os.environ.get("FAULT_SEED") or random.SystemRandom().randrange(2**32))
COUNTS: dict[TopologyName, int] = {"sqlite": 240, "redis": 240, "outages": 6}


@pytest.mark.faults
@pytest.mark.timeout(700)
@pytest.mark.parametrize("topology", COUNTS)
async def test_nothing_is_lost_doubled_or_stuck(topology, tmp_path, capsys):
    if topology != "sqlite":
        need("redis-server")
    count = int(os.environ.get("FAULT_COUNT") or COUNTS[topology])
    report = await run(topology, SEED, count, tmp_path)
    with capsys.disabled():
        print(f"\n{report}")
    assert not report.violations, report.failure()
