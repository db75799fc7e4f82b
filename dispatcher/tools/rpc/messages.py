"""Arguments as a method's request, and its answer as a result: JSON and protobuf."""

from typing import Any

from google.protobuf import json_format
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError, EncodeError
from google.protobuf.message_factory import GetMessageClass

from dispatcher.tools import strict_json
from dispatcher.tools.errors import BrokenAnswerError, InvalidArgumentsError, ResultTooLargeError
from shared.records import MAX_RESULT_BYTES


class UnaryMethod:
    """path: as it is called, `/package.Service/Method`."""

    def __init__(self, method: MethodDescriptor, pool: DescriptorPool) -> None:
        self.path = f"/{method.containing_service.full_name}/{method.name}"
        self._request, self._answer = GetMessageClass(method.input_type), GetMessageClass(method.output_type)
        self._pool = pool

    def request(self, arguments: dict[str, Any]) -> bytes:
        """Raises InvalidArgumentsError."""
        message = self._request()
        try:
            json_format.ParseDict(arguments, message, descriptor_pool=self._pool)
            return message.SerializeToString()
        except (json_format.ParseError, EncodeError) as error:
            why = str(error).rstrip(".")
            raise InvalidArgumentsError(f"The arguments do not fit the method's request: {why}.") from None
        except (TypeError, ValueError, ArithmeticError, AttributeError, LookupError):  # what it does not look for
            raise InvalidArgumentsError("The arguments do not fit the method's request.") from None

    def result(self, answer: bytes) -> str:
        """As JSON; slow where it is large: never in the loop. Raises ServiceError, ResultTooLargeError."""
        try:
            message = self._answer.FromString(answer)
        except DecodeError:
            raise BrokenAnswerError("The tool's service answered with another message.") from None
        try:
            value = json_format.MessageToDict(message, descriptor_pool=self._pool)
            return strict_json.encode(value, MAX_RESULT_BYTES)
        except ResultTooLargeError:
            raise
        except (json_format.SerializeToJsonError, TypeError, ValueError, LookupError):
            what = "The answer of the tool's service cannot be written as JSON."
            # an Any of a type that nobody has told of, a Timestamp of no year, and the like
            raise BrokenAnswerError(what, failing=False) from None
