"""From the setting COMMANDER_BACKEND to an agent."""

import contextlib
import importlib
import inspect
from collections.abc import AsyncIterator, Callable

from commander.agent import Agent
from commander.settings import CommanderSettings
from shared.config import import_attribute
from shared.errors import ConfigError

# What each one's `make` is called with: its own section.
BACKENDS: dict[str, Callable[[CommanderSettings], tuple[object, ...]]] = {
    "local": lambda settings: (settings.local, settings.capacity),
    "openai": lambda settings: (settings.openai,),
    "scripted": lambda settings: (settings.scripted,),
}


def load(settings: CommanderSettings, source: str = "COMMANDER_BACKEND") -> Agent:
    """A back-end's agent, or the user's own. `source`: where its name comes from. Raises ConfigError."""
    if ":" in settings.backend:
        try:
            return _checked(settings.backend, import_attribute(settings.backend))
        except ConfigError as error:
            raise ConfigError(f"{source}: {error}") from error
    if settings.backend not in BACKENDS:
        names = ", ".join(BACKENDS)
        raise ConfigError(f"{source}: must be {names} or module:attribute, got {settings.backend!r}")
    try:
        module = importlib.import_module(f"commander.backends.{settings.backend}")
    except ModuleNotFoundError as error:
        if error.name != settings.backend:  # the package of that name is what its extra brings
            raise
        raise ConfigError(f"{source}: needs the extra: pip install 'midsentence[{settings.backend}]'") from error
    agent: Agent = module.make(*BACKENDS[settings.backend](settings))
    return agent


@contextlib.asynccontextmanager
async def ready(agent: Agent) -> AsyncIterator[None]:
    """What a back-end needs before its first session and after its last: its own `prepare` and `close`, if any."""
    try:
        if prepare := getattr(agent, "prepare", None):
            await prepare()
        yield
    finally:
        if close := getattr(agent, "close", None):
            await close()


def _checked(name: str, agent: object) -> Agent:
    if inspect.iscoroutinefunction(agent):
        raise ConfigError(f"{name} is a coroutine function: an agent says something (`yield`)")
    if inspect.isgeneratorfunction(agent):
        raise ConfigError(f"{name} is a plain generator function: an agent begins with `async def`")
    if inspect.isclass(agent) or not callable(agent):
        raise ConfigError(f"{name} is no async generator function but {type(agent).__name__}")
    try:
        signature = inspect.signature(agent)
    except ValueError:  # of what is written in C
        return agent
    try:
        signature.bind(None)
    except TypeError as error:
        raise ConfigError(f"{name} cannot be called with a Turn alone: {error}") from error
    return agent
