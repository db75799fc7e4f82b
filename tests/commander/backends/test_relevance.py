"""What a request's words say about tools."""

from typing import Any

import pytest

from commander.agent import Tool
from commander.backends.relevance import given, named_by

CALCULATE = Tool("calculate", "Calculate an arithmetic expression: + - * / // % **, parentheses, pi.", {})
CURRENT_TIME = Tool("current_time", "The current date, time and weekday in a time zone.", {})
WEATHER = Tool("get_weather", "The weather in a city.", {})
MAIL = Tool("sendEmail", "Sends an e-mail.", {})
TOOLS = (CALCULATE, CURRENT_TIME, WEATHER, MAIL)


@pytest.mark.parametrize(
    ("request_text", "tool"),
    [
        ("What is 17 * 23?", CALCULATE),
        ("17*23", CALCULATE),
        ("Compute (4 + 5) * 6", CALCULATE),
        ("How much is 3.5 times 8?", CALCULATE),
        ("What is 15% of 200?", CALCULATE),
        ("Subtract 18 from 90.", CALCULATE),
        ("I have 12 boxes with 24 eggs each. How many eggs is that?", CALCULATE),
        ("What time is it in Paris?", CURRENT_TIME),
        ("what's the date?", CURRENT_TIME),
        ("Do you know what time it is in Sydney?", CURRENT_TIME),
        ("time in Oslo", CURRENT_TIME),
        ("What is today's date?", CURRENT_TIME),
        ("How is the weather in Rome?", WEATHER),
        ("Send an e-mail to Anna.", MAIL),
    ],
)
def test_a_request_names_its_tool(request_text: str, tool: Tool) -> None:
    assert named_by(request_text, TOOLS) == [tool]


@pytest.mark.parametrize(
    "request_text",
    [
        "",
        "Hi",
        "Tell me a story about a lighthouse.",
        "Once upon a time there was a fox. Go on.",
        "Explain how rainbows form.",
        "Give me 3 tips for better sleep.",
        "Who won in 1966?",
        "Write an e-mail to my boss.",
        "Tell me about time travel.",
        "Describe Paris.",
    ],
)
def test_other_requests_name_none(request_text: str) -> None:
    assert named_by(request_text, TOOLS) == []


ZONE: dict[str, Any] = {"type": "object", "properties": {"zone": {"type": "string"}}}


def test_what_is_optional_is_filled_only_from_the_request() -> None:
    assert given("What time is it in Paris?", ZONE) == ZONE
    assert given("what time is it in paris?", ZONE) == ZONE
    assert given("What time is it?", ZONE)["properties"] == {}
    assert given("What time is it?", {**ZONE, "required": ["zone"]})["properties"] == ZONE["properties"]
