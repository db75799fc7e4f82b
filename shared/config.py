"""Settings from environment variables: a base for pydantic-settings whose errors are one clear line.

A program's settings are a subclass with its prefix; nested settings are `Section`s, written with `__`:

    class DispatcherSettings(Settings):
        model_config = SettingsConfigDict(env_prefix="DISPATCHER_")
        grace_seconds: Seconds = 20
        keepalive: ServerKeepalive = ServerKeepalive()     # DISPATCHER_KEEPALIVE__TIME_MS
"""

import difflib
import importlib
import os
import re
import sys
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import annotated_types
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict, SettingsError

from shared.addresses import split_address
from shared.errors import ConfigError


class Section(BaseModel):
    """Base of nested settings."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Settings(BaseSettings):
    """Base of a program's settings; give `env_prefix` in `model_config`. An empty variable counts as not set."""

    model_config = SettingsConfigDict(
        env_nested_delimiter="__", env_ignore_empty=True, extra="forbid", frozen=True, allow_inf_nan=False
    )


# A compose file passes a setting on as DOTENV_NAME=${NAME:-}: it has no other way to say "only where it is set" that
# leaves the image's own NAME alone.
PASSED_ON = "DOTENV_"
OUR_PACKAGES = ("shared", "dispatcher", "commander")

SettingsT = TypeVar("SettingsT", bound=Settings)


def _checked_address(address: str) -> str:
    split_address(address)
    return address


def _comma_separated(value: object) -> object:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def _upper_case(value: object) -> object:
    return value.upper() if isinstance(value, str) else value


Seconds = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Address = Annotated[str, AfterValidator(_checked_address)]
LogLevel = Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"], BeforeValidator(_upper_case)]
CommaSeparated = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_comma_separated)]


def load(settings_class: type[SettingsT]) -> SettingsT:
    """The settings from the environment. Raises ConfigError, one line, also for unknown variables with the prefix."""
    _take_passed_on()
    problems = list(_unknown(settings_class, os.environ))
    if not problems:
        try:
            return settings_class()
        except ValidationError as error:
            problems = [_problem(settings_class, details) for details in error.errors(include_url=False)]
        except SettingsError as error:
            problems = [_undecodable(settings_class, error)]
    raise ConfigError("; ".join(problems))


def _take_passed_on() -> None:
    """What a compose file passed on comes into force where it says something; else what the image sets stays."""
    for name in [name for name in os.environ if name.startswith(PASSED_ON)]:
        if value := os.environ.pop(name):
            os.environ[name.removeprefix(PASSED_ON)] = value


def import_attribute(reference: str) -> object:
    """What `module:attribute` names; modules are found from the working folder too. Raises ConfigError."""
    module_name, _, attribute = reference.partition(":")
    if not re.fullmatch(r"\w+(\.\w+)*:\w+(\.\w+)*", reference):
        raise ConfigError(f"must be module:attribute, got {reference!r}")
    folder = str(Path.cwd())
    if folder not in sys.path and "" not in sys.path:
        sys.path.append(folder)
    try:
        found: object = importlib.import_module(module_name)
    except (ImportError, AttributeError) as error:
        if taken := _taken_name(error, folder):
            raise ConfigError(f"module {module_name!r} cannot be imported: {taken}") from error
        if not isinstance(error, ModuleNotFoundError):
            raise ConfigError(f"module {module_name!r} cannot be imported: {_one_line(error)}") from error
        if error.name and (module_name == error.name or module_name.startswith(error.name + ".")):
            raise ConfigError(f"no module {module_name!r} (looked in {folder} too)") from error
        raise ConfigError(f"module {module_name!r} needs {error.name!r}, which is not installed") from error
    except (Exception, SystemExit) as error:  # the operator's module: whatever it raises is why it cannot be used
        raise ConfigError(f"module {module_name!r} cannot be imported: {_one_line(error)}") from error
    for name in attribute.split("."):
        try:
            found = getattr(found, name)
        except AttributeError as error:
            raise ConfigError(f"module {module_name!r} has no {attribute!r}") from error
    return found


def _taken_name(error: ImportError | AttributeError, folder: str) -> str | None:
    """What to do, where a module of the user's is meant that has the name of a package of ours."""
    named = error.name if isinstance(error, ImportError) else getattr(error.obj, "__name__", None)
    name = (named or "").partition(".")[0]
    own = Path(folder, name)
    if name not in OUR_PACKAGES or not (own.is_dir() or own.with_suffix(".py").is_file()):
        return None
    if own.resolve() == Path(__file__).resolve().parents[1] / name:  # the folder is this project's: it is no other
        return None
    return f"`{name}` is a package of Midsentence's own, which comes before {own}: give yours another name"


def _one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


# ---- unknown variables

# What Kubernetes puts into every container for a service named like the program: not meant as settings.
_SERVICE_LINK = re.compile(
    r"SERVICE_HOST=.*|SERVICE_PORT(_\w+)?=\d+|PORT=(tcp|udp|sctp)://.*|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?=.*"
)


def _unknown(settings_class: type[Settings], environ: Mapping[str, str]) -> Iterator[str]:
    prefix = settings_class.model_config.get("env_prefix", "").upper()
    known = set(_names(settings_class))
    for name, value in sorted(environ.items()):
        if not name.upper().startswith(prefix):
            continue
        rest = name.upper().removeprefix(prefix)
        if rest in known or _SERVICE_LINK.fullmatch(f"{rest}={value}"):
            continue
        close = difflib.get_close_matches(rest, known, n=1)
        yield f"{name}: unknown setting" + (f"; did you mean {prefix}{close[0]}?" if close else "")


def _names(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for field_name, field in model.model_fields.items():
        name = prefix + field_name.upper()
        yield name
        if nested := _section(field.annotation):
            yield from _names(nested, name + "__")


def _section(annotation: object) -> type[BaseModel] | None:
    """The model that a field holds, also as one part of a union with None."""
    for part in _parts(annotation):
        if isinstance(part, type) and issubclass(part, BaseModel):
            return part
    return None


def _parts(annotation: object) -> tuple[object, ...]:
    return get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)


# ---- wrong values


def _problem(settings_class: type[Settings], details: ErrorDetails) -> str:
    model: type[BaseModel] | None = settings_class
    path: list[str] = []
    field: FieldInfo | None = None
    for part in details["loc"]:
        if model is None or part not in model.model_fields:
            break
        path.append(str(part))
        field = model.model_fields[str(part)]
        model = _section(field.annotation)
    name = _as_written(settings_class, path)
    if details["type"] == "missing":
        return f"{name}: must be set"
    if details["type"] == "value_error":  # a validator's own words
        return f"{name}: {details['msg'].removeprefix('Value error, ')}"
    if details["type"] == "extra_forbidden":  # inside a section that was given as JSON
        return f"{name}: unknown setting {details['loc'][-1]!r}"
    expected = _expected(field) if field else None
    text = f"must be {expected}" if expected else details["msg"][:1].lower() + details["msg"][1:]
    return f"{name}: {text}{_got(field, details['input'])}"


def _as_written(settings_class: type[Settings], path: list[str]) -> str:
    """The variable as the user wrote it: in its case, and where a section came as one JSON value, that one's name."""
    prefix = settings_class.model_config.get("env_prefix", "")
    written = {name.upper(): name for name in os.environ}
    full = (prefix + "__".join(path)).upper()
    if full in written:
        return written[full]
    for length in range(len(path) - 1, 0, -1):
        section = (prefix + "__".join(path[:length])).upper()
        if section in written:
            return f"{written[section]}: {'.'.join(path[length:])}"
    return full


def _undecodable(settings_class: type[Settings], error: SettingsError) -> str:
    # pydantic-settings says `error parsing value for field "x" from source "..."` and nothing that can be asked
    match = re.search(r'field "(\w+)"', str(error))
    name = _as_written(settings_class, [match[1]]) if match else "settings"
    return f"{name}: must be JSON, or given as single settings ({name}__…)"


def _got(field: FieldInfo | None, value: object) -> str:
    secret = field is not None and SecretStr in _parts(field.annotation)
    if secret or not isinstance(value, str | int | float) or "@" in str(value):  # a URL may hold a password
        return ""
    return f", got {str(value)[:100]!r}"


def _expected(field: FieldInfo) -> str | None:
    """The setting's type and bounds in words; None where only pydantic's own words fit."""
    parts = [part for part in _parts(field.annotation) if part is not type(None)]
    kind: Any = parts[0]
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(str(value) for value in get_args(kind))
    nouns: dict[object, str] = {int: "a whole number", float: "a number", bool: "true or false"}
    if len(parts) != 1 or kind not in nouns:
        return None
    return " ".join([nouns[kind], " and ".join(_bounds(field))]).rstrip()


def _bounds(field: FieldInfo) -> Iterator[str]:
    for bound in field.metadata:
        match bound:
            case annotated_types.Gt(gt=limit):
                yield f"above {limit}"
            case annotated_types.Ge(ge=limit):
                yield f"of at least {limit}"
            case annotated_types.Lt(lt=limit):
                yield f"below {limit}"
            case annotated_types.Le(le=limit):
                yield f"of at most {limit}"
