"""What `commander check` and the process in which it runs the agent say to each other: JSON, one message a line.

Times are nanoseconds of the machine's monotonic clock, which both processes share.
"""

from typing import TypeAlias

import msgspec


class Task(msgspec.Struct, frozen=True):
    """To the agent's process, first.

    agent      `module:attribute`, or a back-end's name
    after      content deltas before the stop
    pause      seconds from the last of these to the stop, so that it comes while the agent waits for the next token
    seconds    that the agent gets for so many deltas
    lag_limit  seconds that the loop may be late before its stack is written down
    results    a tool's name → its result as JSON; any other gets `{}`
    """

    agent: str
    prompt: str
    parameters_json: str
    after: int
    pause: float
    seconds: float
    lag_limit: float
    results: dict[str, str]


class StartSession(msgspec.Struct, frozen=True, tag=True):
    """To the agent's process: one session. Answered by EndedItself, or by Stopping and Halted.

    held   it is held at its second delta for the stop: else it finishes too soon
    """

    held: bool


class ReportLeft(msgspec.Struct, frozen=True, tag=True):
    """To the agent's process, after Halted, when the connections were watched for long enough. Answered by Left."""


class TryDeclared(msgspec.Struct, frozen=True, tag=True):
    """To the agent's process: sessions of what the agent declares. Answered by Honoured."""


class Ready(msgspec.Struct, frozen=True, tag=True):
    """The agent is loaded. main_thread: its identity, as a stack that is written down names it."""

    main_thread: int


class Unusable(msgspec.Struct, frozen=True, tag=True):
    """It cannot be loaded."""

    reason: str


class EndedItself(msgspec.Struct, frozen=True, tag=True):
    """It ended by itself before it could be stopped.

    failure   its exception's type and text; empty: it did not raise
    """

    said: int
    failure: str


class Stopping(msgspec.Struct, frozen=True, tag=True):
    """The stop reaches the session now.

    said   content deltas so far
    took   seconds since the agent was started
    """

    at: int
    said: int
    took: float


class Halted(msgspec.Struct, frozen=True, tag=True):
    """What became of the generator.

    ended_at     None: it still runs
    late_deltas  that it yielded after the stop
    place        where it still waits, `file:line`, if that is known
    """

    ended_at: int | None
    late_deltas: int
    place: str


class Left(msgspec.Struct, frozen=True, tag=True):
    """To `ReportLeft`: what of this session still works elsewhere; how late the loop was at most since its start."""

    tasks: tuple[str, ...]
    threads: tuple[str, ...]
    loop_lag: float


class Honoured(msgspec.Struct, frozen=True, tag=True):
    """found: each feature that the agent declares and that is tried → what is wrong with it; empty: it is honoured."""

    found: dict[str, str]


FromAgent: TypeAlias = Ready | Unusable | EndedItself | Stopping | Halted | Left | Honoured


def encoded(message: Task | StartSession | ReportLeft | TryDeclared | FromAgent) -> bytes:
    return msgspec.json.encode(message) + b"\n"
