"""`commander serve` against a scripted Dispatcher: the pool, streams that break and drain, leaving."""

import asyncio
import inspect
import json
from collections.abc import AsyncGenerator

import grpc
import pytest
import structlog

from commander import worker
from commander.agent import (
    Call,
    ClientCall,
    Finish,
    Message,
    Thought,
    Tool,
    ToolError,
    Turn,
    Yielded,
    continues,
    supports,
)
from shared import records
from shared.records import MAX_OPEN_CALLS
from tests.commander.agents import Puppet, brief, chatter
from tests.commander.fake_dispatcher import FakeDispatcher, Peer, serving, soon

FINISH = records.Content("", is_finish=True, finish_reason="stop")


async def begin(dispatcher: FakeDispatcher, session_id: str = "s", **more: int) -> Peer:
    """A stream with one session on it, welcomed."""
    peer = await dispatcher.peer()
    await peer.assign(session_id)
    await peer.welcome(session_id, **more)
    return peer


async def test_a_session_from_its_assignment_to_the_ack_of_its_end(dispatcher: FakeDispatcher) -> None:
    puppet = Puppet()
    async with serving(dispatcher, puppet, capacity=2) as commander:
        peer = await dispatcher.peer()
        status = await peer.status()
        assert (status.agents, status.continues, status.free_slots) == (("default",), (), 2)
        assert (status.assignments_received, status.running) == (0, ())
        asked = {"conversation_id": "thread", "traceparent": "00-a-b-01", "tracestate": "a=1"}
        await peer.assign("s", 3, messages=(records.Message("user", "hi"),), parameters_json='{"a": 1}', **asked)
        status = await peer.status(assignments_received=1)
        assert (status.free_slots, status.running) == (1, (records.Running("s", 3),))
        packet, opened = await peer.next(records.Open)
        assert (packet.session_id, packet.sequence) == ("s", 0)
        assert opened == records.Open(status.commander_id, 3)
        assert not puppet.started.is_set(), "no agent runs for a session that is not open"
        await peer.send("s", records.Welcome(0, 256, 262144))
        await soon(puppet.started.wait())
        assert puppet.turns[0].messages == (Message("user", "hi"),)
        assert puppet.turns[0].parameters == {"a": 1}
        assert puppet.turns[0].session_id == "s"
        turn = puppet.turns[0]
        assert (turn.conversation_id, turn.trace, turn.tracestate) == ("thread", "00-a-b-01", "a=1")
        puppet.say(Thought("plan", "hm"), "words")
        assert (await peer.next(records.Thought))[1] == records.Thought("plan", "hm")
        packet, said = await peer.next(records.Content)
        assert (said, packet.sequence, packet.session_id) == (records.Content("words"), 2, "s")
        puppet.say(Finish("length", 5, 7))
        puppet.finish()
        packet, end = await peer.next(records.Content)
        assert end == records.Content("", is_finish=True, finish_reason="length", usage=records.Usage(5, 7))
        assert (await peer.status(free_slots=2)).running == (records.Running("s", 3),), "held until the end is acked"
        await peer.send("s", records.Ack(3))
        await peer.status(running=())
        assert commander.value("commander_tokens_total", type="output") == 7
        assert commander.value("commander_tokens_total", type="input") == 5
        assert commander.value("commander_first_token_seconds_count") == 1
        assert commander.value("commander_unacked_packets") == 0


CLIENTS = records.Tool("weather", "The weather.", '{"type": "object"}', client=True)


async def test_the_clients_tools_and_their_results_reach_the_agent_and_it_ends_with_calls_of_them(
    dispatcher: FakeDispatcher,
) -> None:
    puppet = supports("tools")(Puppet())
    async with serving(dispatcher, puppet):
        peer = await dispatcher.peer()
        assert (await peer.status()).supports == (records.Support("default", ("tools",)),)
        called = records.ClientCall("a", "weather", '{"city":')
        messages = (
            records.Message("assistant", "", (called,)),
            records.Message("tool", "no", (), "a", "weather"),
        )
        await peer.assign("s", tools=(CLIENTS,), messages=messages)
        await peer.welcome("s")
        await soon(puppet.started.wait())
        turn = puppet.turns[0]
        assert turn.tools == (Tool("weather", "The weather.", {"type": "object"}, client=True),)
        assert turn.messages == (
            Message("assistant", "", (ClientCall("weather", '{"city":', "a"),)),
            Message("tool", "no", (), "a", "weather"),
        )
        puppet.say(Finish("tool_calls", 5, 7, (ClientCall("weather", {"city": "Oslo"}, "b"),)))
        puppet.finish()
        _, end = await peer.next(records.Content)
        calls = (records.ClientCall("b", "weather", '{"city": "Oslo"}'),)
        assert end == records.Content("", True, "tool_calls", records.Usage(5, 7), calls)
        await peer.send("s", records.Ack(1))


async def test_an_agent_that_calls_a_tool_that_the_client_has_not_has_failed(dispatcher: FakeDispatcher) -> None:
    puppet = Puppet()
    async with serving(dispatcher, puppet):
        peer = await dispatcher.peer()
        assert (await peer.status()).supports == (), "it does not say"
        await peer.assign("s", tools=(CLIENTS, records.Tool("mail", "", "{}")))
        await peer.welcome("s")
        puppet.say(Finish("tool_calls", calls=(ClientCall("mail", {}, "b"),)))
        puppet.finish()
        _, failed = await peer.next(records.Error)
        assert (failed.code, "'mail'" in failed.message) == ("agent_error", True)
        await peer.send("s", records.Ack(1))


async def test_sessions_share_the_stream_and_its_batches(dispatcher: FakeDispatcher) -> None:
    async with serving(dispatcher, chatter, capacity=8):
        peer = await dispatcher.peer()
        for number in range(8):
            await peer.assign(f"s{number}")
        for number in range(8):
            await peer.welcome(f"s{number}")
        seen: dict[str, str] = {}
        packets = 0
        while len(seen) < 8 or peer.messages >= packets:  # ends with the first batch
            packet = await peer.packet()
            packets += 1
            assert isinstance(packet.payload, records.Content)
            seen[packet.session_id] = seen.get(packet.session_id, "") + packet.payload.text
            await peer.send(packet.session_id, records.Ack(packet.sequence))
        for text in seen.values():
            assert text.startswith("0 1 2 3 ")


async def test_history_parameters_and_tools_reach_the_agent(dispatcher: FakeDispatcher) -> None:
    puppet = continues(Puppet())
    history = records.History(
        7,
        (
            records.Said("It is "),
            records.ToolCall("search", '{"q":1}', "c1"),
            records.ToolResult("search", '{"hits":[]}', "c1", "OK"),
            records.Said("sunny"),
        ),
    )
    async with serving(dispatcher, puppet):
        peer = await dispatcher.peer()
        assert (await peer.status()).continues == ("default",)
        await peer.assign("s", 2, history=history, tools=(records.Tool("search", "finds", '{"type":"object"}'),))
        await peer.welcome("s", sequence=7)
        await soon(puppet.started.wait())
        turn = puppet.turns[0]
        assert turn.history.said == "It is sunny"
        assert turn.history.calls == (Call("c1", "search", {"q": 1}, "OK", {"hits": []}),)
        assert turn.tools == (Tool("search", "finds", {"type": "object"}),)
        puppet.say(".")
        assert (await peer.next(records.Content))[0].sequence == 8


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (5, "the agent yielded int; it may yield str, Thought or Finish: 5"),
        (b"x", "the agent yielded bytes; it may yield str, Thought or Finish: b'x'"),
        ({"text": "x" * 9999}, "the agent yielded dict; it may yield str, Thought or Finish: {'text': 'xxx"),
    ],
)
async def test_a_wrong_yield_is_an_agent_error(dispatcher: FakeDispatcher, item: object, message: str) -> None:
    puppet = Puppet()
    with structlog.testing.capture_logs() as logs:
        await _wrong_yield(dispatcher, puppet, item, message)
    (told,) = [entry for entry in logs if entry["event"] == "agent_failed"]
    assert told["why"] == message.partition(": ")[0]
    assert told["raised_at"][0].startswith(f"{inspect.getsourcefile(Puppet)}:"), "the line of the yield"


async def _wrong_yield(dispatcher: FakeDispatcher, puppet: Puppet, item: object, message: str) -> None:
    async with serving(dispatcher, puppet):
        peer = await begin(dispatcher)
        puppet.say(item)  # type: ignore[arg-type]
        error = (await peer.next(records.Error))[1]
        assert error.code == "agent_error"
        assert error.message.startswith(message)
        await soon(puppet.ended.wait())


async def test_an_agent_that_raises_ends_its_session_and_frees_its_slot(dispatcher: FakeDispatcher) -> None:
    async def raises(turn: Turn) -> AsyncGenerator[Yielded, None]:
        yield "a"
        raise ValueError("boom \ud800")

    async with serving(dispatcher, raises, capacity=1):
        peer = await begin(dispatcher)
        await peer.next(records.Content)
        packet, error = await peer.next(records.Error)
        assert error == records.Error("agent_error", "ValueError: boom \ufffd")
        await peer.send("s", records.Ack(packet.sequence))
        await peer.status(free_slots=1, running=())


class _Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt("x"), SystemExit(3), GeneratorExit("x"), BaseExceptionGroup("x", [SystemExit()])]
)
async def test_what_an_agent_raises_never_ends_its_commander(dispatcher: FakeDispatcher, error: BaseException) -> None:
    async def agent(turn: Turn) -> AsyncGenerator[Yielded, None]:
        if turn.messages:
            raise error
        yield "unharmed"

    async with serving(dispatcher, agent, capacity=1):
        peer = await dispatcher.peer()
        await peer.assign("bad", messages=(records.Message("user", "x"),))
        await peer.welcome("bad")
        end = (await peer.next(records.Error))[1]
        assert (end.code, end.message.split(":")[0]) == ("agent_error", type(error).__name__)
        await peer.send("bad", records.Ack(1))
        await peer.assign("good")
        await peer.welcome("good")
        assert (await peer.next(records.Content))[1].text == "unharmed"


async def test_an_exception_without_a_text_is_an_agent_error(dispatcher: FakeDispatcher) -> None:
    async def agent(turn: Turn) -> AsyncGenerator[Yielded, None]:
        yield "word"
        raise _Unprintable

    async with serving(dispatcher, agent):
        peer = await begin(dispatcher)
        await peer.next(records.Content)
        assert (await peer.next(records.Error))[1].message == "_Unprintable"


@pytest.mark.parametrize("error", [KeyboardInterrupt("x"), GeneratorExit("x")])
async def test_what_an_agent_raises_when_it_is_stopped_never_ends_its_commander(
    dispatcher: FakeDispatcher, error: BaseException
) -> None:
    async def agent(turn: Turn) -> AsyncGenerator[Yielded, None]:
        try:
            yield "word"
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise error from None

    async with serving(dispatcher, agent):
        peer = await begin(dispatcher)
        await peer.next(records.Content)
        await peer.send("s", records.Stop("UserCancel", "stop-1"))
        assert (await peer.next(records.Stopped))[1].stop_id == "stop-1"


async def test_an_assignment_that_is_no_json_is_an_agent_error(dispatcher: FakeDispatcher) -> None:
    async with serving(dispatcher, brief):
        peer = await dispatcher.peer()
        await peer.assign("s", parameters_json="[")
        await peer.welcome("s")
        assert "is not JSON" in (await peer.next(records.Error))[1].message


async def test_an_agent_waits_for_the_credit(dispatcher: FakeDispatcher) -> None:
    puppet = Puppet()
    async with serving(dispatcher, puppet):
        peer = await begin(dispatcher, packets=2)
        for number in range(2):
            puppet.say(Thought(str(number), "x"))
            assert (await peer.packet()).sequence == number + 1
        puppet.say(*[Thought(str(number), "x") for number in range(100)])
        await peer.status()
        await peer.status()  # a heartbeat later nothing else has come, and the agent waits
        assert peer.packets.empty()
        assert puppet.said <= 3
        await peer.send("s", records.Ack(1))
        assert (await peer.packet()).sequence == 3


async def test_tool_calls_run_at_once_and_are_answered_by_their_ids(dispatcher: FakeDispatcher) -> None:
    failures: list[ToolError] = []

    async def calls(turn: Turn) -> AsyncGenerator[Yielded, None]:
        one, two = await asyncio.gather(turn.call_tool("t", {"n": 1}), turn.call_tool("t", {"n": 2}))
        try:
            await turn.call_tool("t")
        except ToolError as error:
            failures.append(error)
        yield f"{one} {two}"

    async with serving(dispatcher, calls):
        peer = await begin(dispatcher)
        first, second = [(await peer.next(records.ToolCall))[1] for _ in range(2)]
        assert (first.tool_name, first.arguments_json, second.arguments_json) == ("t", '{"n":1}', '{"n":2}')
        assert first.call_id != second.call_id
        assert len(first.call_id) >= 16
        await peer.send("s", records.ToolResult("t", '"two"', second.call_id, "OK"))
        await peer.send("s", records.ToolResult("t", '"one"', first.call_id, "OK"))
        third = (await peer.next(records.ToolCall))[1]
        refused = '{"error": {"code": "DENIED", "message": "no"}}'
        await peer.send("s", records.ToolResult("t", refused, third.call_id, "DENIED"))
        assert (await peer.next(records.Content))[1].text == "one two"
        assert [(error.code, error.message) for error in failures] == [("DENIED", "no")]


async def test_an_agent_that_gathers_many_calls_has_few_of_them_open(dispatcher: FakeDispatcher) -> None:
    many = 3 * MAX_OPEN_CALLS

    async def calls(turn: Turn) -> AsyncGenerator[Yielded, None]:
        gathered = asyncio.gather(*(turn.call_tool("t", {"n": n}) for n in range(many)))
        await asyncio.sleep(0)
        yield "meanwhile"
        yield f"{sum(await gathered)}"

    async with serving(dispatcher, calls):
        peer = await begin(dispatcher)
        asked: list[records.ToolCall] = []
        said: list[object] = []
        while len(asked) < MAX_OPEN_CALLS or not said:
            packet = await peer.packet()
            if isinstance(packet.payload, records.ToolCall):
                asked.append(packet.payload)
            else:
                said.append(packet.payload)
        assert said == [records.Content("meanwhile")]
        for number in range(many):
            call = asked[number]
            result = str(json.loads(call.arguments_json)["n"])
            await peer.send("s", records.ToolResult("t", result, call.call_id, "OK"))
            if len(asked) < many:
                asked.append((await peer.next(records.ToolCall))[1])
        assert len({call.call_id for call in asked}) == many
        assert (await peer.next(records.Content))[1].text == str(sum(range(many)))


async def test_calls_that_wait_when_the_session_is_stopped_are_cancelled(dispatcher: FakeDispatcher) -> None:
    tasks: list[asyncio.Task[object]] = []

    async def calls(turn: Turn) -> AsyncGenerator[Yielded, None]:
        tasks.extend(asyncio.ensure_future(turn.call_tool("t")) for _ in range(MAX_OPEN_CALLS + 2))
        await asyncio.gather(*(asyncio.shield(task) for task in tasks))
        yield "never"

    async with serving(dispatcher, calls):
        peer = await begin(dispatcher)
        for _ in range(MAX_OPEN_CALLS):
            await peer.next(records.ToolCall)
        await peer.send("s", records.Stop("UserCancel", "x"))
        await peer.next(records.Stopped)
        outcomes = await soon(asyncio.gather(*tasks, return_exceptions=True))
        assert [error.code for error in outcomes] == ["CANCELLED"] * len(tasks)


# ---- streams that break


async def test_after_a_cut_the_session_resumes_and_nothing_is_lost_or_twice(dispatcher: FakeDispatcher) -> None:
    puppet = Puppet()
    async with serving(dispatcher, puppet) as commander:
        peer = await begin(dispatcher)
        for step in "abc":
            puppet.say(Thought(step, step))
            await peer.next(records.Thought)
        await peer.send("s", records.Ack(1))
        peer.end(grpc.StatusCode.UNAVAILABLE)
        puppet.say(Thought("d", "d"))
        peer = await dispatcher.peer()
        assert (await peer.status()).running == (records.Running("s", 1),)
        await peer.welcome("s", sequence=2)
        again = [await peer.next(records.Thought) for _ in range(2)]
        assert [(packet.sequence, thought.delta) for packet, thought in again] == [(3, "c"), (4, "d")]
        assert commander.value("commander_resumes_total") == 1


@pytest.mark.parametrize("code", [grpc.StatusCode.OK, grpc.StatusCode.ABORTED, grpc.StatusCode.INTERNAL])
async def test_a_stream_that_ends_with_any_status_is_followed_by_another(
    dispatcher: FakeDispatcher, code: grpc.StatusCode
) -> None:
    async with serving(dispatcher, brief):
        peer = await dispatcher.peer()
        first = await peer.status()
        peer.end(code)
        assert (await (await dispatcher.peer()).status()).commander_id == first.commander_id


async def test_an_end_whose_ack_was_lost_is_sent_again(dispatcher: FakeDispatcher) -> None:
    puppet = Puppet()
    async with serving(dispatcher, puppet):
        peer = await begin(dispatcher)
        puppet.say("a")
        puppet.finish()
        _, end, _ = await peer.until(records.Content)
        peer.end(grpc.StatusCode.ABORTED)
        peer = await dispatcher.peer()
        await peer.welcome("s", sequence=1)
        again, payload = await peer.next(records.Content)
        assert (again.sequence, payload) == (end.sequence, FINISH)
        peer.end(grpc.StatusCode.ABORTED)
        peer = await dispatcher.peer()
        await peer.welcome("s", sequence=end.sequence)  # it was logged: Welcome is the ack
        await peer.status(running=())


async def test_results_that_are_waited_for_are_named_when_it_is_opened_again(dispatcher: FakeDispatcher) -> None:
    async def calls(turn: Turn) -> AsyncGenerator[Yielded, None]:
        yield await turn.call_tool("t")

    async with serving(dispatcher, calls):
        peer = await begin(dispatcher)
        call = (await peer.next(records.ToolCall))[1]
        peer.end(grpc.StatusCode.UNAVAILABLE)
        peer = await dispatcher.peer()
        opened = await peer.welcome("s", sequence=1)
        assert opened.awaiting_call_ids == (call.call_id,)
        result = records.ToolResult("t", '"late"', call.call_id, "OK")
        await peer.send("s", result, result)
        assert (await peer.next(records.Content))[1].text == "late"


async def test_a_log_that_was_rolled_back_ends_the_session_in_data_loss(dispatcher: FakeDispatcher) -> None:
    puppet = Puppet()
    async with serving(dispatcher, puppet):
        peer = await begin(dispatcher)
        puppet.say("a")
        await peer.next(records.Content)
        puppet.say("b")
        await peer.next(records.Content)
        await peer.send("s", records.Ack(2))
        peer.end(grpc.StatusCode.UNAVAILABLE)
        peer = await dispatcher.peer()
        await peer.welcome("s", sequence=1)
        packet, error = await peer.next(records.Error)
        assert (error.code, error.retryable, packet.sequence) == ("data_loss", False, 2)
        await soon(puppet.ended.wait())
        await peer.send("s", records.Ack(2))
        await peer.status(running=())


async def test_a_log_that_lost_the_history_ends_the_session_in_data_loss(dispatcher: FakeDispatcher) -> None:
    """Rolled back between the assignment and its `open`: the agent would go on from what users no longer have."""
    puppet = Puppet()
    async with serving(dispatcher, puppet):
        peer = await dispatcher.peer()
        await peer.assign("s", 2, history=records.History(7, (records.Said("It is sunny"),)))
        await peer.welcome("s", sequence=5)
        packet, error = await peer.next(records.Error)
        assert (error.code, error.retryable, packet.sequence) == ("data_loss", False, 6)
        assert not puppet.turns
        await peer.send("s", records.Ack(6))
        await peer.status(running=(), free_slots=4)


# ---- sessions that are closed


@pytest.mark.parametrize(
    "code", ["fenced", "superseded", "ended", "unknown_session", "exists", "invalid", "credit", "something new"]
)
async def test_a_closed_session_is_dropped_and_its_neighbour_goes_on(dispatcher: FakeDispatcher, code: str) -> None:
    puppets = {name: Puppet() for name in ("s", "t")}

    async with serving(dispatcher, lambda turn: puppets[turn.session_id](turn)):
        peer = await begin(dispatcher, "s")
        await peer.assign("t")
        await peer.welcome("t")
        await peer.send("s", records.Closed(code, "as the test says"))
        await soon(puppets["s"].ended.wait())
        await peer.status(running=(records.Running("t", 1),))
        puppets["t"].say("still here")
        assert (await peer.next(records.Content))[0].session_id == "t"


@pytest.mark.parametrize("code", ["gap", "unavailable"])
async def test_a_session_that_may_be_opened_again_is(dispatcher: FakeDispatcher, code: str) -> None:
    puppet = Puppet()
    async with serving(dispatcher, puppet):
        peer = await begin(dispatcher)
        puppet.say("a")
        await peer.next(records.Content)
        for _ in range(2):
            await peer.send("s", records.Closed(code))
            await peer.welcome("s", sequence=0)
            packet, said = await peer.next(records.Content)
            assert (packet.sequence, said.text) == (1, "a")
        assert not puppet.ended.is_set()


async def test_a_higher_generation_fences_off_the_lower(dispatcher: FakeDispatcher) -> None:
    puppets = [Puppet(), Puppet()]
    waiting = iter(puppets)
    async with serving(dispatcher, lambda turn: next(waiting)(turn), capacity=1):  # noqa: PLW0108 # one for each turn
        peer = await begin(dispatcher)
        await soon(puppets[0].started.wait())
        await peer.assign("s", 1)  # again: counted, not opened
        await peer.status(assignments_received=2)
        await peer.assign("s", 2)
        opened = await peer.welcome("s", sequence=4)
        assert opened.generation == 2
        await soon(puppets[0].ended.wait())
        await soon(puppets[1].started.wait())
        await peer.status(running=(records.Running("s", 2),))
        puppets[1].say("on")
        assert (await peer.next(records.Content))[0].sequence == 5


async def test_what_it_cannot_take_is_not_named(dispatcher: FakeDispatcher) -> None:
    async with serving(dispatcher, chatter, capacity=1):
        peer = await dispatcher.peer()
        await peer.assign("s")
        await peer.assign("t")
        await peer.assign("u", agent="another")
        status = await peer.status(assignments_received=3)
        assert status.running == (records.Running("s", 1),)
        await peer.welcome("s")


async def test_what_comes_for_an_unknown_session_is_dropped(dispatcher: FakeDispatcher) -> None:
    async with serving(dispatcher, brief):
        peer = await dispatcher.peer()
        for signal in (
            records.Ack(9),
            records.Stop("Timeout"),
            records.Welcome(0, 1, 1),
            records.Closed("gap"),
            records.Unknown(),
        ):
            await peer.send("nobody", signal)
        await peer.assign("s", messages=(records.Message("user", "hi"),))
        await peer.welcome("s")
        assert (await peer.next(records.Content))[1].text == "hi"


# ---- drain


async def test_a_leaving_dispatcher_s_sessions_move_and_go_on_here_until_their_welcome(
    dispatcher: FakeDispatcher,
) -> None:
    puppet = Puppet()
    async with serving(dispatcher, puppet):
        old = await begin(dispatcher)
        await old.send("", records.Drain("leaving"))
        await old.status(free_slots=0)
        new = await dispatcher.peer()
        await new.next(records.Open)
        puppet.say("a")
        assert (await old.next(records.Content))[0].sequence == 1
        await old.send("s", records.Ack(1))
        await new.send("s", records.Welcome(1, 256, 262144))
        await old.half_closed()
        puppet.say("b")
        assert (await new.next(records.Content))[0].sequence == 2
        old.end()
        puppet.finish()
        await new.next(records.Content)


async def test_superseded_by_its_own_other_stream_means_nothing(dispatcher: FakeDispatcher) -> None:
    puppet = Puppet()
    async with serving(dispatcher, puppet):
        old = await begin(dispatcher)
        await old.send("", records.Drain("leaving"))
        new = await dispatcher.peer()
        await new.next(records.Open)
        await old.send("s", records.Closed("superseded"))
        await old.half_closed()
        await new.send("s", records.Welcome(0, 256, 262144))
        puppet.say("on")
        await new.next(records.Content)


async def test_superseded_by_an_open_of_its_own_that_was_never_answered_is_opened_again(
    dispatcher: FakeDispatcher,
) -> None:
    """The stream broke that it went by, and a Dispatcher carried it out only after the next."""
    puppet = Puppet()
    async with serving(dispatcher, puppet):
        broken = await dispatcher.peer()
        await broken.assign("s")
        await broken.next(records.Open)
        broken.end()
        peer = await dispatcher.peer()
        await peer.welcome("s")
        await peer.send("s", records.Closed("superseded"))
        await peer.welcome("s")
        puppet.say("on")
        await peer.next(records.Content)
        await peer.send("s", records.Closed("fenced"))  # so it was another's after all
        await soon(puppet.ended.wait())


async def test_a_call_waits_while_its_session_moves(dispatcher: FakeDispatcher) -> None:
    go = asyncio.Event()

    async def calls(turn: Turn) -> AsyncGenerator[Yielded, None]:
        await go.wait()
        yield "before"
        yield await turn.call_tool("t")

    async with serving(dispatcher, calls):
        old = await begin(dispatcher)
        await old.send("", records.Drain("leaving"))
        new = await dispatcher.peer()
        await new.next(records.Open)
        go.set()
        await old.next(records.Content)
        await new.send("s", records.Welcome(1, 256, 262144))
        await old.half_closed()
        packet, call = await new.next(records.ToolCall)
        assert packet.sequence == 2
        await new.send("s", records.ToolResult("t", "1", call.call_id, "OK"))


async def test_at_a_drain_by_age_running_sessions_end_where_they_are(dispatcher: FakeDispatcher) -> None:
    puppet = Puppet()
    async with serving(dispatcher, puppet, capacity=2):
        old = await begin(dispatcher)
        await old.send("", records.Drain("age"))
        new = await dispatcher.peer()
        status = await new.status()
        assert (status.free_slots, status.running) == (1, (records.Running("s", 1),))
        puppet.say("a")
        await old.next(records.Content)
        puppet.finish()
        packet, _ = await old.next(records.Content)
        await old.send("s", records.Ack(packet.sequence))
        await old.half_closed()
        assert new.packets.empty()


async def test_a_dispatcher_that_drains_over_and_over_is_asked_slower_and_slower(
    dispatcher: FakeDispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures: list[int] = []

    def backoff(number: int) -> float:
        failures.append(number)
        return 0.0

    monkeypatch.setattr(worker, "backoff", backoff)
    async with serving(dispatcher, chatter):
        for _ in range(4):
            peer = await dispatcher.peer()
            await peer.send("", records.Drain("age"))
        await dispatcher.peer()
    assert failures[:3] == [2, 3, 4], "the first to drain may be a replica that leaves"


async def test_there_is_never_a_third_stream(dispatcher: FakeDispatcher) -> None:
    puppet = Puppet()
    async with serving(dispatcher, puppet):
        oldest = await begin(dispatcher)
        await oldest.send("", records.Drain("age"))
        old = await dispatcher.peer()
        await old.send("", records.Drain("age"))
        await oldest.half_closed()
        new = await dispatcher.peer()
        await new.welcome("s", sequence=0)
        puppet.say("moved")
        await new.next(records.Content)


async def test_a_replica_that_leaves_later_moves_its_sessions_to_the_stream_for_work(
    dispatcher: FakeDispatcher,
) -> None:
    puppet = Puppet()
    async with serving(dispatcher, puppet):
        old = await begin(dispatcher)
        await old.send("", records.Drain("age"))
        new = await dispatcher.peer()
        await new.status()
        await old.send("", records.Drain("leaving"))
        await new.welcome("s", sequence=0)
        await old.half_closed()


async def test_what_a_drained_stream_carried_when_it_broke_moves_to_the_one_for_work(
    dispatcher: FakeDispatcher,
) -> None:
    puppet = Puppet()
    async with serving(dispatcher, puppet):
        old = await begin(dispatcher)
        await old.send("", records.Drain("age"))
        new = await dispatcher.peer()
        await new.status()
        old.end(grpc.StatusCode.UNAVAILABLE)
        await new.welcome("s", sequence=0)
        puppet.say("on")
        await new.next(records.Content)


async def test_a_session_welcomed_by_a_replica_that_leaves_moves_on(dispatcher: FakeDispatcher) -> None:
    puppet = Puppet()
    async with serving(dispatcher, puppet):
        old = await dispatcher.peer()
        await old.assign("s")
        await old.next(records.Open)
        await old.send("", records.Drain("leaving"))
        new = await dispatcher.peer()
        await new.status()
        await old.send("s", records.Welcome(0, 256, 262144))
        await new.welcome("s", sequence=0)
        await old.half_closed()
        puppet.say("on")
        await new.next(records.Content)


async def test_where_nobody_else_answers_the_session_goes_on_over_the_draining_stream(
    dispatcher: FakeDispatcher,
) -> None:
    puppet = Puppet()
    async with serving(dispatcher, puppet):
        old = await begin(dispatcher)
        await old.send("", records.Drain("leaving"))
        for _ in range(3):
            (await dispatcher.peer()).end(grpc.StatusCode.UNAVAILABLE)
        puppet.say("a")
        await old.next(records.Content)


# ---- leaving


async def test_a_leaving_commander_lets_its_sessions_finish(dispatcher: FakeDispatcher) -> None:
    puppet = Puppet()
    async with serving(dispatcher, puppet) as commander:
        peer = await begin(dispatcher)
        await soon(puppet.started.wait())
        commander.worker.leave()
        await peer.status(free_slots=0)
        puppet.say("to the end")
        puppet.finish()
        text, packet, _ = await peer.until(records.Content)
        assert text == "to the end"
        await peer.send("s", records.Ack(packet.sequence))
        await peer.half_closed()
        peer.end()
        await soon(commander.task)


@pytest.mark.parametrize("hurried", [False, True])
async def test_at_the_end_of_its_time_it_hands_them_over(dispatcher: FakeDispatcher, hurried: bool) -> None:
    puppet = Puppet()
    async with serving(dispatcher, puppet, drain_seconds=30 if hurried else 0.01) as commander:
        peer = await begin(dispatcher)
        await soon(puppet.started.wait())
        puppet.say("a")
        await peer.next(records.Content)
        commander.worker.leave()
        if hurried:
            commander.worker.leave()
        packet, error = await peer.next(records.Error)
        assert error.retryable
        await soon(puppet.ended.wait())
        await peer.send("s", records.Ack(packet.sequence))
        await peer.half_closed()
        peer.end()
        await soon(commander.task)


async def test_an_assignment_that_crosses_its_leaving_is_given_back_unbegun(dispatcher: FakeDispatcher) -> None:
    puppet = Puppet()
    async with serving(dispatcher, puppet) as commander:
        peer = await begin(dispatcher)
        commander.worker.leave()
        await peer.status(free_slots=0)
        await peer.assign("t")
        await peer.welcome("t")
        packet, error = await peer.next(records.Error)
        assert (packet.session_id, packet.sequence, error.retryable) == ("t", 1, True)
        assert len(puppet.turns) == 1
        await peer.send("t", records.Ack(1))
        await peer.status(running=(records.Running("s", 1),))


async def test_an_assignment_that_comes_after_all_is_no_agent_that_did_not_stop(dispatcher: FakeDispatcher) -> None:
    async with serving(dispatcher, Puppet()) as commander:
        peer = await dispatcher.peer()
        await peer.status()
        commander.worker.leave()
        await peer.half_closed()
        await peer.assign("t")
        peer.end()
        await soon(commander.task)
        assert commander.worker.still_running == 0


async def test_it_leaves_at_once_where_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "GIVE_BACK_SECONDS", 0.01)
    async with FakeDispatcher().serving() as dispatcher:
        pass
    async with serving(dispatcher, brief) as commander:
        commander.worker.leave()
        await soon(commander.task)
