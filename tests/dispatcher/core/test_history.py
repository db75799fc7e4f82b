"""What a Commander is given of a session, and told of its history."""

from dispatcher.core.entries import Assigned, Body, Call, Entry, Finished, Text
from dispatcher.core.history import SLICE, HistoryReader, assignment_of
from dispatcher.core.log import Head, Record, Request
from dispatcher.policies.ahead import at_once
from shared.records import (
    MAX_HISTORY_BYTES,
    MAX_TEXT_BYTES,
    Content,
    History,
    Said,
    Thought,
    Tool,
    ToolCall,
    ToolResult,
    Unknown,
)


def entries(*bodies: Body) -> list[Entry]:
    return [Entry(body, 0.0, 1, number, offset=number) for number, body in enumerate(bodies, 1)]


def history_of(sequence: int, *parts: list[Entry]) -> History | None:
    reader = HistoryReader()
    for part in parts:
        at_once(reader.take(part))
    return reader.history(sequence)


def test_no_history_where_nothing_was_logged() -> None:
    assert history_of(0, [Entry(Assigned(1, "c"), 0.0)]) is None


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
    whole = History(13, (Said("It is "), ToolCall("t", "{}", "c1"), result, Said("so.")))
    assert history_of(13, log) == whole
    assert all(history_of(13, log[:cut], log[cut:]) == whole for cut in range(len(log)))
    assert history_of(13, *([entry] for entry in log)) == whole


def test_a_long_history_gives_way_in_between() -> None:
    log = entries(*[Content("a")] * (3 * SLICE))
    reader = HistoryReader()
    assert len(list(reader.take(log))) == 3
    assert reader.history(len(log)) == History(len(log), (Said("a" * len(log)),))


def test_of_a_history_that_is_too_large_nothing_is_kept() -> None:
    log = entries(*[Content("x" * MAX_TEXT_BYTES)] * (MAX_HISTORY_BYTES // MAX_TEXT_BYTES))
    last = entries(Call("t", "{}", "c1", "i"), ToolResult("t", "1", "c1"), Content("more"))
    for part, too_large in ([], False), (last[:1], False), (last, True):
        reader = HistoryReader()
        at_once(reader.take([*log, *part]))
        assert reader.too_large == too_large
        assert (reader.history(1) == History(1, ())) == too_large


def test_a_history_tells_what_was_said_not_what_was_let_out() -> None:
    log = [Entry(Content("Project Night"), 0.0, 1, 1, released="")]
    assert history_of(1, log) == History(1, (Said("Project Night"),))


def test_a_clients_tool_is_offered_instead_of_the_dispatchers_of_that_name() -> None:
    """That came after the client had asked."""
    clients = Tool("search", "the client's", "{}", client=True)
    record = Record("s", Request("a", (), 0.0, tools=(clients,)), Head())
    given = assignment_of(record, None, (Tool("search", "", "{}"), Tool("mail", "", "{}")))
    assert given.tools == (Tool("mail", "", "{}"), clients)
