"""`commander check MODULE:AGENT`: stops it in mid-sentence, tries what it declares, and says how that went."""

import argparse
import asyncio
import json

import msgspec
import uvloop

from commander.check.measure import measure
from commander.check.messages import Task
from commander.check.verdict import Tolerance, judge, text
from shared.errors import ConfigError
from shared.terminal import printable

DESCRIPTION = """Run the agent against a metered fake provider, stop it in mid-sentence, and say whether it stopped and
how late. The provider speaks OpenAI's Chat Completions and Responses on loopback, makes tokens at a steady rate
whether they are read or not, and sees when its connection is closed. The agent finds it as any OpenAI-compatible
server: by OPENAI_BASE_URL and OPENAI_API_KEY, and as COMMANDER_OPENAI__BASE_URL and so on. An agent that asks it for
nothing is checked too. It is run as `commander serve` runs it. One that declares `tools` or `structured` is then asked
for a call and for an answer under a schema. Exit status: 0 it stops; 1 it does not, or late; 2 it cannot be checked:
it cannot be imported, fails or finishes before the stop, or says nothing; 3 it stops, but does not honour what it
declares."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("agent", metavar="MODULE:AGENT", help="as in COMMANDER_BACKEND; a back-end's name too")
    parser.add_argument("--prompt", default="Tell me a long story about the sea.", help="what it is asked")
    parser.add_argument("--parameters", default="{}", metavar="JSON", help="the session's parameters, an object")
    parser.add_argument(
        "--result",
        action="append",
        default=[],
        metavar="TOOL=JSON",
        help="what its calls of that tool get; may be repeated; a tool that is not named gives {}",
    )
    parser.add_argument("--after", type=_count, default=10, help="stop after so many deltas (default: %(default)s)")
    parser.add_argument(
        "--seconds", type=_positive, default=10.0, help="that it gets for them; then it is stopped where it is"
    )
    parser.add_argument("--rate", type=_positive, default=50.0, help="tokens a second (default: %(default)g)")
    parser.add_argument(
        "--allow-tokens",
        type=_whole,
        metavar="N",
        help="that the provider may make after the stop (default: those of 0.2 s)",
    )
    parser.add_argument(
        "--allow-lag",
        type=_positive,
        default=0.25,
        metavar="SECONDS",
        help="that the event loop may be late (default: %(default)g)",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object instead of text")
    parser.set_defaults(verb=run)


def run(options: argparse.Namespace) -> int:
    """The exit status. Raises ConfigError."""
    task = Task(
        agent=options.agent,
        prompt=options.prompt,
        parameters_json=_object("--parameters", options.parameters),
        after=options.after,
        pause=0.5 / options.rate,
        seconds=options.seconds,
        lag_limit=options.allow_lag,
        results=dict(map(_result, options.result)),
    )
    tokens = options.allow_tokens if options.allow_tokens is not None else int(options.rate / 5)
    tolerance = Tolerance(tokens=tokens, lag=options.allow_lag)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        measured = runner.run(measure(task, options.rate, tolerance))
    report = judge(options.agent, measured, tolerance)
    print(msgspec.json.encode(report).decode() if options.json else printable(text(report)))
    return report.exit_status


def _positive(written: str) -> float:
    if not 0 < (value := float(written)) < float("inf"):
        raise ValueError
    return value


def _whole(written: str) -> int:
    if (value := int(written)) < 0:
        raise ValueError
    return value


def _count(written: str) -> int:
    if (value := int(written)) < 1:
        raise ValueError
    return value


def _object(option: str, written: str) -> str:
    try:
        right = isinstance(json.loads(written), dict)
    except (ValueError, RecursionError):
        right = False
    if not right:
        raise ConfigError(f"{option}: must be a JSON object, got {written!r}")
    return written


def _result(written: str) -> tuple[str, str]:
    name, equals, result = written.partition("=")
    try:
        json.loads(result)
    except (ValueError, RecursionError):
        equals = ""
    if not (name and equals):
        raise ConfigError(f"--result: must be TOOL=JSON, got {written!r}")
    return name, result
