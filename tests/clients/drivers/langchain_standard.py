"""LangChain's own suite for chat models, over both routes: pytest runs it in the clients' environment.

`CLIENTS_URL` says where.
"""

import base64
import os
from typing import Any

import httpx
import pytest
from langchain_core.language_models import BaseChatModel
from langchain_openai import ChatOpenAI
from langchain_tests.integration_tests import ChatModelIntegrationTests

from tests.clients.drivers.driver import IMAGE


@pytest.fixture(autouse=True)
def nothing_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    """The suite takes its images and files from the web; here they are ours."""
    content = base64.b64decode(IMAGE.partition(",")[2])
    monkeypatch.setattr(httpx, "get", lambda url, **_: httpx.Response(200, content=content))


class TestChat(ChatModelIntegrationTests):
    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatOpenAI

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {
            "model": "default",
            "base_url": os.environ["CLIENTS_URL"],
            "api_key": "none",
            "max_retries": 0,
            "stream_usage": True,
            "use_responses_api": False,
        }

    @property
    def supports_image_inputs(self) -> bool:
        return True

    @property
    def supports_image_urls(self) -> bool:
        return True

    @property
    def supports_pdf_inputs(self) -> bool:
        return True

    @property
    def supports_json_mode(self) -> bool:
        return True

    @property
    def model_override_value(self) -> str:
        return "default"

    @pytest.mark.xfail(reason="it says its form in words, which an agent without a model cannot read")
    def test_json_mode(self, model: BaseChatModel) -> None:
        super().test_json_mode(model)


class TestResponses(TestChat):
    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {**super().chat_model_params, "use_responses_api": True}
