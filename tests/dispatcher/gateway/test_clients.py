"""Clients that others wrote, as programs: curl, and Java's HttpClient, which offers h2c with its first request."""

import asyncio
import json
import shutil
from pathlib import Path

import pytest

from tests.dispatcher.gateway.fakes import FakeSessions
from tests.programs import need

JAVA = """
import java.net.URI;
import java.net.http.*;

public class Ask {
    public static void main(String[] arguments) throws Exception {
        HttpClient client = HttpClient.newHttpClient();
        for (int n = 0; n < 2; n++) {
            HttpRequest request = HttpRequest.newBuilder(URI.create(arguments[0] + "/v1/sessions"))
                .POST(HttpRequest.BodyPublishers.ofString("{\\"prompt\\": \\"asked by Java\\"}")).build();
            HttpResponse<String> answer = client.send(request, HttpResponse.BodyHandlers.ofString());
            System.out.println(answer.statusCode() + " " + answer.body());
        }
    }
}
"""


async def run(*command: str) -> str:
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    async with asyncio.timeout(60):
        out, _ = await process.communicate()
    assert process.returncode == 0
    return out.decode()


@pytest.mark.skipif(not shutil.which("java"), reason="no Java here")
async def test_javas_client(url: str, sessions: FakeSessions, tmp_path: Path) -> None:
    source = tmp_path / "Ask.java"
    source.write_text(JAVA)
    for line in (await run("java", str(source), url)).splitlines():
        status, _, body = line.partition(" ")
        assert status == "201", line
        record = await sessions.store.load(json.loads(body)["session_id"])
        assert record
        assert record.request.messages[0].content == "asked by Java"


CURL = ("curl", "-sS", "--max-time", "30")
JSON = ("-H", "Content-Type: application/json")


@pytest.mark.parametrize("version", ["--http1.0", "--http1.1", "--http2"])
async def test_curl(url: str, sessions: FakeSessions, version: str) -> None:
    need("curl")
    made = await run(*CURL, version, f"{url}/v1/sessions", *JSON, "-d", '{"prompt": "hi"}')
    commander = await sessions.begin(json.loads(made)["session_id"])
    reading = asyncio.create_task(run(*CURL, version, "-N", f"{url}/v1/sessions/{commander.session_id}/events"))
    await commander.say("Hello, ", "world")
    await commander.finish()
    text = "".join(json.loads(line[6:]).get("text", "") for line in (await reading).splitlines() if "data:" in line)
    assert text == "Hello, world"


async def test_curl_gets_the_refusal_of_a_body_that_is_too_large(url: str, tmp_path: Path) -> None:
    need("curl")
    large = tmp_path / "large"
    large.write_bytes(b" " * 30_000_000)
    answer = await run(*CURL, f"{url}/v1/sessions", *JSON, "-H", "Expect:", "--data-binary", f"@{large}")
    assert json.loads(answer)["error"]["code"] == "body_too_large"
