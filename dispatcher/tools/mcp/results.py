"""What a server's answer to a call says: its structured content, or its texts as JSON."""

import json

from mcp_types import CallToolResult, TextContent

from dispatcher.tools import strict_json
from dispatcher.tools.errors import ResultTooLargeError, ServiceError, ToolError
from shared.records import MAX_RESULT_BYTES


def result(answer: CallToolResult) -> str:
    """As JSON: the structured content where there is one; else one text of all texts, a line each; else, where there is
    more than text, the list of contents as the protocol has it. Raises ToolError if the tool says that it failed,
    ServiceError, ResultTooLargeError.
    """
    texts = [content.text for content in answer.content if isinstance(content, TextContent)]
    if answer.is_error:
        raise ToolError("\n".join(texts) or "The tool failed.")
    if answer.structured_content is not None:
        return _checked(answer.structured_content)
    if len(texts) == len(answer.content):
        return json.dumps("\n".join(texts), ensure_ascii=False)
    return _checked([content.model_dump(mode="json", by_alias=True, exclude_none=True) for content in answer.content])


def _checked(value: object) -> str:
    """As strict as with every other kind: no NaN, no depth that its readers could not bear."""
    try:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        if len(text) <= MAX_RESULT_BYTES:
            strict_json.parse(text, 4 * MAX_RESULT_BYTES)
            return text
    except (ValueError, RecursionError):
        raise ServiceError("invalid_json", "The answer of the tool's service is no JSON that can be used.") from None
    raise ResultTooLargeError
