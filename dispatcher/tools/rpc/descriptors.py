"""What a server's descriptors say: its services' methods, in a pool of their own, and what comments there are."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from google.protobuf import (
    any_pb2,
    api_pb2,
    descriptor_pb2,
    descriptor_pool,
    duration_pb2,
    empty_pb2,
    field_mask_pb2,
    source_context_pb2,
    struct_pb2,
    timestamp_pb2,
    type_pb2,
    wrappers_pb2,
)
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.protobuf.message import DecodeError

MAX_COMMENT = 2000  # characters of one comment
# `json_format` writes these types in their own ways, and knows them as they are in this program.
_OURS = {
    module.DESCRIPTOR.name: module.DESCRIPTOR.serialized_pb
    for module in (
        any_pb2, api_pb2, descriptor_pb2, duration_pb2, empty_pb2, field_mask_pb2, source_context_pb2, struct_pb2,
        timestamp_pb2, type_pb2, wrappers_pb2,
    )
}  # fmt: skip
_THEIR_PACKAGE = "google.protobuf"


class UnusableDescriptorsError(ValueError):
    """Why they, or a part of them, cannot be used; in words that may be logged."""


class Descriptors(NamedTuple):
    """comments: by the full name of a service's method, a message, an enum or a field."""

    pool: descriptor_pool.DescriptorPool
    comments: dict[str, str]

    def methods(self, services: Iterable[str]) -> Iterator[MethodDescriptor]:
        """Of these services. Raises UnusableDescriptorsError."""
        for service in services:
            try:
                found = self.pool.FindServiceByName(service)
            except KeyError:
                raise UnusableDescriptorsError(f"there is no service {service}") from None
            yield from found.methods


def parsed(content: bytes) -> Sequence[bytes]:
    """The files of a serialized FileDescriptorSet. Raises UnusableDescriptorsError."""
    try:
        files = FileDescriptorSet.FromString(content).file
    except DecodeError:
        files = None
    if not files:
        raise UnusableDescriptorsError("no descriptor set, as `protoc --include_imports -o FILE` writes it")
    return [file.SerializeToString() for file in files]


def name_and_dependencies(content: bytes) -> tuple[str, Sequence[str]]:
    """Of a serialized file. Raises UnusableDescriptorsError."""
    file = _file(content)
    return file.name, file.dependency


def built(contents: Iterable[bytes]) -> Descriptors:
    """Of serialized files in any order. Raises UnusableDescriptorsError."""
    files = {file.name: file for file in map(_file, contents)}
    pool = descriptor_pool.DescriptorPool()
    comments: dict[str, str] = {}
    for file in _in_order(files):
        try:
            pool.AddSerializedFile(_OURS.get(file.name) or file.SerializeToString())
        except TypeError:
            raise UnusableDescriptorsError(f"the file {_shown(file.name)} cannot be used") from None
        comments.update(_comments(file))
    return Descriptors(pool, comments)


def known(name: str) -> bool:
    """Whether a file of that name is this program's own."""
    return name in _OURS


def _file(content: bytes) -> FileDescriptorProto:
    try:
        file = FileDescriptorProto.FromString(content)
    except DecodeError:
        raise UnusableDescriptorsError("a file of it is no descriptor") from None
    if file.package == _THEIR_PACKAGE and file.name not in _OURS:
        raise UnusableDescriptorsError(f"the file {_shown(file.name)} is of the package {_THEIR_PACKAGE}")
    return file


def _in_order(files: dict[str, FileDescriptorProto]) -> Iterator[FileDescriptorProto]:
    """Each after those that it imports."""
    for name, content in _OURS.items():
        files.setdefault(name, FileDescriptorProto.FromString(content))
    waiting: dict[str, list[str]] = {}
    missing: dict[str, int] = {}
    for name, file in files.items():
        needed = set(file.dependency)
        if unknown := needed - files.keys():
            raise UnusableDescriptorsError(f"the file {_shown(min(unknown))} is missing, which {_shown(name)} imports")
        missing[name] = len(needed)
        for each in needed:
            waiting.setdefault(each, []).append(name)
    ready = [name for name, number in missing.items() if not number]
    added = 0
    while ready:
        name = ready.pop()
        added += 1
        yield files[name]
        for each in waiting.get(name, ()):
            missing[each] -= 1
            if not missing[each]:
                ready.append(each)
    if added < len(files):
        raise UnusableDescriptorsError("its files import each other in a circle")


def _comments(file: FileDescriptorProto) -> Iterator[tuple[str, str]]:
    for location in file.source_code_info.location:
        text = (location.leading_comments or location.trailing_comments).strip()
        if text and (name := _named(file, location.path)):
            yield name, text[:MAX_COMMENT]


def _named(file: FileDescriptorProto, path: Sequence[int]) -> str:
    """The full name of what stands there: pairs of a field's number and an index; empty: nothing with a name."""
    scope: Any = file
    names = [file.package] if file.package else []
    for number, index in zip(path[::2], path[1::2], strict=False):
        field = scope.DESCRIPTOR.fields_by_number.get(number)
        if field is None or not field.is_repeated or field.message_type is None:
            return ""
        within = getattr(scope, field.name)
        if not 0 <= index < len(within) or not hasattr(within[index], "name"):
            return ""
        scope = within[index]
        names.append(scope.name)
    return "" if len(path) % 2 or not path else ".".join(names)


def _shown(name: str) -> str:
    return name[:100]
