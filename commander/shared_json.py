"""JSON that sessions share: parsed once for all that have the same text at a time, and nobody can change it.

An agent's tools come with each assignment and are nearly always the same: with six of them parsed for each session, an
idle one took 26 KiB here, of which that was 12.
"""

import json
from typing import Any
from weakref import WeakValueDictionary


def _refused(*_: object, **__: object) -> None:
    raise TypeError("sessions share it: change a copy of it")


class SharedObject(dict[str, Any]):
    """A dict that cannot be changed. Its copies, also by `copy` and `pickle`, are plain ones."""

    __slots__ = ("__weakref__",)

    def __reduce__(self) -> Any:
        return dict, (dict(self),)


class SharedList(list[Any]):
    """A list that cannot be changed, in the same way."""

    __slots__ = ()

    def __reduce__(self) -> Any:
        return list, (list(self),)


_CHANGES = {
    SharedObject: ("setdefault", "update", "popitem", "__ior__"),
    SharedList: ("append", "extend", "insert", "remove", "reverse", "sort", "__iadd__", "__imul__"),
}
for _kind, _names in _CHANGES.items():
    for _name in (*_names, "clear", "pop", "__setitem__", "__delitem__"):
        setattr(_kind, _name, _refused)

_known: WeakValueDictionary[str, SharedObject] = WeakValueDictionary()  # while somebody has them


def parsed_once(text: str) -> Any:
    """What the text is, as `json.loads` has it; an object is the same for all that hold it. Raises ValueError,
    RecursionError.
    """
    value = _known.get(text)
    if value is None:
        value = _shared(json.loads(text, object_hook=_object))
        if isinstance(value, SharedObject):
            _known[text] = value
    return value


def _object(members: dict[str, Any]) -> SharedObject:
    return SharedObject({name: _shared(value) for name, value in members.items()})


def _shared(value: Any) -> Any:
    return SharedList(map(_shared, value)) if type(value) is list else value
