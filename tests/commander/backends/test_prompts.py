"""What a local model is asked."""

import json

from commander.agent import Call, ClientCall, Message, Tool
from commander.backends import prompts

SEARCH = Tool("search", "Searches\n  the web.", {"type": "object", "properties": {"q": {"type": "string"}}})


def chat(*messages: tuple[str, str]) -> tuple[Message, ...]:
    return tuple(Message(role, content) for role, content in messages)


def test_the_choice_may_be_none_where_that_is_allowed() -> None:
    def choices(*, may_decline: bool) -> list[str]:
        asked = prompts.choosing("hi", [SEARCH], may_decline=may_decline)
        schema = json.loads(asked["grammar"].partition("%json ")[2])
        names: list[str] = schema["properties"]["tool"]["enum"]
        return names

    assert choices(may_decline=True) == ["search", "none"]
    assert choices(may_decline=False) == ["search"]


def test_arguments_are_asked_for_beside_their_tool() -> None:
    asked = prompts.arguing("find it", SEARCH)
    assert asked["messages"][-1]["content"] == "search: Searches the web.\nfind it"


def test_roles_that_templates_do_not_know_are_mapped() -> None:
    messages = prompts.answering(chat(("developer", "a"), ("user", "b"), ("tool", "c")), (), "")
    assert [message["role"] for message in messages] == ["system", "user", "user"]


def test_whose_a_message_is_stands_before_it() -> None:
    messages = prompts.answering((Message("user", "hi", name="Ann"), Message("tool", "3", name="add")), (), "")
    assert [message["content"] for message in messages] == ["Ann: hi", "3"]


def test_a_result_stands_by_the_question() -> None:
    call = Call("", "search", {"q": "x"}, "OK", ["a"])
    messages = prompts.answering(chat(("system", "Be kind."), ("user", "hi"), ("user", "find x")), [call], "So")
    assert [message["role"] for message in messages] == ["system", "user", "user", "assistant"]
    assert messages[0]["content"].startswith("Be kind.\n")
    assert messages[2]["content"] == 'Question: find x\nResult of search(x): ["a"]'
    assert messages[3]["content"] == "So"


def test_a_failure_stands_by_the_question() -> None:
    call = Call("", "search", {"q": "x"}, "TIMEOUT", {"error": {"code": "TIMEOUT", "message": "too slow"}})
    assert prompts.answering(chat(("user", "?")), [call], "")[-1]["content"].endswith("search(x): error: too slow")


def test_what_was_said_goes_on_from_an_assistants_message() -> None:
    assert prompts.answering(chat(("user", "a"), ("assistant", "b")), (), "c")[-1] == {
        "role": "assistant",
        "content": "bc",
    }


def test_an_output_that_nobody_called_is_among_the_results() -> None:
    call = ClientCall("weather", "{}", "a")
    messages = (
        Message("user", "Where to?"),
        Message("assistant", "", (call,)),
        Message("tool", "rain", tool_call_id="a"),
        Message("tool", "see Oslo", name="goal"),
    )
    question, calls = prompts.asked(messages)
    assert question == messages[:1]
    assert [(made.tool_name, made.result) for made in calls] == [("weather", "rain"), ("goal", "see Oslo")]
