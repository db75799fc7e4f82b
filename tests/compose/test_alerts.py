"""The alert rules ask for metrics that the Dispatcher really has, by labels that these really have."""

import re

import pytest
import yaml
from prometheus_client import CollectorRegistry

from dispatcher.metrics import Metrics
from tests.compose.stack import ROOT

EXPRESSIONS = {
    rule["alert"]: rule["expr"]
    for group in yaml.safe_load((ROOT / "deploy/prometheus/alerts.yml").read_text())["groups"]
    for rule in group["rules"]
}


@pytest.fixture(scope="module")
def series() -> dict[str, list[dict[str, str]]]:
    """Sample name → the label sets that it has from the start."""
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    metrics.know(tools=["calculate"], policies=["limits"])
    metrics.toolset_up("docs", True)
    metrics.tls_read("grpc", 2e9)
    found: dict[str, list[dict[str, str]]] = {}
    for metric in registry.collect():
        for sample in metric.samples:
            found.setdefault(sample.name, []).append(dict(sample.labels))
    return found


@pytest.mark.parametrize("alert", EXPRESSIONS)
def test_the_metrics_exist(alert: str, series: dict[str, list[dict[str, str]]]) -> None:
    for name, selector in re.findall(r"\b(dispatcher_\w+)(?:\{([^}]*)\})?", EXPRESSIONS[alert]):
        assert name in series, f"{alert} asks for {name}, which the Dispatcher does not have"
        for label, value in re.findall(r'(\w+)!?="([^"]*)"', selector):
            values = {labels.get(label) for labels in series[name]}
            assert value in values, f'{alert} asks for {name}{{{label}="{value}"}}; there are {values}'
