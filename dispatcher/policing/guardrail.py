"""Guardrails' servers, as they are built for LiteLLM's proxy: its Generic Guardrail API, one POST for a question.

https://docs.litellm.ai/docs/adding_provider/generic_guardrail_api
"""

import msgspec
from httpx2 import AsyncClient, HTTPError, Limits

from dispatcher.policies.questions import Question, UnusableAnswerError, Verdict
from shared import http_environment

PATH = "/beta/litellm_basic_guardrail_api"
MAX_ANSWER_BYTES = 4 * 1024 * 1024
CONNECTIONS = Limits(max_connections=100, max_keepalive_connections=20)
REQUESTED = ("prompt", "results")  # what the model is given; the rest is what it answers


class GuardrailResponse(msgspec.Struct):
    """action: BLOCKED, NONE or GUARDRAIL_INTERVENED. texts, images: what to show instead, one for each that came."""

    action: str
    texts: list[str] | None = None
    images: list[str] | None = None


class Guardrail:
    """Raises ConfigError: the environment's proxy cannot be used."""

    def __init__(self) -> None:
        http_environment.check()
        self._client = AsyncClient(timeout=None, limits=CONNECTIONS)

    async def close(self) -> None:
        await self._client.aclose()

    async def ask(self, question: Question) -> Verdict:
        """Raises UnusableAnswerError."""
        policy = question.policy
        body: dict[str, object] = {
            "texts": question.texts,
            **({"images": question.images} if question.images else {}),
            "request_data": {},
            "input_type": "request" if question.channel in REQUESTED else "response",
            "litellm_call_id": question.session_id,
            "litellm_trace_id": question.session_id,
            "additional_provider_specific_params": msgspec.Raw(policy.parameters_json.encode()),
        }
        headers = {"content-type": "application/json", **dict(policy.headers)}
        try:
            async with self._client.stream(
                "POST", policy.target, content=msgspec.json.encode(body), headers=headers
            ) as response:
                if response.status_code != 200:
                    raise UnusableAnswerError(f"HTTP {response.status_code}")
                received = b""
                async for part in response.aiter_bytes():
                    received += part
                    if len(received) > MAX_ANSWER_BYTES:
                        raise UnusableAnswerError("its answer is too large")
        except HTTPError as error:
            raise UnusableAnswerError(type(error).__name__) from error
        return _verdict(question, received)


def _verdict(question: Question, received: bytes) -> Verdict:
    try:
        answer = msgspec.json.decode(received, type=GuardrailResponse)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise UnusableAnswerError("its answer is not of the Generic Guardrail API") from None
    match answer.action:
        case "NONE":
            return Verdict("pass")
        case "BLOCKED":
            return Verdict("violation")
        case "GUARDRAIL_INTERVENED" if answer.images is not None and tuple(answer.images) != question.images:
            return Verdict("violation")  # no prompt is changed
        case "GUARDRAIL_INTERVENED":
            if answer.texts is None:
                return Verdict("pass")
            if len(answer.texts) != len(question.texts):
                raise UnusableAnswerError("its answer has another number of texts")
            return Verdict("replace", tuple(answer.texts))
    raise UnusableAnswerError("its answer has an unknown action")
