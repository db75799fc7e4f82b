"""The pages' files; what they do, a real browser shows (tests/e2e/test_user_page.py, test_console.py)."""

import re
from pathlib import Path

import httpx2
import pytest

from dispatcher.gateway import pages
from dispatcher.settings import DispatcherSettings
from tests.shared.documents import ROOT

WWW = ROOT / "dispatcher/gateway/www"
FILES = sorted(WWW.iterdir())


@pytest.fixture(params=["users", "operators"])
def client(
    request: pytest.FixtureRequest, http: httpx2.AsyncClient, operator: httpx2.AsyncClient
) -> httpx2.AsyncClient:
    return http if request.param == "users" else operator


async def test_a_page_and_what_it_loads(client: httpx2.AsyncClient) -> None:
    page = await client.get("/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    found = set(re.findall(r'(?:href|src)="page/([^"]+)"', page.text))
    assert found
    for name in found:
        answer = await client.get(f"/page/{name}")
        assert answer.status_code == 200
        assert answer.headers["content-type"].partition(";")[0] in ("text/css", "text/javascript")
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        # All are asked for at once: none waits until whoever imports it is there.
        assert set(re.findall(r'from "\./([^"]+)"', answer.text)) <= found


@pytest.mark.parametrize("name", ["nothing", "..%2Fpages.py", "user.html%00", "text.js/"])
async def test_no_other_file_is_shown(client: httpx2.AsyncClient, name: str) -> None:
    answer = await client.get(f"/page/{name}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


async def test_who_asks_for_json_is_told_what_this_is(http: httpx2.AsyncClient) -> None:
    assert (await http.get("/", headers={"Accept": "application/json"})).json()["openai_base_url"] == "/v1"
    both = {"Accept": "text/html,application/json;q=0.9"}
    assert (await http.get("/", headers=both)).headers["content-type"].startswith("text/html")


class TestWithoutThePage:
    @pytest.fixture
    def settings(self) -> DispatcherSettings:
        return DispatcherSettings(page=False)

    async def test_it_is_said_what_this_is(self, http: httpx2.AsyncClient) -> None:
        assert (await http.get("/", headers={"Accept": "text/html"})).json()["name"] == "Midsentence Dispatcher"
        assert (await http.get("/page/user.js")).status_code == 404


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.name))
def test_the_files_keep_to_their_policy(file: Path) -> None:
    """What a browser would refuse, and what no page may do with others' text."""
    text = file.read_text()
    assert not re.search(r"\son\w+=|\sstyle=|<style|<script(?! type=\"module\" src=)", text)
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|https?://", text
    )
    imported = re.findall(r'from "\./([^"]+)"', text)
    assert all((WWW / name).is_file() for name in imported)


def test_each_file_is_a_pages() -> None:
    shown = {path.rpartition("/")[2] for page in (pages.user_page(), pages.operator_page()) for path in page.paths}
    assert {file.name for file in FILES if file.suffix != ".html"} == shown - {""}
    assert "/page/console.js" not in pages.user_page().paths
