"""A program that was killed finds its port free: nobody who asks for any port can have been given it."""

from pathlib import Path

from tests.programs import free_port


def test_the_system_gives_a_free_port_to_nobody_else() -> None:
    lowest, highest = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    given = range(lowest, highest + 1)
    assert not [port for port in (free_port() for _ in range(20)) if port in given]
