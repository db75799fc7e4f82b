"""The plugin under deploy/examples, as it stands: on a scripted model and, where it is installed, on the real one."""

import importlib
import importlib.util
import sys
import types
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from dispatcher.metrics import Metrics
from dispatcher.policies.questions import AskedPolicy, Question, Verdict
from dispatcher.policing.judges import Judges
from dispatcher.policing.load import load

EXAMPLES = Path(__file__).resolve().parents[3] / "deploy/examples"
INSTALLED = importlib.util.find_spec("profanity_check") is not None


@pytest.fixture
async def judges(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Judges]:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.delitem(sys.modules, "profanity", raising=False)
    judges = Judges(Metrics(CollectorRegistry()))
    yield judges
    await judges.close()
    sys.modules.pop("profanity", None)


async def verdict(judges: Judges, text: str, context: str = "") -> Verdict:
    (policy,) = load(EXAMPLES / "profanity.toml").policies
    assert isinstance(policy, AskedPolicy)
    return await judges.ask(Question(policy, 1, "content", (text,), context))


async def test_the_example_asks_its_model(judges: Judges, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    model = types.ModuleType("profanity_check")

    def predict_prob(texts: list[str]) -> list[float]:
        asked.extend(texts)
        return [0.95 if "idiot" in text else 0.1 for text in texts]

    model.predict_prob = predict_prob  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "profanity_check", model)
    assert await verdict(judges, "The sea is calm.") == Verdict("pass")
    assert await verdict(judges, "ot!", "x" * 100 + "You idi") == Verdict("violation")
    assert asked[1] == "x" * 73 + "You idiot!"


@pytest.mark.slow
@pytest.mark.skipif(not INSTALLED, reason="the package alt-profanity-check is not installed")
async def test_the_example_on_its_real_model(judges: Judges) -> None:
    importlib.import_module("profanity_check")
    assert await verdict(judges, "What a beautiful morning, the sea is calm.") == Verdict("pass")
    assert await verdict(judges, "Go to hell, you stupid moron.") == Verdict("violation")
