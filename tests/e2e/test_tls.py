"""The pair and its commands over TLS, as programs; certificates change under a running answer."""

import signal
import subprocess
import sys
from pathlib import Path

from tests.certificates import Authority
from tests.programs import commander, dispatcher, environment

SECONDS = 30
EDGES = ("grpc", "http", "operator")


def test_an_answer_over_tls_goes_on_while_the_certificates_change(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    edge, own = authority.issue("edge"), authority.issue("own")
    files = {f"{name}_tls__cert": str(edge.cert) for name in EDGES} | {
        f"{name}_tls__key": str(edge.key) for name in EDGES
    }
    shown = {"tls__ca": str(authority.ca), "tls__cert": str(own.cert), "tls__key": str(own.key)}
    with (
        dispatcher(tmp_path / "d.log", grpc_tls__client_ca=str(authority.ca), **files) as server,
        commander(server.grpc, tmp_path / "c.log", "scripted", scripted__tokens="150", **shown) as worker,
    ):
        server.program.wait_for(lambda event: event.get("event") == "commander_joined")
        settings = environment(
            {"DISPATCHER_HTTP_ADDRESS": server.http}
            | {f"DISPATCHER_{name.upper()}": file for name, file in files.items() if name.startswith("http")}
        )
        verb = [sys.executable, "-m", "dispatcher"]
        assert subprocess.run([*verb, "health"], env=settings, timeout=SECONDS).returncode == 0
        with subprocess.Popen([*verb, "chat", "hi"], env=settings, stdout=subprocess.PIPE) as chat:
            assert chat.stdout
            assert chat.stdout.read(3) == b"w0 "
            authority.issue("edge")
            authority.issue("own")
            server.program.send_signal(signal.SIGHUP)
            for _ in EDGES:
                server.program.wait_for(lambda event: event.get("event") == "tls_reloaded")
            said, _ = chat.communicate(timeout=SECONDS)
        assert chat.returncode == 0
        assert said.split()[-1] == b"w149"
        assert worker.alive
        assert subprocess.run([*verb, "health"], env=settings, timeout=SECONDS).returncode == 0
