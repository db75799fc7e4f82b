"""The pages' files; what they do, tests/e2e/test_user_page.py has a real browser show."""

import re
from pathlib import Path

import httpx2
import pytest

from dispatcher.gateway import pages
from dispatcher.settings import DispatcherSettings
from tests.shared.documents import ROOT

WWW = ROOT / "dispatcher/gateway/www"
FILES = sorted(WWW.iterdir())


async def test_the_users_page_and_what_it_loads(http: httpx2.AsyncClient) -> None:
    page = await http.get("/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    for path in re.findall(r'(?:href|src)="(page/[^"]+)"', page.text):
        answer = await http.get(f"/{path}")
        assert answer.status_code == 200, path
        assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert (await http.get("/page/user.js")).headers["content-type"] == "text/javascript; charset=utf-8"


@pytest.mark.parametrize("name", ["nothing", "..%2Fpages.py", "user.html%00", "console.js"])
async def test_no_other_file_is_shown(http: httpx2.AsyncClient, name: str) -> None:
    answer = await http.get(f"/page/{name}")
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
    shown = {path.rpartition("/")[2] for page in (pages.user_page(),) for path in page.paths}
    assert {file.name for file in FILES if file.suffix != ".html"} == shown - {""}
