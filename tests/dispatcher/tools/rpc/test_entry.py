"""`[[toolset]]` entries of kind `grpc` that are wrong: every fault named."""

from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from dispatcher.files.document import FileError
from dispatcher.tools.load import load
from dispatcher.tools.rpc.server import Target
from tests.dispatcher.tools.rpc.service import ORDERS, TLS, descriptor_set

SERVICES = f'services = ["{ORDERS}"]'


def reasons(folder: Path, more: str, target: str = "shop.example:50051") -> list[str]:
    file = folder / "tools.toml"
    file.write_text(f'[[toolset]]\nname = "shop"\nkind = "grpc"\ntarget = "{target}"\n{more}\n')
    with pytest.raises(FileError) as raised:
        load(file)
    return [fault.reason for fault in raised.value.faults]


@pytest.mark.parametrize(
    ("more", "wrong"),
    [
        ("", ["`services` has to be a list of texts that is not empty"]),
        ('services = ["a.B", "a.B", "a/b"]',
         ["service 2 comes twice", "service 3 is no full name, as `acme.billing.v1.Invoices`"]),
        (f'{SERVICES}\nforward_token = true\nmetadata = {{ authorization = "x" }}',
         ["`metadata`: `forward_token` says what Authorization is"]),
        (f"{SERVICES}\nforward_token = true\nprivate = true",
         ["`forward_token` needs TLS: a token is whose it is who reads it"]),
        (f'{SERVICES}\nurl = "x"', ['unknown key "url" for kind "grpc"']),
        (f'{SERVICES}\nmetadata = {{ Authorization = "x" }}',
         ['`metadata`: "Authorization" is no name of text metadata, in lower case']),
        (f'{SERVICES}\nmetadata = {{ "x-bin" = "x" }}',
         ['`metadata`: "x-bin" is no name of text metadata, in lower case']),
        (f'{SERVICES}\nmetadata = {{ "grpc-timeout" = "1S", traceparent = "x" }}',
         ['`metadata`: "grpc-timeout" is the Dispatcher\'s own to send',
          '`metadata`: "traceparent" is the Dispatcher\'s own to send']),
        (f'{SERVICES}\nmetadata = {{ a = "x\\r\\ny" }}', ['`metadata`: "a" has a value that cannot be sent']),
        (f'{SERVICES}\nmetadata = {{ a = "${{env:NOT_SET_HERE}}" }}',
         ['`metadata`: "a": the variable NOT_SET_HERE is not set']),
        (f'{SERVICES}\ntls = false\nca = "{TLS}/ca.pem"', ["`ca` is for `tls = true`"]),
        (f'{SERVICES}\ncert = "{TLS}/client.pem"', ["`cert` and `key` belong together"]),
        (f'{SERVICES}\nca = "{TLS}/README.txt"', ["`ca`: no certificates to trust"]),
        (f'{SERVICES}\ndescriptor_set = "none.binpb"',
         ["`descriptor_set`: {folder}/none.binpb: No such file or directory"]),
    ],
)  # fmt: skip
def test_keys_that_are_wrong(tmp_path: Path, more: str, wrong: list[str]) -> None:
    assert reasons(tmp_path, more) == [reason.replace("{folder}", str(tmp_path)) for reason in wrong]


@pytest.mark.parametrize(
    "target",
    [
        "shop.example", "shop.example:0", "shop.example:65536", "http://shop.example:1", "dns://8.8.8.8/shop.example:1",
        "xds:///shop", "ipv4:1.2.3.4:5", "shop.example:1,other:2", "a b:1", "unix:shop.sock", "unix:",
        "unix-abstract:x",
    ],
)  # fmt: skip
def test_targets_that_are_refused(target: str) -> None:
    with pytest.raises(ValueError, match="is written"):
        Target.parsed(target)


@pytest.mark.parametrize(
    ("target", "parsed", "authority"),
    [
        ("shop.example:443", Target("shop.example", 443), "shop.example:443"),
        ("dns:///shop.example:443", Target("shop.example", 443), "shop.example:443"),
        ("dns:shop.example:443", Target("shop.example", 443), "shop.example:443"),
        ("[::1]:5", Target("::1", 5), "[::1]:5"),
        ("unix:/run/shop.sock", Target(path="/run/shop.sock"), "localhost"),
        ("unix:///run/shop.sock", Target(path="/run/shop.sock"), "localhost"),
    ],
)
def test_targets(target: str, parsed: Target, authority: str) -> None:
    assert Target.parsed(target) == parsed
    assert parsed.authority == authority


def test_a_unix_socket_is_private(tmp_path: Path) -> None:
    assert reasons(tmp_path, SERVICES, "unix:/run/shop.sock") == ["a Unix socket needs `private = true`"]


@pytest.mark.parametrize(
    ("more", "wrong"),
    [
        (
            "",
            [
                "shop.v1.Orders/Watch: it is a stream",
                "shop.v1.Orders/Upload: it is a stream",
                "shop.v1.Orders/Value: its request is a google.protobuf.Value, which is no object",
            ],
        ),
        ('allow = ["Echo", "Ecko"]', ["Ecko: `allow` names no method of the services"]),
        ('allow = ["ec*"]', ["no method of the services is allowed"]),
        (
            f'allow = ["Echo"]\nprefix = "{"p" * 62}"',
            [f'the method "{"p" * 62}Echo": a tool\'s name has to be 1 to 64 letters, digits, _ or -'],
        ),
    ],
)
def test_what_a_descriptor_set_says_has_to_be_of_use(tmp_path: Path, more: str, wrong: list[str]) -> None:
    (tmp_path / "shop.binpb").write_bytes(descriptor_set())
    assert reasons(tmp_path, f'{SERVICES}\ndescriptor_set = "shop.binpb"\n{more}') == wrong


def without(name: str) -> bytes:
    files = FileDescriptorSet.FromString(descriptor_set()).file
    return FileDescriptorSet(file=[file for file in files if file.name != name]).SerializeToString()


@pytest.mark.parametrize(
    ("content", "wrong"),
    [
        (b"", "no descriptor set, as `protoc --include_imports -o FILE` writes it"),
        (b"\xff", "no descriptor set, as `protoc --include_imports -o FILE` writes it"),
        (b"text\n", "no descriptor set, as `protoc --include_imports -o FILE` writes it"),
        (without("parts.proto"), "the file parts.proto is missing, which shop.proto imports"),
        (without("shop.proto"), "there is no service shop.v1.Orders"),
    ],
)
def test_descriptor_sets_that_cannot_be_used(tmp_path: Path, content: bytes, wrong: str) -> None:
    (tmp_path / "shop.binpb").write_bytes(content)
    more = f'{SERVICES}\ndescriptor_set = "shop.binpb"\nallow = ["Echo"]'
    assert reasons(tmp_path, more) == [f"`descriptor_set`: {wrong}"]


def test_what_this_program_knows_need_not_be_in_a_set(tmp_path: Path) -> None:
    (tmp_path / "shop.binpb").write_bytes(without("google/protobuf/timestamp.proto"))
    file = tmp_path / "tools.toml"
    file.write_text(
        f'[[toolset]]\nname = "shop"\nkind = "grpc"\ntarget = "h:1"\n{SERVICES}\n'
        'descriptor_set = "shop.binpb"\nallow = ["Echo"]\n'
    )
    assert len(load(file).toolsets) == 1
