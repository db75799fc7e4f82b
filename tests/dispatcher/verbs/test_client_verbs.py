"""`dispatcher chat`, `sessions` and `health`, as processes or calls against a gateway in this process."""

import argparse
import asyncio
import json
import os
import pty
import re
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from pathlib import Path
from types import ModuleType

import httpcore2
import pytest
from cryptography import x509
from prometheus_client import CollectorRegistry

from dispatcher.access.rules import AccessRules, CertificateRule
from dispatcher.access.watch import Access
from dispatcher.gateway.app import operator_app, user_app
from dispatcher.gateway.server import HttpServer, bind
from dispatcher.metrics import Metrics
from dispatcher.settings import DispatcherSettings
from dispatcher.verbs import chat, client, health
from dispatcher.verbs import main as cli
from dispatcher.verbs import sessions as operator_cli
from dispatcher.verbs.servers import base_url
from shared.config import load
from shared.errors import ConfigError
from shared.records import Message
from shared.tls import read
from tests.certificates import Authority
from tests.dispatcher.gateway.fakes import FakeSessions, eventually


@pytest.fixture
async def sessions() -> FakeSessions:
    return FakeSessions()


@pytest.fixture
async def urls(sessions: FakeSessions) -> AsyncIterator[tuple[str, str]]:
    """The users' and the operators'."""
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    apps = (
        user_app(sessions, DispatcherSettings(), metrics, Access(None)),
        operator_app(sessions, registry, metrics, Access(None)),
    )
    servers = [HttpServer(app, bind("TEST", "127.0.0.1:0")) for app in apps]
    for server in servers:
        await server.start()
    yield f"http://127.0.0.1:{servers[0].port}", f"http://127.0.0.1:{servers[1].port}"
    sessions.closing.set()
    for server in servers:
        await server.close()


async def call(module: ModuleType, *arguments: str) -> int:
    """The verb in a thread, for it blocks."""
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    status: int = await asyncio.to_thread(module.run, parser.parse_args(arguments))
    return status


async def test_chat_streams_one_answer(
    urls: tuple[str, str], sessions: FakeSessions, capfd: pytest.CaptureFixture[str]
) -> None:
    sessions.offered.append("mine")
    asking = asyncio.create_task(call(chat, "--url", urls[0], "--agent", "mine", "How are you?"))
    commander = await sessions.begin(await sessions.created.get())
    await commander.think("SECRET")
    await commander.say("Fine, ")
    await commander.call()
    await commander.answer(status="TIMEOUT")
    await commander.say("thanks.")
    await commander.finish()
    assert await asking == 0
    out, err = capfd.readouterr()
    assert out == "Fine, thanks.\n"
    assert "[search …]" in err
    assert "[search: TIMEOUT]" in err
    record = await sessions.store.load(commander.session_id)
    assert record
    assert record.request.agent == "mine"
    assert record.request.messages == (Message("user", "How are you?"),)


async def test_chat_survives_a_broken_connection(
    urls: tuple[str, str], sessions: FakeSessions, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(client, "RECONNECT_SECONDS", 0.01)
    sessions.closing.set()  # every stream ends as soon as it has to wait
    asking = asyncio.create_task(call(chat, "--url", urls[0], "hi"))
    commander = await sessions.begin(await sessions.created.get())
    printed = ["", ""]

    def out() -> str:
        for number, text in enumerate(capfd.readouterr()):
            printed[number] += text
        return printed[0]

    for n in range(5):
        await commander.say(f"<{n}>")
        await eventually(lambda: out().endswith(f"<{n}>"))  # noqa: B023
    sessions.closing.clear()
    await commander.fail("commander_lost", "SECRET")
    assert await asking == 1
    assert out() == "<0><1><2><3><4>\n"
    assert printed[1] == "failed: commander_lost: The agent was lost before it had finished.\n"


async def start(*arguments: str, stdin: int = PIPE) -> Process:
    code = f"import argparse, sys; from dispatcher.verbs import {arguments[0]} as v; p = argparse.ArgumentParser(); "
    code += "v.add_arguments(p); sys.exit(v.run(p.parse_args()))"
    return await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, *arguments[1:], stdin=stdin, stdout=PIPE, stderr=PIPE
    )


async def test_ctrl_c_stops_the_generation(urls: tuple[str, str], sessions: FakeSessions) -> None:
    process = await start("chat", "--url", urls[0], "hi")
    assert process.stdout
    async with asyncio.timeout(20):
        commander = await sessions.begin(await sessions.created.get())
        await commander.say("so far")
        assert await process.stdout.readexactly(6) == b"so far"
        process.send_signal(signal.SIGINT)
        assert await sessions.stops.get() == (commander.session_id, "UserCancel", "user", "")
        out, err = await process.communicate()
    assert (out, err) == (b"\n", b"stopped: UserCancel\n")
    assert process.returncode == 3


async def test_a_conversation_on_a_terminal(urls: tuple[str, str], sessions: FakeSessions) -> None:
    ours, theirs = pty.openpty()
    process = await start("chat", "--url", urls[0], stdin=theirs)
    os.close(theirs)
    async with asyncio.timeout(20):
        os.write(ours, b"one\n")
        first = await sessions.begin(await sessions.created.get())
        await first.say("eins")
        await first.finish()
        os.write(ours, b"two\n")
        second = await sessions.begin(await sessions.created.get())
        await second.say("zwei")
        await second.finish()
        os.write(ours, b"\x04")
        out, _ = await process.communicate()
    os.close(ours)
    assert process.returncode == 0
    assert b"eins\n" in out
    assert b"zwei\n" in out
    record = await sessions.store.load(second.session_id)
    assert record
    assert record.request.messages == (Message("user", "one"), Message("assistant", "eins"), Message("user", "two"))
    assert record.request.conversation_id


async def test_a_server_that_is_not_there(capfd: pytest.CaptureFixture[str]) -> None:
    with bind("X", "127.0.0.1:0") as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    assert await call(chat, "--url", url, "hi") == 1
    assert await call(operator_cli, "--url", url, "watch", "x") == 1
    assert await call(health, "--url", url) == 1
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 3
    assert all(f"cannot reach {url}" in line for line in lines)


async def test_health(urls: tuple[str, str], sessions: FakeSessions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPATCHER_HTTP_ADDRESS", urls[0].removeprefix("http://"))
    assert await call(health) == 0
    sessions.troubles = ["draining"]
    assert await call(health) == 1


async def test_no_proxy_stands_before_its_own_server(urls: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an address that others have too, as a container has one."""
    monkeypatch.setattr(health, "is_local", lambda url: False)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("DISPATCHER_HTTP_ADDRESS", urls[0].removeprefix("http://"))
    assert await call(health) == 0
    assert await call(health, "--url", urls[0]) == 1


async def test_operators_list_watch_and_stop(
    urls: tuple[str, str], sessions: FakeSessions, capfd: pytest.CaptureFixture[str]
) -> None:
    url = urls[1]
    commander = await sessions.begin()
    assert await call(operator_cli, "--url", url, "list") == 0
    head, line = capfd.readouterr().out.splitlines()
    assert head.split() == ["SESSION", "STATE", "AGENT", "FOR", "COMMANDER", "ENTRIES"]
    *begins, age, member, entries = line.split()
    assert (*begins, member, entries) == (commander.session_id, "running", "default", "commander", "1")
    assert re.fullmatch(r"\d+s", age)

    watching = asyncio.create_task(call(operator_cli, "--url", url, "watch", commander.session_id))
    await commander.think("line one\nline two \x1b[31m")
    await commander.say("text")
    assert await call(operator_cli, "--url", url, "stop", commander.session_id, "--detail", "enough") == 0
    await commander.halted()
    assert await watching == 0
    out = capfd.readouterr().out
    assert "stopped: RiskControl" in out  # its end of line may come after one of what is watched
    assert r'step_name="Planning"  delta="line one\nline two \u001b[31m"' in out
    assert 'released="text"  text="text"' in out
    assert 'detail="enough"' in out
    assert "\x1b" not in out

    for asked, count in (
        (("--agent", "default"), 1),
        (("--agent", "other"), 0),
        (("--reason", "RiskControl"), 1),
        (("--reason", "UserCancel"), 0),
        (("--conversation", "thread 7"), 0),
        (("--since", "1h"), 1),
    ):
        assert await call(operator_cli, "--url", url, "list", "--state", "stopped", "--json", *asked) == 0
        assert len(capfd.readouterr().out.splitlines()) == count, asked
    for wrong in (("--since", "yesterday"), ("--limit", "0")):
        with pytest.raises(SystemExit):
            await call(operator_cli, "--url", url, "list", *wrong)
        assert "must be" in capfd.readouterr().err

    assert await call(operator_cli, "--url", url, "list", "--state", "stopped", "--json") == 0
    assert json.loads(capfd.readouterr().out)["session_id"] == commander.session_id
    assert await call(operator_cli, "--url", url, "watch", commander.session_id, "--json") == 0
    kinds = [json.loads(line)["event"] for line in capfd.readouterr().out.splitlines()]
    assert kinds == ["assigned", "thought", "content", "stop", "stopped"]
    assert await call(operator_cli, "--url", url, "stop", "nope") == 1
    assert "No such session." in capfd.readouterr().err


@pytest.mark.usefixtures("logs_restored")
@pytest.mark.parametrize(
    "verb",
    [["sessions", "stop", "none"], ["holds", "lift", "none"], ["approvals", "approve", "none", "call", "0" * 64]],
)
async def test_where_and_what_is_shown_may_stand_on_either_side_of_the_verb(
    urls: tuple[str, str], verb: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The one after it counts."""
    key = tmp_path / "ops.key"
    key.write_text("mst_key")
    where, shown, nowhere = ["--url", urls[1]], ["--key-file", str(key)], ["--url", "http://127.0.0.1:1"]
    name, *rest = verb
    for words in (
        [name, *where, *shown, *rest],
        [name, *rest, *where, *shown],
        [name, *shown, *rest, *where],
        [name, *nowhere, *rest, *where],
    ):
        assert await asyncio.to_thread(cli.main, words) == 1
        assert "No such" in capfd.readouterr().err
    assert await asyncio.to_thread(cli.main, [name, *where, *rest, "--key-file", str(tmp_path / "none")]) == 2
    assert "none cannot be read" in capfd.readouterr().err


@pytest.mark.usefixtures("logs_restored")
@pytest.mark.parametrize(
    "verb", [["sessions", "watch"], ["sessions", "stop"], ["policy", "replay", "RULES", "--session"]]
)
async def test_a_session_s_id_may_begin_with_a_dash(
    urls: tuple[str, str], verb: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    rules = tmp_path / "rules.toml"
    rules.touch()
    words = [str(rules) if word == "RULES" else word for word in verb]
    words[1:1] = ["--url", urls[1]] if words[0] == "sessions" else []
    words[3:3] = ["--url", urls[1]] if words[0] == "policy" else []
    assert await asyncio.to_thread(cli.main, [*words, "-" + 31 * "a"]) == 1
    assert capfd.readouterr().err.endswith(": No such session.\n")


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("127.0.0.1:80", "http://127.0.0.1:80"),
        ("0.0.0.0:8080", "http://127.0.0.1:8080"),
        ("[::]:8080", "http://[::1]:8080"),
        ("dispatcher:8080", "http://dispatcher:8080"),
    ],
)
def test_where_a_client_reaches_it(address: str, url: str) -> None:
    assert base_url(address) == url


async def test_health_as_a_command(urls: tuple[str, str], sessions: FakeSessions) -> None:
    """It runs every few seconds in each container: without what the server imports, which takes a second of a core."""
    url, _ = urls
    script = (
        "import sys; from dispatcher.__main__ import main\n"
        "try: main()\nfinally: print(*(name for name in sys.modules if name.startswith(('dispatcher', 'grpc',"
        " 'starlette', 'uvicorn', 'httpx', 'pydantic'))))"
    )

    async def ask(*arguments: str) -> tuple[int | None, set[str]]:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", script, "health", *arguments, stdout=PIPE, stderr=PIPE
        )
        output, _ = await process.communicate()
        return process.returncode, set(output.decode().split())

    own = {"__main__", "verbs", "verbs.health", "verbs.servers"}
    needed = {"dispatcher", *(f"dispatcher.{name}" for name in own)}
    assert await ask("--url", url) == (0, needed)
    sessions.troubles = ["draining"]
    assert await ask("--url", url) == (1, needed)
    assert (await ask("--nonsense"))[0] == 2


@pytest.mark.parametrize("name", ["DISPATCHER_HTTP_ADDRESS", "dispatcher_http_address"])
@pytest.mark.parametrize("value", ["", "0.0.0.0:81", "[::1]:82", "nowhere", "a:99999"])
def test_health_reads_its_one_setting_as_all_are_read(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    try:
        expected = base_url(load(DispatcherSettings).http_address)
    except ConfigError as error:
        with pytest.raises(ConfigError, match=re.escape(str(error).partition(": ")[2])):
            health.configured_url()
    else:
        assert health.configured_url() == expected


@pytest.mark.parametrize("shown", ["own", "other"])
async def test_health_knows_the_certificate_of_its_own_server(
    sessions: FakeSessions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shown: str
) -> None:
    """And no other of the same authority, whose certificate stands in the file behind it."""
    authority = Authority(tmp_path)
    files = {name: authority.issue(name) for name in ("own", "other")}
    own = files["own"].cert
    own.write_bytes(own.read_bytes() + authority.ca.read_bytes())
    context = read(files[shown].cert, files[shown].key).server_context()
    users = user_app(sessions, DispatcherSettings(), Metrics(CollectorRegistry()), Access(None))
    server = HttpServer(users, bind("TEST", "127.0.0.1:0"), tls=lambda: context)
    await server.start()
    monkeypatch.setenv("DISPATCHER_HTTP_ADDRESS", f"127.0.0.1:{server.port}")
    monkeypatch.setenv("DISPATCHER_HTTP_TLS__CERT", str(own))
    assert await call(health) == (0 if shown == "own" else 1)
    await server.close()


async def test_an_operators_certificate_is_shown(
    sessions: FakeSessions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Instead of a key, also one of the environment's; to a server that is named, and to that of one's own settings."""
    authority = Authority(tmp_path)
    edge = authority.issue("edge")
    own = authority.issue("ops", x509.UniformResourceIdentifier("spiffe://acme/operator/1"))
    context = read(edge.cert, edge.key, authority.ca).server_context()
    rules = AccessRules(certificates=(CertificateRule("spiffe://acme/operator/*", "operator"),))
    registry = CollectorRegistry()
    operators = operator_app(sessions, registry, Metrics(registry), Access(rules))
    server = HttpServer(operators, bind("TEST", "127.0.0.1:0"), tls=lambda: context)
    await server.start()
    monkeypatch.setattr(httpcore2, "default_ssl_context", lambda **_: authority.client())
    monkeypatch.setenv("DISPATCHER_KEY", "mst_none")
    monkeypatch.setenv("DISPATCHER_OPERATOR_ADDRESS", f"127.0.0.1:{server.port}")
    monkeypatch.setenv("DISPATCHER_OPERATOR_TLS__CERT", str(edge.cert))
    monkeypatch.setenv("DISPATCHER_OPERATOR_TLS__KEY", str(edge.key))
    commander = await sessions.begin()
    shown = ("--cert", str(own.cert), "--key", str(own.key))
    for where in (("--url", f"https://localhost:{server.port}"), ()):
        assert await call(operator_cli, *where, *shown, "list") == 0
        assert commander.session_id in capfd.readouterr().out
        assert await call(operator_cli, *where, "list") == 1
    sessions.closing.set()
    await server.close()


@pytest.mark.parametrize(
    ("shown", "fault"),
    [
        (("--cert", "ops.pem"), "--cert and --key have to be given together"),
        (("--cert", "none.pem", "--key", "ops.key"), "none.pem: no such file"),
        (
            ("--cert", "ops.pem", "--key", "other.key"),
            "other.key: not an unencrypted key in PEM, or not that of ops.pem",
        ),
        (("--cert", "ops.pem", "--key", "ops.key"), "a certificate is shown over https, and http://127.0.0.1:1 is not"),
        (("--cert", "ops.pem", "--key", "ops.key", "--key-file", "x"), "either --key-file or --cert"),
    ],
)
async def test_a_certificate_that_cannot_be_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shown: tuple[str, ...], fault: str
) -> None:
    monkeypatch.chdir(tmp_path)
    authority = Authority(Path())
    authority.issue("ops")
    authority.issue("other")
    with pytest.raises(ConfigError, match=re.escape(fault)):
        await call(operator_cli, "--url", "http://127.0.0.1:1", *shown, "list")


@pytest.mark.parametrize("content", [b"", b"no PEM", b"\xff", None])
async def test_health_with_a_certificate_that_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None
) -> None:
    file = tmp_path / "own.pem"
    if content is not None:
        file.write_bytes(content)
    monkeypatch.setenv("DISPATCHER_HTTP_TLS__CERT", str(file))
    with pytest.raises(ConfigError, match=f"^{file}: cannot be read as a certificate: "):
        await call(health)


@pytest.mark.parametrize("name", ["DISPATCHER_KEY", "dispatcher_key"])
async def test_what_is_no_key_is_refused_and_not_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    monkeypatch.setenv(name, "mst_two words")
    with pytest.raises(ConfigError, match=r"^DISPATCHER_KEY: is no key as `dispatcher keys new` prints it$"):
        await call(chat, "hi")
    (tmp_path / "key").write_text("\n")
    with pytest.raises(ConfigError, match=r"^--key-file: is no key as"):
        await call(chat, "--key-file", str(tmp_path / "key"), "hi")


@pytest.mark.parametrize("url", ["http://127.0.0.1:x", "http://[::1"])
@pytest.mark.parametrize("key", ["", "mst_secret"])
async def test_what_is_no_url(monkeypatch: pytest.MonkeyPatch, url: str, key: str) -> None:
    monkeypatch.setenv("DISPATCHER_KEY", key)
    with pytest.raises(ConfigError, match=re.escape(f"--url: {url} is none: ")):
        await call(chat, "--url", url, "hi")


@pytest.mark.parametrize("url", ["file:///etc", "nowhere", "http://127.0.0.1:x", "http://[::1"])
async def test_health_of_what_is_no_server(url: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert await call(health, "--url", url) == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"dispatcher health: cannot reach {url}: ")
