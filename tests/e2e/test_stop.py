"""The scenario that all this is for: a generation of 5,000 tokens, cut in the third second."""

import time

import httpx2

from tests.e2e.agents import word
from tests.e2e.reading import Reader, ask
from tests.e2e.test_kill import wait_until
from tests.programs import commander, dispatcher

TOKENS, SECONDS, CUT_AFTER = 5000, 0.005, 3.0


def test_five_thousand_tokens_are_cut_in_the_third_second(tmp_path):
    made = tmp_path / "made"
    with (
        dispatcher(tmp_path / "d.log") as server,
        commander(server.grpc, tmp_path / "c.log", "tests.e2e.agents:counting"),
    ):
        url = f"http://{server.http}"
        reader = Reader(url, ask(url, tokens=TOKENS, seconds=SECONDS, made=str(made)))
        wait_until(lambda: reader.text)
        time.sleep(CUT_AFTER)  # the scenario's own time
        stopped_at = time.time()
        assert httpx2.post(f"{url}/v1/sessions/{reader.session}/stop").status_code == 202
        reader.ended(60)
        assert reader.final == ("stopped", {"reason": "UserCancel"})
        wait_until(made.exists)
        wait_until(lambda: made.read_text().count(" "))
        number, cancelled_at = made.read_text().split()
        said = reader.text.split()
        assert reader.text == "".join(map(word, range(len(said)))), "words lost or repeated before the stop"
        # What was not generated is the point: most of the 5,000, and nothing to speak of after the stop.
        assert int(number) < TOKENS / 2
        assert int(number) - len(said) < TOKENS / 10, "bounded, not timed: the benchmark measures it"
        assert float(cancelled_at) > stopped_at

        def told(figure: str) -> bool:
            return figure in httpx2.get(f"http://{server.operator}/metrics").text

        assert told('dispatcher_stops_total{reason="UserCancel"} 1.0')
        wait_until(lambda: told('dispatcher_stop_seconds_count{stage="halted"} 1.0'))
        print(f"{TOKENS - int(number)} of {TOKENS} tokens not generated; {int(number) - len(said)} after the last seen")


def test_a_rule_cuts_it_too_and_nothing_of_the_phrase_gets_out(tmp_path):
    policies = tmp_path / "policies.toml"
    policies.write_text('[[policy]]\nname = "w"\nkind = "phrases"\nphrases = ["W77 w78 w79"]\n')
    with (
        dispatcher(tmp_path / "d.log", policies=str(policies)) as server,
        commander(server.grpc, tmp_path / "c.log", "tests.e2e.agents:counting"),
    ):
        url = f"http://{server.http}"
        reader = Reader(url, ask(url, tokens=TOKENS, seconds=SECONDS)).ended(60)
        assert reader.final == ("stopped", {"reason": "PolicyViolation"})
        assert reader.text == "".join(map(word, range(77)))
