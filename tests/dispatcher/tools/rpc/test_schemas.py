"""JSON Schema of messages, and what of a server's descriptors is bounded."""

import json
from collections.abc import Callable
from typing import Any

import jsonschema_rs
import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.tools.errors import InvalidArgumentsError, ServiceError
from dispatcher.tools.rpc.descriptors import Descriptors, UnusableDescriptorsError, built, parsed
from dispatcher.tools.rpc.messages import UnaryMethod
from dispatcher.tools.rpc.schemas import MAX_SCHEMA_BYTES, MessageSchemas
from tests.dispatcher.tools.rpc.service import ORDERS, descriptor_set

SHOP = built(parsed(descriptor_set()))
ECHO = next(UnaryMethod(method, SHOP.pool) for method in SHOP.methods([ORDERS]) if method.name == "Echo")
ORDER = MessageSchemas(SHOP.comments).of(SHOP.pool.FindMessageTypeByName("shop.v1.Order"))


def of_one_file(make: Callable[[FileDescriptorProto], None]) -> Descriptors:
    file = FileDescriptorProto(name="a.proto", package="a", syntax="proto3")
    make(file)
    return built([file.SerializeToString()])


def schema(make: Callable[[FileDescriptorProto], None]) -> dict[str, Any]:
    """Of the message `a.M`."""
    found = of_one_file(make)
    return MessageSchemas(found.comments).of(found.pool.FindMessageTypeByName("a.M"))


def field(message: Any, name: str, number: int, of: str = "") -> None:
    kind = FieldDescriptor.TYPE_MESSAGE if of else FieldDescriptor.TYPE_STRING
    message.field.add(name=name, number=number, type=kind, label=1, **({"type_name": of} if of else {}))


def test_a_message_that_holds_itself() -> None:
    def make(file: FileDescriptorProto) -> None:
        message = file.message_type.add(name="M")
        field(message, "own_part", 1, ".a.M")

    of_itself = {"properties": {"ownPart": {"$ref": "#/$defs/a.M"}}, "type": "object", "additionalProperties": False}
    assert schema(make) == {**of_itself, "$defs": {"a.M": of_itself}}


def test_a_long_chain_of_messages_is_no_recursion() -> None:
    def make(file: FileDescriptorProto) -> None:
        for number in range(400):
            field(file.message_type.add(name=f"N{number}" if number else "M"), "n", 1, f".a.N{number + 1}")
        file.message_type.add(name="N400")

    assert len(schema(make)["$defs"]) == 400


def many_fields(file: FileDescriptorProto) -> None:
    message = file.message_type.add(name="M")
    for number in range(1, 3000):
        field(message, f"some_field_{number}", number)


def a_large_enum(file: FileDescriptorProto) -> None:
    enum = file.enum_type.add(name="E")
    for number in range(50_000):
        enum.value.add(name=f"VALUE_{number}", number=number)
    message = file.message_type.add(name="M")
    for number in range(1, 200):
        message.field.add(name=f"f{number}", number=number, type=14, label=1, type_name=".a.E")


def a_long_name(file: FileDescriptorProto) -> None:
    name = "N" * 100_000
    file.message_type.add(name=name)
    message = file.message_type.add(name="M")
    for number in range(1, 200):
        field(message, f"f{number}", number, f".a.{name}")


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (many_fields, "its request's schema has more than 64 KiB"),
        (a_large_enum, "its request's schema has more than 64 KiB"),
        (a_long_name, "its request has a type whose name has more than 256 characters"),
    ],
)
def test_what_is_too_large_is_refused(make: Callable[[FileDescriptorProto], None], why: str) -> None:
    with pytest.raises(UnusableDescriptorsError) as raised:
        schema(make)
    assert str(raised.value) == why


def test_a_schema_is_within_its_bound() -> None:
    assert len(json.dumps(ORDER)) < MAX_SCHEMA_BYTES
    jsonschema_rs.validator_for(ORDER)


NUMBERS = st.integers(-(10**400), 10**400) | st.floats(allow_nan=False, allow_infinity=False)
PLAIN = st.none() | st.booleans() | NUMBERS | st.text()
KEYS = st.sampled_from([*ORDER["properties"], "name", "parts"])


@given(st.recursive(PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4)))
def test_whatever_arguments_are_becomes_a_request_or_is_refused(arguments: Any) -> None:
    wrapped = arguments if isinstance(arguments, dict) else {"anything": arguments}
    try:
        request = ECHO.request(wrapped)
    except InvalidArgumentsError:
        return
    json.loads(ECHO.result(request))


@given(st.binary(max_size=200))
def test_whatever_an_answer_is_becomes_a_result_or_is_refused(answer: bytes) -> None:
    try:
        found = ECHO.result(answer)
    except ServiceError as error:
        found = json.dumps({"error": error.code})
    assert json.loads(found).get("error", "broken_answer") == "broken_answer"
