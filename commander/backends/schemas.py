"""JSON Schemas as forms, in which JSON can be written, begun by a model or from nothing. Pure.

A form is a schema without `$ref`, in few keywords:

    {}                                              any JSON
    {"enum": […]}                                   one of these, none of them an array or an object
    {"anyOf": […]}                                  one of these forms
    {"type": "null" | "boolean" | "number"}
    {"type": "integer", "minimum", "maximum"}
    {"type": "string", "minLength", "maxLength"}    or one of FORMATS
    {"type": "array", "items", "minItems", "maxItems"}, or with "prefixItems" as many as these
    {"type": "object", "properties", "required", "additionalProperties": False}, or without properties: any names, all
    of one form

It may be narrower than its schema, never wider: what fits it fits the schema.
"""

import json
import math
from typing import Any, TypeAlias

JsonForm: TypeAlias = dict[str, Any]

MAX_FORMS = 4096  # of one schema, its references written out
MAX_UNROLLED = 3  # times that a reference may stand within itself
MAX_LEAST = 1000  # characters or items that may be needed
ANY: JsonForm = {}
STEPS = 20  # of a number in a narrow range
FEW_ITEMS, FEW_CHARACTERS, LARGE = 8, 200, 1_000_000

_FORMATS = ("date", "time", "date-time", "uuid")
_ANNOTATIONS = {
    *("title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly", "discriminator"),
    *("$schema", "$id", "$comment", "$defs", "definitions"),
}
# By the type that they are about; for others they say nothing.
_KEYWORDS = {
    "object": {"properties", "required", "additionalProperties", "minProperties", "maxProperties"},
    "array": {"items", "prefixItems", "minItems", "maxItems", "uniqueItems"},
    "string": {"minLength", "maxLength", "format"},
    "number": {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"},
    "integer": {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"},
    "boolean": set[str](),
    "null": set[str](),
}
_KNOWN = {"type", "enum", "const", "anyOf", "oneOf", "allOf", "$ref"}.union(*_KEYWORDS.values())


class _EndlessError(Exception):
    """Nothing finite fits it."""


def form_of(schema: Any) -> JsonForm:
    """Raises ValueError, with the place: a keyword that cannot be held to, or nothing fits."""
    try:
        return _Reader(schema).form(schema, "#", ())
    except _EndlessError:
        raise ValueError("#: nothing that ends fits it") from None
    except RecursionError:
        raise ValueError("#: too deep") from None
    except (TypeError, AttributeError):
        raise ValueError("#: not a schema") from None


def bounded(form: JsonForm) -> JsonForm:
    """For a model that may not come to an end by itself: arrays, strings and numbers are short, where they may be."""
    narrowed = {**form}
    if "anyOf" in form:
        narrowed["anyOf"] = [bounded(each) for each in form["anyOf"]]
    for name in ("properties", "prefixItems"):
        match form.get(name):
            case dict() as forms:
                narrowed[name] = {key: bounded(each) for key, each in forms.items()}
            case list() as forms:
                narrowed[name] = [bounded(each) for each in forms]
    if form.get("type") == "array" and "prefixItems" not in form:
        narrowed["items"] = bounded(form["items"])
        narrowed["maxItems"] = min(form.get("maxItems", math.inf), max(form["minItems"], FEW_ITEMS))
    if form.get("type") == "object" and "properties" not in form:
        narrowed["additionalProperties"] = bounded(form["additionalProperties"])
    if form.get("type") in ("integer", "number") and not {"minimum", "maximum"} & form.keys():
        narrowed |= {"minimum": -LARGE, "maximum": LARGE}
    if form.get("type") == "number":
        narrowed["multipleOf"] = 0.01
    if form.get("type") == "string" and "format" not in form:
        narrowed["maxLength"] = min(form.get("maxLength", math.inf), max(form.get("minLength", 0), FEW_CHARACTERS))
    return narrowed


class _Reader:
    def __init__(self, root: Any) -> None:
        self._root = root
        self._forms = 0

    def form(self, schema: Any, where: str, within: tuple[str, ...]) -> JsonForm:
        """within: the references in which it stands."""
        self._forms += 1
        if self._forms > MAX_FORMS:
            raise _wrong(where, "the schema is too large")
        if schema is True:
            return ANY
        if not isinstance(schema, dict):
            raise _wrong(where, "nothing fits it" if schema is False else "not a schema")
        said = {name: value for name, value in schema.items() if name not in _ANNOTATIONS and not name.startswith("x-")}
        if unknown := said.keys() - _KNOWN:
            raise _wrong(where, f"{min(unknown)} is not supported")
        for name, read in (("$ref", self._referred), ("allOf", self._all), ("anyOf", self._any), ("oneOf", self._one)):
            if name in said:
                if others := said.keys() - {name}:
                    raise _wrong(where, f"{name} together with {min(others)} is not supported")
                return read(said[name], where, within)
        if "enum" in said or "const" in said:
            return _values(said, where)
        kind = said.get("type") or next((name for name, words in _KEYWORDS.items() if words & said.keys()), None)
        if isinstance(kind, list):
            return self._any([{**said, "type": each} for each in kind], where, within)
        match kind:
            case None:
                return ANY
            case "object":
                return self._object(said, where, within)
            case "array":
                return self._array(said, where, within)
            case "string":
                return _string(said, where)
            case "integer" | "number":
                return _number(said, where)
            case "boolean" | "null":
                return {"type": kind}
        raise _wrong(where, f"the type {kind!r} is not supported")

    def _referred(self, reference: Any, where: str, within: tuple[str, ...]) -> JsonForm:
        if not isinstance(reference, str) or not reference.startswith("#"):
            raise _wrong(where, "$ref to elsewhere is not supported")
        if within.count(reference) == MAX_UNROLLED:
            raise _EndlessError
        found = self._root
        for escaped in reference.split("/")[1:]:
            part = escaped.replace("~1", "/").replace("~0", "~")
            if not isinstance(found, dict) or part not in found:
                raise _wrong(where, "$ref to nothing")
            found = found[part]
        return self.form(found, reference, (*within, reference))

    def _all(self, schemas: Any, where: str, within: tuple[str, ...]) -> JsonForm:
        if not isinstance(schemas, list) or len(schemas) != 1:
            raise _wrong(where, "allOf of several is not supported")
        return self.form(schemas[0], f"{where}/allOf/0", within)

    def _any(self, schemas: Any, where: str, within: tuple[str, ...]) -> JsonForm:
        """Those that can be held to, if there are any."""
        forms, wrong = [], _wrong(where, "nothing fits it")
        endless = False
        for n, each in enumerate(schemas if isinstance(schemas, list) else ()):
            try:
                forms.append(self.form(each, f"{where}/anyOf/{n}", within))
            except ValueError as error:
                wrong = error
            except _EndlessError:
                endless = True
        if not forms:
            raise _EndlessError if endless else wrong
        return {"anyOf": forms} if len(forms) > 1 else forms[0]

    def _one(self, schemas: Any, where: str, within: tuple[str, ...]) -> JsonForm:
        form = self._any(schemas, where, within)
        forms = form.get("anyOf", [form])
        whole = isinstance(schemas, list) and len(forms) == len(schemas)  # what was left out might fit, too
        if not whole or not all(_differ(one, other) for n, one in enumerate(forms) for other in forms[:n]):
            raise _wrong(where, "oneOf is supported where each is of a type, or a constant property, of its own")
        return form

    def _object(self, said: dict[str, Any], where: str, within: tuple[str, ...]) -> JsonForm:
        properties, required = said.get("properties", {}), said.get("required", [])
        others = said.get("additionalProperties", True)
        if not isinstance(properties, dict) or not isinstance(required, list):
            raise _wrong(where, "not a schema")
        forms: dict[str, JsonForm] = {}
        for name in dict.fromkeys([*properties, *required]):
            try:
                forms[name] = self.form(properties.get(name, others), f"{where}/properties/{name}", within)
            except _EndlessError:
                if name in required:
                    raise
        least, most = said.get("minProperties", 0), said.get("maxProperties", math.inf)
        if least > len(set(required)) or most < len(forms):
            raise _wrong(where, "minProperties and maxProperties are not supported")
        if not forms and others is not False:
            return {
                "type": "object",
                "additionalProperties": self.form(others, f"{where}/additionalProperties", within),
            }
        return {"type": "object", "properties": forms, "required": [*required], "additionalProperties": False}

    def _array(self, said: dict[str, Any], where: str, within: tuple[str, ...]) -> JsonForm:
        items = said.get("items", True)
        first = said.get("prefixItems", items if isinstance(items, list) else [])  # as draft 7 had it
        least, most = said.get("minItems", 0), said.get("maxItems", math.inf)
        if first:
            if not least <= len(first) <= most or said.get("uniqueItems"):
                raise _wrong(where, "prefixItems with another number of items, or different ones, is not supported")
            forms = [self.form(each, f"{where}/prefixItems/{n}", within) for n, each in enumerate(first)]
            return _tuple(forms)
        if said.get("uniqueItems"):
            most = min(most, 1)  # of one all are different
        if not least <= min(most, MAX_LEAST):
            raise _wrong(where, "so many items, or several with uniqueItems, are not supported")
        form = ANY
        try:
            form = self.form(items, f"{where}/items", within) if most else ANY
        except _EndlessError:
            if least:
                raise
            most = 0
        bounds = {"minItems": least, **({"maxItems": most} if most < math.inf else {})}
        return {"type": "array", "items": form, **bounds}


def _values(said: dict[str, Any], where: str) -> JsonForm:
    if others := said.keys() - {"enum", "const", "type"}:
        raise _wrong(where, f"enum or const together with {min(others)} is not supported")
    values = said.get("enum", [said.get("const")])
    if "const" in said:
        values = [value for value in values if written(value) == written(said["const"])]
    kinds = said.get("type", [*_KEYWORDS])
    values = [value for value in values if _kinds(value) & set(kinds if isinstance(kinds, list) else [kinds])]
    if not values:
        raise _wrong(where, "nothing fits it")
    if not any(isinstance(value, dict | list) for value in values):
        return {"enum": values}
    forms = [_constant(value) for value in values]
    return {"anyOf": forms} if len(forms) > 1 else forms[0]


def _constant(value: Any) -> JsonForm:
    match value:
        case list():
            return _tuple([_constant(each) for each in value])
        case dict():
            forms = {name: _constant(each) for name, each in value.items()}
            return {"type": "object", "properties": forms, "required": [*forms], "additionalProperties": False}
    return {"enum": [value]}


def _tuple(forms: list[JsonForm]) -> JsonForm:
    if not forms:
        return {"type": "array", "items": ANY, "minItems": 0, "maxItems": 0}
    return {"type": "array", "prefixItems": forms, "items": False, "minItems": len(forms), "maxItems": len(forms)}


def _kinds(value: Any) -> set[str]:
    match value:
        case None:
            return {"null"}
        case bool():
            return {"boolean"}
        case int():
            return {"integer", "number"}
        case float():
            return {"integer", "number"} if value.is_integer() else {"number"}
        case str():
            return {"string"}
        case list():
            return {"array"}
    return {"object"}


def _string(said: dict[str, Any], where: str) -> JsonForm:
    least, most = said.get("minLength", 0), said.get("maxLength")
    if "format" in said:
        if said["format"] not in _FORMATS or least or most is not None:
            raise _wrong(where, f"the format {said['format']!r} is not supported, or not with a length")
        return {"type": "string", "format": said["format"]}
    if least > MAX_LEAST or (most is not None and most < least):
        raise _wrong(where, f"minLength of more than {MAX_LEAST}, or than maxLength, is not supported")
    return {
        "type": "string",
        **({"minLength": least} if least else {}),
        **({"maxLength": most} if most is not None else {}),
    }


def _number(said: dict[str, Any], where: str) -> JsonForm:
    """Bounded numbers are whole ones, or steps of a narrow range."""
    low, high = said.get("minimum", -math.inf), said.get("maximum", math.inf)
    over, under = said.get("exclusiveMinimum", -math.inf), said.get("exclusiveMaximum", math.inf)
    bounds = low, high, over, under
    if any(isinstance(bound, bool) or not isinstance(bound, int | float) for bound in bounds):
        raise _wrong(where, "bounds that are no numbers are not supported")
    if (low, high, over, under) == (-math.inf, math.inf, -math.inf, math.inf):
        return {"type": said["type"]}

    def fits(number: float) -> bool:
        return bool(low <= number <= high and over < number < under)

    least, most = max(low, over), min(high, under)
    if said.get("type") != "integer" and most - least < STEPS:
        steps = [round(least + (most - least) * n / STEPS, 9) for n in range(STEPS + 1)]
        if values := [value for value in steps if fits(value)]:
            return {"enum": values}
    whole: JsonForm = {"type": "integer"}
    if least > -math.inf:
        whole["minimum"] = next(n for n in (math.ceil(least), math.ceil(least) + 1) if n >= low and n > over)
    if most < math.inf:
        whole["maximum"] = next(n for n in (math.floor(most), math.floor(most) - 1) if n <= high and n < under)
    if whole.get("minimum", -math.inf) > whole.get("maximum", math.inf):
        raise _wrong(where, "nothing fits it")
    return whole


def _differ(one: JsonForm, other: JsonForm) -> bool:
    """Nothing fits both."""
    kinds = [set[str]().union(*map(_kinds, form["enum"])) if "enum" in form else _top(form) for form in (one, other)]
    if all(kinds) and not kinds[0] & kinds[1]:
        return True
    if "enum" in one and "enum" in other:
        return not {*map(written, one["enum"])} & {*map(written, other["enum"])}
    both = set(one.get("required", ())) & set(other.get("required", ()))
    return any(
        "enum" in one["properties"][name]
        and "enum" in other["properties"][name]
        and _differ(one["properties"][name], other["properties"][name])
        for name in both
    )


def _top(form: JsonForm) -> set[str]:
    kind = form.get("type")
    return {"integer", "number"} if kind in ("integer", "number") else {kind} if kind else set()


def _wrong(where: str, what: str) -> ValueError:
    return ValueError(f"{where}: {what}")


def written(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
