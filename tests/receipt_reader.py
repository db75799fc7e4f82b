"""A second implementation of what `dispatcher receipt verify` does, written from `docs/receipts.md` alone."""

import hashlib
import math
from typing import Any

import rfc8785
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

Object = dict[str, Any]


def canonical(value: Any) -> bytes:
    def exact(each: Any) -> Any:
        if isinstance(each, dict):
            return {name: exact(inner) for name, inner in each.items()}
        if isinstance(each, list):
            return [exact(inner) for inner in each]
        return str(each) if type(each) is int and abs(each) > 2**53 - 1 else each

    return rfc8785.dumps(exact(value))


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def micros(seconds: float) -> int:
    return round(seconds * 1e6)


def bounded(count: int) -> int:
    return min(count, 2**53 - 1)


def faults(receipt: Object, log: list[Object] | None = None) -> list[str]:
    """The names of the fields that are wrong. log: as `watch --json` prints it, a line each."""
    body = canonical({name: value for name, value in receipt.items() if name not in ("sha256", "signature")})
    right = {
        "format": receipt["format"] == "midsentence-receipt-1",
        "sha256": receipt["sha256"] == sha256(body),
        "signature": receipt["signature"] is None or signs(receipt["signature"], body),
    }
    wrong = [name for name, fits in right.items() if not fits]
    if log is not None:
        told = facts(receipt, log)
        wrong += [name for name in told if told[name] != receipt[name]]
    return wrong


def signs(signature: Object, body: bytes) -> bool:
    try:
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(signature["public_key"]))
        key.verify(bytes.fromhex(signature["value"]), body)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return bool(signature["algorithm"] == "Ed25519")


def facts(receipt: Object, log: list[Object]) -> Object:
    end = next(entry for entry in log if decides(entry))
    stop = end if end["event"] == "stop" else None
    released = "".join(entry["released"] for entry in log)
    return {
        "end": ending(end),
        "stop": stop and stopped(stop, log),
        "tools_in_flight": tools(end, log),
        "tokens": tokens(receipt, log),
        "delivered": {
            "characters": len(released),
            "bytes": len(released.encode()),
            "sha256": sha256(released.encode()),
        },
        "log": {"entries": len(log), "sha256": chained(receipt["session_id"], log)},
    }


def chained(session_id: str, log: list[Object]) -> str:
    digest = hashlib.sha256(session_id.encode()).digest()
    for entry in log:
        given = {name: value for name, value in entry.items() if value not in ("", 0, False, None, [])}
        digest = hashlib.sha256(digest + canonical(given)).digest()
    return digest.hex()


def decides(entry: Object) -> bool:
    kind = entry["event"]
    return kind in ("stop", "finished", "failed") or (kind == "agent_error" and not entry["retryable"])


def ending(end: Object) -> Object:
    kind = end["event"]
    state = {"stop": "stopped", "finished": "finished"}.get(kind, "failed")
    reason = {"stop": "reason", "finished": "finish_reason"}.get(kind, "code")
    detail = "message" if kind == "agent_error" else "detail"
    return {
        "state": state,
        "author": end["author"] if kind == "stop" else "dispatcher" if kind == "failed" else "agent",
        "reason": end[reason],
        "detail": end.get(detail, ""),
        "policy": end.get("policy", ""),
        "character": end["decided"],
        "at": micros(end["at"]),
        "entry": end["offset"],
    }


def stopped(stop: Object, log: list[Object]) -> Object:
    before, after = log[: stop["offset"] - 1], log[stop["offset"] :]
    sent = next((entry for entry in after if entry["event"] == "stop_sent"), None)
    answer = next((entry for entry in after if entry["event"] == "stopped" or agents_end(entry)), None)
    confirmed = answer if answer and answer["event"] == "stopped" else None
    ran = any(entry["event"] == "assigned" or entry["sequence"] for entry in before)
    logged = sum(entry["event"] in ("content", "thought") for entry in after)
    dropped = confirmed["deltas_after_stop"] if confirmed else 0
    halt = "confirmed" if confirmed else "ended" if answer else "unconfirmed" if ran or sent else "never_ran"
    return {
        "stop_id": stop["stop_id"],
        "detected": micros(stop["at"]),
        "logged": micros(sent["logged_at"]) if sent and sent["logged_at"] else None,
        "sent": micros(sent["at"]) if sent else None,
        "halted": micros(answer["at"]) if answer else None,
        "halt": halt,
        "halt_micros": bounded(confirmed["halt_micros"]) if confirmed else None,
        "deltas_logged": logged,
        "deltas_dropped": dropped,
        "tokens_after": logged + dropped,
    }


def agents_end(entry: Object) -> bool:
    return decides(entry) and entry["event"] in ("finished", "agent_error")


def tools(end: Object, log: list[Object]) -> list[Object]:
    results = {entry["call_id"]: entry for entry in log if entry["event"] == "tool_result"}
    started = {entry["call_id"]: entry for entry in log if entry["event"] == "started"}
    found = []
    for entry in log[: end["offset"]]:
        if entry["event"] != "call" or entry["refused"]:
            continue
        call_id, result = entry["call_id"], results[entry["call_id"]]
        if result["offset"] < end["offset"]:
            continue
        begun = started.get(call_id) if entry["approval"] else entry
        found.append(
            {
                "call_id": call_id[:256],
                "tool_name": entry["tool_name"][:256],
                "called": micros(entry["at"]),
                "started": micros(begun["at"]) if begun else None,
                "outcome": result["status"],
                "answered": micros(result["at"]),
            }
        )
    return found


def tokens(receipt: Object, log: list[Object]) -> Object:
    counted = next((entry["usage"] for entry in log if entry["event"] == "finished" and entry["usage"]), None)
    if counted:
        return {
            "prompt": bounded(counted["prompt_tokens"]),
            "completion": bounded(counted["completion_tokens"]),
            "estimated": False,
        }
    written = [entry.get("text") or entry.get("delta", "") for entry in log if entry["event"] in ("content", "thought")]
    said = sum(len(text.encode()) for text in written)
    return {
        "prompt": math.ceil(receipt["prompt"]["bytes"] / 4),
        "completion": math.ceil(said / 4),
        "estimated": True,
    }
