import pytest

from dispatcher.tools.http.addresses import is_public, resolve


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.9.9.9", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1", "169.254.169.254",
        "100.100.100.200", "168.63.129.16", "192.0.0.192", "192.0.2.1", "198.18.0.1", "224.0.0.1", "240.0.0.1",
        "255.255.255.255", "::", "::1", "fe80::1", "fe80::1%1", "fc00::1", "fd00:ec2::254", "ff02::1", "2001:db8::1",
        "::ffff:127.0.0.1", "::ffff:169.254.169.254", "::ffff:0:127.0.0.1", "::127.0.0.1", "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "2002:7f00:1::", "2002:a9fe:a9fe::1", "2001:0:7f00:1::",
        "::ffff:168.63.129.16", "localhost", "", "2130706433", "0x7f.1",
    ],
)  # fmt: skip
def test_where_no_request_goes(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address",
    ["1.1.1.1", "93.184.216.34", "2606:4700:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101", "2002:101:101::1"],
)
def test_where_it_may(address: str) -> None:
    assert is_public(address)


async def test_names_are_looked_up() -> None:
    assert "127.0.0.1" in await resolve("127.0.0.1", 80)
    assert set(await resolve("localhost", 80)) <= {"127.0.0.1", "::1"}
    for name in ("no-such-host.invalid", "x" * 64 + ".example", "a..b"):
        with pytest.raises(OSError):  # noqa: PT011 - of many kinds
            await resolve(name, 80)
