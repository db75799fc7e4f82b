"""Each route has its name in the audit log, or nothing of anybody's."""

from dispatcher.gateway.audited import EVENTS, NOT_TOLD
from tests.gateway_routes import routes


def test_every_route_is_told_or_shows_nothing() -> None:
    assert set(routes()) == EVENTS.keys() | NOT_TOLD
    assert not EVENTS.keys() & NOT_TOLD
