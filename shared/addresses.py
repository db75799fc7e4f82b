"""Addresses as settings have them."""

import ipaddress


def split_address(address: str) -> tuple[str, int]:
    """Host and port of `host:port`; an IPv6 host stands in brackets. Port 0: the system chooses. Raises ValueError."""
    host, _, port = address.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if bracketed:
        host = host[1:-1]
    valid_port = port.isascii() and port.isdigit() and len(port) <= 5 and int(port) <= 65535
    if not host or not valid_port or (":" in host and not bracketed):
        raise ValueError(f"must be an address as host:port, got {address!r}")
    return host, int(port)


def is_loopback(host: str) -> bool:
    """Whether that is this machine, which nobody else reaches so. An IPv6 host stands without brackets."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
