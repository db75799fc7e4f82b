import datetime

import pytest

from dispatcher.tools.builtin import current_time
from dispatcher.tools.errors import ToolError


def test_the_time_in_a_zone() -> None:
    before = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    answer = current_time("Asia/Kolkata")
    time = datetime.datetime.fromisoformat(answer["time"])
    assert before <= time <= datetime.datetime.now(datetime.UTC)
    assert time.utcoffset() == datetime.timedelta(hours=5, minutes=30)
    assert answer["weekday"] == time.strftime("%A")
    assert current_time()["timezone"] == "UTC"


@pytest.mark.parametrize("zone", ["", "Nowhere/City", "America", "../../etc/passwd", "/etc/passwd", "a\0b", "x" * 300])
def test_an_unknown_zone_is_refused(zone: str) -> None:
    with pytest.raises(ToolError, match=r"^unknown time zone"):
        current_time(zone)
