"""What a Commander is given of a session, and told of its history."""

from dispatcher.core.entries import Assigned, Body, Call, Entry, Finished, Text
from dispatcher.core.history import SLICE, assignment_of, history_of
from dispatcher.core.log import Head, Record, Request
from dispatcher.policies.ahead import at_once
from shared.records import Content, History, Said, Thought, Tool, ToolCall, ToolResult, Unknown


def entries(*bodies: Body) -> list[Entry]:
    return [Entry(body, 0.0, 1, number, offset=number) for number, body in enumerate(bodies, 1)]


def test_no_history_where_nothing_was_logged() -> None:
    assert at_once(history_of(0, [Entry(Assigned(1, "c"), 0.0)])) is None


def test_a_history_joins_what_was_said_and_pairs_calls_with_results() -> None:
    result = ToolResult("t", '"r"', "c1", "OK")
    log = entries(
        Thought("plan", "secret"),
        Content("It "),
        Content("is "),
        Call("t", "{}", "c1", "instance"),
        Content("so"),
        result,
        Call("t", "{}", "c1", "instance", refused=True),
        Call("t", "{}", "no result yet", "instance"),
        Unknown(),
        Text(),
        Content(""),
        Content("."),
        Finished(),
    )
    assert at_once(history_of(13, log)) == History(13, (Said("It is "), ToolCall("t", "{}", "c1"), result, Said("so.")))


def test_a_long_history_gives_way_in_between() -> None:
    log = entries(*[Content("a")] * (3 * SLICE))
    work = history_of(len(log), log)
    assert len([next(work) for _ in range(3)]) == 3
    assert at_once(work) == History(len(log), (Said("a" * len(log)),))


def test_a_history_tells_what_was_said_not_what_was_let_out() -> None:
    log = [Entry(Content("Project Night"), 0.0, 1, 1, released="")]
    assert at_once(history_of(1, log)) == History(1, (Said("Project Night"),))


def test_a_clients_tool_is_offered_instead_of_the_dispatchers_of_that_name() -> None:
    """That came after the client had asked."""
    clients = Tool("search", "the client's", "{}", client=True)
    record = Record("s", Request("a", (), 0.0, tools=(clients,)), Head())
    given = at_once(assignment_of(record, [], (Tool("search", "", "{}"), Tool("mail", "", "{}"))))
    assert given
    assert given.tools == (Tool("mail", "", "{}"), clients)
