"""The routes that are served, and those that tests ask one by one."""

from prometheus_client import CollectorRegistry

from dispatcher.access.watch import Access
from dispatcher.gateway.app import App, operator_app, user_app
from dispatcher.metrics import Metrics
from dispatcher.settings import DispatcherSettings
from tests.dispatcher.gateway.fakes import FakeSessions
from tests.gateway_routes import routes


async def test_every_route_that_is_served_is_one_of_those_that_tests_ask() -> None:
    """`tests.gateway_routes` reads them in the sources; here they are as the two applications have them."""
    sessions, registry, access = FakeSessions(), CollectorRegistry(), Access(None)
    metrics = Metrics(registry)
    served = set()
    for app in (
        user_app(sessions, DispatcherSettings(), metrics, access),
        operator_app(sessions, registry, metrics, access),
    ):
        assert isinstance(app, App)
        for route in app.routes:
            served |= {(method, route.path) for method in route.methods or () if method != "HEAD"}
    assert served == set(routes())
