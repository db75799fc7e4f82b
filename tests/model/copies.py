"""Copies and keys of the real cores, whatever attributes they have or will have."""

import asyncio
import types
from collections import deque
from collections.abc import Callable, Hashable
from enum import Enum
from typing import Any, Self, cast

import msgspec

from dispatcher.core import log


class Atom:
    """A part of a harness that has no state of its own: copies share it, and keys leave it out."""


# What never changes. Tuples and records hold nothing that does.
VALUES = (str, int, float, bytes, type(None), tuple, frozenset, Enum, msgspec.Struct)
SHARED = (Atom, types.FunctionType, asyncio.Event, asyncio.Semaphore)  # nobody waits for them: the search asks


def copied(thing: Any) -> Any:
    """A copy that shares nothing that can change."""
    kind = type(thing)
    copier = _copiers.get(kind)
    if copier is None:
        copier = _copiers[kind] = _copier(kind)
    return copier(thing)


def frozen(thing: Any) -> Hashable:
    """Equal for two things exactly if they are alike."""
    kind = type(thing)
    freezer = _freezers.get(kind)
    if freezer is None:
        freezer = _freezers[kind] = _freezer(kind)
    return freezer(thing)


_stays: set[type] = set()  # types whose copies are themselves
_plain: set[type] = set()  # types whose keys are themselves
_copiers: dict[type, Callable[[Any], Any]] = {
    list: lambda thing: [copied(each) for each in thing],
    dict: lambda thing: {key: copied(each) for key, each in thing.items()},
    set: set,
    deque: lambda thing: deque([copied(each) for each in thing]),
}
_freezers: dict[type, Callable[[Any], Hashable]] = {
    list: lambda thing: tuple([frozen(each) for each in thing]),
    dict: lambda thing: tuple([(key, frozen(each)) for key, each in thing.items()]),
    set: frozenset,
    deque: lambda thing: tuple([frozen(each) for each in thing]),
    # Of the record that a core was made from, only this is read once it is made.
    log.Record: lambda thing: thing.head.commander_id,
    log.Applied: lambda thing: (frozen(thing.head), thing.entries),
    log.Head: lambda thing: tuple([frozen(getattr(thing, name)) for name in thing.__struct_fields__]),
}


def _copier(kind: type) -> Callable[[Any], Any]:
    if issubclass(kind, VALUES + SHARED):
        _stays.add(kind)
        return lambda thing: thing
    if slots := _slots(kind):

        def of_slots(thing: Any) -> Any:
            twin = kind.__new__(kind)
            for name in slots:
                setattr(twin, name, copied(getattr(thing, name)))
            return twin

        return of_slots

    def of_attributes(thing: Any) -> Any:
        twin = kind.__new__(kind)
        mine = twin.__dict__
        for name, value in thing.__dict__.items():
            mine[name] = value if type(value) in _stays else copied(value)
        return twin

    return of_attributes


def _freezer(kind: type) -> Callable[[Any], Hashable]:
    if issubclass(kind, SHARED):
        return lambda _: None
    if issubclass(kind, VALUES):
        _plain.add(kind)
        return lambda thing: thing
    if slots := _slots(kind):
        return lambda thing: tuple([frozen(getattr(thing, name)) for name in slots])

    def of_attributes(thing: Any) -> Hashable:
        return tuple([value if type(value) in _plain else frozen(value) for value in thing.__dict__.values()])

    return of_attributes


def _slots(kind: type) -> tuple[str, ...]:
    return tuple(name for each in kind.__mro__ for name in getattr(each, "__slots__", ()))


class Keyed:
    """Copied by `copied`; its key is made once, for it is looked at more often than it changes."""

    _key: Hashable = None

    def copy(self) -> Self:
        twin = copied(self)
        twin.__dict__.pop("_key", None)  # not set to None: it would be a part of the next key
        return cast("Self", twin)

    @property
    def key(self) -> Hashable:
        if self._key is None:
            self._key = frozen(self)
        return self._key
