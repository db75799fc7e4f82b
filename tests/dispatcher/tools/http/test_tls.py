import asyncio
import json
import ssl
from pathlib import Path

import pytest

from dispatcher.files.document import FileError
from dispatcher.tools.context import Context
from dispatcher.tools.identity import NOT_AT_HAND
from dispatcher.tools.load import load
from dispatcher.tools.registry import Registry
from tests.dispatcher.tools.http.service import Service, answer
from tests.sockets import listening

TLS = Path(__file__).parent / "tls"


def serving(certificate: str, *, clients: bool = False) -> ssl.SSLContext:
    """clients: only those with a certificate of the same authority."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=TLS / "ca.pem")
    context.load_cert_chain(TLS / certificate)
    context.verify_mode = ssl.CERT_REQUIRED if clients else ssl.CERT_NONE
    return context


async def asked(folder: Path, service: Service, more: str) -> str:
    """OK, or the status and the error's code."""
    file = folder / "tools.toml"
    file.write_text(f'[[tool]]\nname = "x"\nkind = "http"\nurl = "{service.url}/"\nprivate = true\n{more}\n')
    output = await Registry(load(file).tools.values()).run("x", "{}")
    return "OK" if output.status == "OK" else f"{output.status} {json.loads(output.result_json)['error']['code']}"


CA = f'ca = "{TLS}/ca.pem"'


@pytest.mark.parametrize(
    ("certificate", "more", "outcome"),
    [
        ("localhost.pem", CA, "OK"),
        ("localhost.pem", "", "TOOL_ERROR certificate"),
        ("elsewhere.pem", CA, "TOOL_ERROR certificate"),
        ("expired.pem", CA, "TOOL_ERROR certificate"),
    ],
)
async def test_certificates_are_verified(tmp_path: Path, certificate: str, more: str, outcome: str) -> None:
    async with Service(answer(), serving(certificate)).at() as service:
        assert await asked(tmp_path, service, more) == outcome
        assert len(service.seen) == (outcome == "OK"), "nothing is said to a stranger"


async def test_a_certificate_of_ones_own(tmp_path: Path) -> None:
    async with Service(answer(), serving("localhost.pem", clients=True)).at() as service:
        assert await asked(tmp_path, service, f'{CA}\ncert = "{TLS}/client.pem"\nkey = "{TLS}/client.pem"') == "OK"
        assert await asked(tmp_path, service, CA) != "OK"
        assert len(service.seen) == 1


async def test_a_server_that_speaks_no_tls(tmp_path: Path) -> None:
    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Speak plainly\r\n\r\n")

    service = Service(answer())
    async with listening(plain) as port:
        service.url = f"https://localhost:{port}"
        assert await asked(tmp_path, service, CA) == "TOOL_ERROR unreachable"


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        (f'ca = "{TLS}/none.pem"', f"`ca`: {TLS}/none.pem: No such file or directory"),
        (f'ca = "{TLS}/README.txt"', "`ca`: no certificates to trust"),
        (f'cert = "{TLS}/client.pem"', "`cert` and `key` belong together"),
        (
            f'cert = "{TLS}/ca.pem"\nkey = "{TLS}/client.pem"',
            "`cert` and `key` are no certificate and its key, without a password",
        ),
    ],
)
def test_keys_that_cannot_be_used(tmp_path: Path, more: str, reason: str) -> None:
    file = tmp_path / "tools.toml"
    file.write_text(f'[[tool]]\nname = "x"\nkind = "http"\nurl = "https://localhost/"\n{more}\n')
    with pytest.raises(FileError) as raised:
        load(file)
    assert [fault.reason for fault in raised.value.faults] == [reason]


async def test_a_users_own_token_goes_to_whom_the_entry_says(tmp_path: Path) -> None:
    """And to nobody else, nor where there is none."""
    file = tmp_path / "tools.toml"
    async with Service(answer(b"1"), serving("localhost.pem")).at() as service:
        entries = (("own", "forward_token = true"), ("other", ""))
        tool = 'kind = "http"\nprivate = true'
        of = f'{tool}\nurl = "{service.url}/"\n{CA}'
        file.write_text("".join(f'[[tool]]\nname = "{name}"\n{of}\n{more}\n' for name, more in entries))
        registry = Registry(load(file).tools.values())
        assert registry.forwards_tokens
        a, b = (Context("s", "c", token=f"a.b.{user}") for user in "ab")
        assert "a.b.a" not in repr(a)
        assert [await registry.run("own", "{}", each) for each in (a, b)] == [("OK", "1")] * 2
        assert await registry.run("other", "{}", a) == ("OK", "1")
        assert [seen.headers.get("authorization") for seen in service.seen] == ["Bearer a.b.a", "Bearer a.b.b", None]
        status, result = await registry.run("own", "{}", Context("s", "c", subject="u"))
        assert (status, json.loads(result)["error"]) == ("TOOL_ERROR", {"message": NOT_AT_HAND, "code": "user_unknown"})
        assert len(service.seen) == 3


@pytest.mark.parametrize(
    ("entry", "fault"),
    [
        ('kind = "http"\nurl = "http://127.0.0.1/"\nprivate = true', "`forward_token` needs https"),
        ('kind = "http"\nurl = "https://x/"\nheaders = { authorization = "x" }', "`forward_token` says what Authoriz"),
    ],
)
def test_a_token_that_cannot_go_so(tmp_path: Path, entry: str, fault: str) -> None:
    file = tmp_path / "tools.toml"
    file.write_text(f'[[tool]]\nname = "x"\n{entry}\nforward_token = true\n')
    with pytest.raises(FileError, match=fault):
        load(file)
