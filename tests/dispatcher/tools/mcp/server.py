"""A server over stdio that says what its tools' names tell it to, and notes what it saw in a file.

`python server.py SEEN`; a line of SEEN is a call's name and idempotency key, or `cancelled` and the call's name.
"""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

TOOLS = [
    "echo", "failing", "structured", "silent", "dies", "huge_id_first", "huge_id_last", "asks", "floods", "changes",
    "nan", "other", "stderr", "refused", "garbage", "deafens",
]  # fmt: skip
seen = Path(sys.argv[1])
calls: dict[int, str] = {}
extra: list[str] = []


def say(**message: Any) -> None:
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


def note(line: str) -> None:
    with seen.open("a") as file:
        file.write(line + "\n")


def text(identity: int, words: str) -> None:
    say(id=identity, result={"content": [{"type": "text", "text": words}]})


def called(identity: int, name: str, arguments: dict[str, Any]) -> None:
    match name:
        case "echo":
            text(identity, json.dumps(arguments))
        case "failing":
            say(id=identity, result={"content": [{"type": "text", "text": "no such city"}], "isError": True})
        case "structured":
            say(id=identity, result={"content": [], "structuredContent": {"sum": 3}})
        case "dies":
            os._exit(1)
        case "deafens":
            os.close(0)
            os.closerange(3, 100)  # uvloop gives a child its stdin twice
            note("deaf")
            signal.pause()
        case "huge_id_first":
            text(identity, "x" * 20_000_000)
        case "huge_id_last":
            sys.stdout.write('{"result":{"content":[{"type":"text","text":"' + "x" * 20_000_000 + '"}]},')
            sys.stdout.write(f'"jsonrpc":"2.0","id":{identity}}}\n')
            sys.stdout.flush()
        case "asks":
            for number, method in enumerate(("sampling/createMessage", "elicitation/create", "roots/list")):
                params = {"messages": [], "maxTokens": 1} if number == 0 else {"message": "?", "requestedSchema": {}}
                say(id=f"ask{number}", method=method, params=params)
        case "floods":
            for number in range(5000):
                say(method="notifications/message", params={"level": "info", "data": f"{number}"})
            text(identity, "flooded")
        case "changes":
            extra.append("late")
            say(method="notifications/tools/list_changed")
            text(identity, "changed")
        case "nan":
            say(id=identity, result={"content": [], "structuredContent": {"a": float("nan")}})
        case "other":
            text(999_999, "somebody else's")
            text(identity, "mine")
        case "stderr":
            sys.stderr.write("secret\n" * 200_000)
            text(identity, "said")
        case "refused":
            say(id=identity, error={"code": -32602, "message": "unknown city"})
        case "garbage":
            sys.stdout.write("Hello!\n{}\n[]\n\xff\n" + "[" * 100_000 + "\n")
            text(identity, "none the less")


def main() -> None:
    refusals = 0
    for line in sys.stdin:
        message = json.loads(line)
        identity, method, params = message.get("id"), message.get("method"), message.get("params") or {}
        match method:
            case "initialize":
                capabilities = {"tools": {"listChanged": True}}
                information = {"name": "scripted", "version": "1"}
                result = {"protocolVersion": "2025-06-18", "capabilities": capabilities, "serverInfo": information}
                say(id=identity, result=result)
            case "tools/list":
                names = TOOLS + extra
                say(
                    id=identity, result={"tools": [{"name": name, "inputSchema": {"type": "object"}} for name in names]}
                )
            case "tools/call":
                calls[identity] = params["name"]
                note(f"{params['name']} {params['_meta']['idempotency-key']} {params['_meta']['traceparent']}")
                called(identity, params["name"], params.get("arguments") or {})
            case "notifications/cancelled":
                note(f"cancelled {calls.get(params['requestId'])}")
            case None:
                refusals += "error" in message
                if refusals % 3 == 0:
                    text(max(calls), "refused")
            case _ if identity is not None:
                say(id=identity, error={"code": -32601, "message": "no such method"})


main()
