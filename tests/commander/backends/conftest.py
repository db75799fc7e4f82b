"""For the tests of the back-ends."""

import ssl

import pytest


@pytest.fixture(autouse=True)
def no_certificates(monkeypatch: pytest.MonkeyPatch) -> None:
    """The servers here speak no TLS, and each new client reads all of the system's certificates: 0.2 s."""
    monkeypatch.setattr(ssl.SSLContext, "set_default_verify_paths", lambda context: None)
