"""JSON of a form (`commander.backends.schemas`): an example of it, and the end of what was begun. Pure."""

import json
import math
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from commander.backends.schemas import ANY, JsonForm, written

_SPACE = re.compile(r"[ \t\r\n]*")
_STRING = re.compile(r'"(?:[^"\\]|\\u[0-9a-fA-F]{4}|\\[^u])*')  # without its end
_NUMBER = re.compile(r"[-+0-9.eE]+")
_WHOLE_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][-+]?\d+)?")
_MAX_DIGITS = 20  # more than a whole number of 64 bits has

_DATE = r"\d{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01])"
_TIME = r"(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d+)?(?:Z|[-+](?:[01]\d|2[0-3]):[0-5]\d)"
# What a format looks like, and of what one that was begun is ended by a part.
_FORMATS: dict[str, tuple[str, tuple[str, ...]]] = {
    "date": (_DATE, ("2000-01-01", "2000-10-10")),
    "time": (_TIME, ("00:00:00Z", "00:00:00+00:00")),
    "date-time": (f"{_DATE}T{_TIME}", ("2000-01-01T00:00:00Z", "2000-10-10T00:00:00Z", "+00:00")),
    "uuid": (r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", ("00000000-0000-4000-8000-000000000000",)),
}


def example(form: JsonForm, *, least: bool = False) -> Any:
    """A value that fits. least: with nothing that may be left out."""
    if "enum" in form:
        return form["enum"][0]
    if "anyOf" in form:
        return example(form["anyOf"][0], least=least)
    match form.get("type"):
        case None:
            return {}
        case "boolean":
            return True
        case "number":
            return 0
        case "integer":
            return _nearest_to_zero(form)
        case "string":
            if "format" in form:
                return _FORMATS[form["format"]][1][0]
            text = "" if least else "text"[: form.get("maxLength", 4)]
            return text.ljust(form.get("minLength", 0), "x")
        case "array":
            if "prefixItems" in form:
                return [example(each, least=least) for each in form["prefixItems"]]
            least_items, most_items = form["minItems"], form.get("maxItems", 1)
            return [example(form["items"], least=least)] * max(least_items, 0 if least else min(most_items, 1))
        case "object":
            properties = form.get("properties", {})
            names = [name for name in properties if name in form["required"]] if least and properties else properties
            return {name: example(properties[name], least=least) for name in names}
    return None


def completed(form: JsonForm, begun: str) -> str:
    """The JSON that begins so and fits. Raises ValueError: nothing does."""
    end, rest = _Begun(begun).value(form, 0)
    if rest is None and begun[end:].strip():
        raise ValueError("there is more than fits the form")
    return begun + (rest or "")


class _Read(NamedTuple):
    """How far a value goes in the text, and, where the text ends within it, what is missing."""

    end: int
    rest: str | None = None


class _Begun:
    """JSON that may break off. Its readers raise ValueError where it does not fit."""

    def __init__(self, text: str) -> None:
        self._text = text

    def value(self, form: JsonForm, at: int) -> _Read:
        at = self._skip(at)
        if at == len(self._text):
            return _Read(at, _least(form))
        if "enum" in form:
            return self._one_of(form["enum"], at)
        if "anyOf" in form:
            return self._any_of(form["anyOf"], at)
        match form.get("type"):
            case None:
                return self.value(_guessed(self._text[at]), at)
            case "null":
                return self._one_of([None], at)
            case "boolean":
                return self._one_of([True, False], at)
            case "string":
                return self._string(form, at)
            case "array":
                return self._array(form, at)
            case "object":
                return self._object(form, at)
        return self._number(form, at)

    def _skip(self, at: int) -> int:
        found = _SPACE.match(self._text, at)
        return found.end() if found else at

    def _one_of(self, values: list[Any], at: int) -> _Read:
        number = _NUMBER.match(self._text, at)
        read = float(number.group()) if number and _WHOLE_NUMBER.fullmatch(number.group()) else None
        if number and any(_is_number(value) and value == read for value in values):  # 1.0 may stand there as 1
            return _Read(number.end(), None if number.end() < len(self._text) else "")
        for whole in map(written, values):
            if not number and self._text.startswith(whole, at):
                return _Read(at + len(whole))
        begun = self._text[at:]
        for whole in sorted(map(written, values), key=len):
            if whole.startswith(begun):
                return _Read(len(self._text), whole[len(begun) :])
        raise ValueError("none of the values")

    def _any_of(self, forms: list[JsonForm], at: int) -> _Read:
        """By the form that adds least."""
        found: _Read | None = None
        for form in forms:
            try:
                read = self.value(form, at)
            except ValueError:
                continue
            if not read.rest:
                return read
            if found is None or len(read.rest) < len(found.rest or ""):
                found = read
        if found is None:
            raise ValueError("none of the forms")
        return found

    def _string(self, form: JsonForm, at: int) -> _Read:
        found = _STRING.match(self._text, at)
        if not found:
            raise ValueError("no string")
        if self._text[found.end() : found.end() + 1] == '"':
            return _Read(found.end() + 1)
        if "format" in form:
            return _Read(len(self._text), _formatted(form["format"], self._text[at + 1 :]) + '"')
        rest = _text_end(self._text[at:], self._text[found.end() :])
        length = len(json.loads(f'{self._text[at:]}{rest}"', strict=False))
        return _Read(len(self._text), rest + "x" * (form.get("minLength", 0) - length) + '"')

    def _number(self, form: JsonForm, at: int) -> _Read:
        found = _NUMBER.match(self._text, at)
        if not found:
            raise ValueError("no number")
        token, whole = found.group(), found.end() < len(self._text)
        if form["type"] == "integer":
            rest = _digits(token, form, 0 if whole else _MAX_DIGITS)
        else:
            rest = next((more for more in ("", "0") if _WHOLE_NUMBER.fullmatch(token + more)), None)
        if rest is None or (rest and whole):
            raise ValueError("no such number")
        return _Read(found.end()) if whole else _Read(found.end(), rest)

    def _array(self, form: JsonForm, at: int) -> _Read:
        first = form.get("prefixItems", [])
        needed = first or [form["items"]] * form["minItems"]
        count = 0

        def item(at: int) -> _Read:
            nonlocal count
            if first and count == len(first):
                raise ValueError("too many items")
            count += 1
            return self.value(first[count - 1] if first else form["items"], at)

        return self._members("[]", at, item, lambda: list(map(_least, needed[count:])))

    def _object(self, form: JsonForm, at: int) -> _Read:
        coming = dict(form.get("properties", {}))  # that may still come
        needed = [name for name in coming if name in form["required"]]
        others = form["additionalProperties"]

        def taken(name: str) -> JsonForm:
            if name in needed:
                needed.remove(name)
            found: JsonForm | None = coming.pop(name, None) if others is False else others
            if found is None:
                raise ValueError("no such property")
            return found

        def member(at: int) -> _Read:
            key = _STRING.match(self._text, at)
            if key and self._text[key.end() : key.end() + 1] == '"':
                found = taken(json.loads(self._text[at : key.end() + 1], strict=False))
                at = self._skip(key.end() + 1)
                if at == len(self._text):
                    return _Read(at, f":{_least(found)}")
                if self._text[at] != ":":
                    raise ValueError("no object")
                return self.value(found, at + 1)
            if others is not False:
                end, rest = self._string(ANY, at) if at < len(self._text) else _Read(at, '""')
                return _Read(end, f"{rest}:{_least(others)}")
            begun = self._text[at:]
            name = next((name for name in (*needed, *coming) if written(name).startswith(begun)), None)
            if name is None:
                raise ValueError("no such property")
            return _Read(len(self._text), f"{written(name)[len(begun) :]}:{_least(taken(name))}")

        return self._members("{}", at, member, lambda: [f"{written(name)}:{_least(coming[name])}" for name in needed])

    def _members(self, ends: str, at: int, member: Callable[[int], _Read], missing: Callable[[], list[str]]) -> _Read:
        """member: reads one, or writes one where the text ends. missing: those that have to come after these."""
        if self._text[at] != ends[0]:
            raise ValueError("neither an array nor an object")
        at = self._skip(at + 1)
        if at == len(self._text):
            return _Read(at, ",".join(missing()) + ends[1])
        more = self._text[at] != ends[1]
        while more:
            end, rest = member(at)
            at = self._skip(end)
            if rest is not None or at == len(self._text):
                return _Read(at, (rest or "") + "".join(f",{each}" for each in missing()) + ends[1])
            if self._text[at] not in (",", ends[1]):
                raise ValueError("a member that does not end")
            more = self._text[at] == ","
            at = self._skip(at + 1) if more else at
        if missing():
            raise ValueError("members are missing")
        return _Read(at + 1)


def _least(form: JsonForm) -> str:
    return written(example(form, least=True))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _guessed(sign: str) -> JsonForm:
    """Of any JSON that begins so."""
    match sign:
        case "{":
            return {"type": "object", "additionalProperties": ANY}
        case "[":
            return {"type": "array", "items": ANY, "minItems": 0}
        case '"':
            return {"type": "string"}
        case "t" | "f" | "n":
            return {"enum": [True, False, None]}
    return {"type": "number"}


def _text_end(begun: str, tail: str) -> str:
    """What ends the text of a string before its quote. tail: an escape that was begun. If that can be done, no half of
    a character is left."""
    ends = [end[len(tail) :] for end in ("\\\\", "\\udc00", "\\u0020") if len(end) > len(tail)] if tail else [""]
    valid = ""
    for end in (*ends, *(f"{end}\\udc00" for end in ends)):
        try:
            json.loads(f'{begun}{end}"', strict=False).encode()
        except UnicodeEncodeError:
            valid = valid or end
        except ValueError:
            continue
        else:
            return end
    return valid


def _formatted(name: str, begun: str) -> str:
    """Raises ValueError."""
    pattern, endings = _FORMATS[name]
    rests = sorted({ending[at:] for ending in endings for at in range(len(ending) + 1)} | {"0Z"}, key=len)
    for rest in rests:
        if re.fullmatch(pattern, begun + rest, re.ASCII):
            return rest
    raise ValueError(f"no {name}")


def _nearest_to_zero(form: JsonForm) -> int:
    least: int | None = form.get("minimum")
    most: int | None = form.get("maximum")
    if least is not None and least > 0:
        return least
    return most if most is not None and most < 0 else 0


def _digits(token: str, form: JsonForm, most: int) -> str | None:
    """What makes it a whole number that fits, at most so many digits; None: nothing does."""
    sign = -1 if token.startswith("-") else 1
    digits = token.removeprefix("-")
    bounds = [bound * sign for bound in (form.get("minimum", -math.inf), form.get("maximum", math.inf))]
    low, high = max(min(bounds), 0), max(bounds)
    if not digits:
        return str(math.ceil(low)) if most and low <= high else None
    if not digits.isdecimal() or (digits[0] == "0" and digits != "0"):
        return None
    for count in range(most + 1 if digits != "0" else 1):
        first = int(digits) * 10**count
        fitting = max(first, low)
        if fitting <= min(first + 10**count - 1, high):
            return str(fitting)[len(digits) :]
    return None
