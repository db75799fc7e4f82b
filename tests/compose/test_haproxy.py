"""`deploy/haproxy/haproxy.cfg` in a real HAProxy, before replicas that follow a script."""

import contextlib
import itertools
import json
import os
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
import httpx2
import pytest
from grpc_health.v1 import health_pb2

from shared import tls
from shared.addresses import split_address
from tests.certificates import Authority
from tests.names import name_server
from tests.replicas import CONFIGURATION, NAME, NETWORK, PORTS, Edge, edge, eventually

SECONDS = 60.0
CIPHERS = {tls.CIPHERS: True, "ECDHE+AES:!AESGCM:!AESCCM": False}  # of TLS 1.2 → whether they are spoken
WORDS = 30


class Replica:
    """What both of its ports say and hear.

    ready   what /readyz says
    seen    the requests that came, but for checks
    more    lets the next word of a stream go
    left    a client has gone before its answer
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.ready = True
        self.seen: list[str] = []
        self.more, self.left = threading.Semaphore(0), threading.Event()


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], replica: Replica) -> None:
        self.replica = replica
        super().__init__(address, Handler)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        if self.path == "/healthz":
            self._answer(200)
        elif self.path == "/readyz":
            self._answer(200 if self.server.replica.ready else 503)
        else:
            self._work()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self._work()

    def _work(self) -> None:
        self.server.replica.seen.append(f"{self.command} {self.path}")
        match self.path.rpartition("/")[2]:
            case "events":
                self._stream()
            case "breaks":
                self.close_connection = True  # without an answer
            case "waits":
                self.close_connection = True
                with contextlib.suppress(ConnectionError):
                    assert not self.connection.recv(1), "the client says more"
                self.server.replica.left.set()
            case _:
                self._answer(200)

    def _answer(self, status: int) -> None:
        self.send_response(status)
        self.send_header("content-length", "0")
        self.end_headers()

    def _stream(self) -> None:
        """WORDS, the first at once."""
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for number in range(WORDS):
            if number:
                self.server.replica.more.acquire(timeout=SECONDS)
            self._chunk(f"data: {number}\n\n".encode())
        self._chunk(b"")

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))

    def log_message(self, *_: object) -> None: ...


@pytest.fixture(scope="module")
def proxied(tmp_path_factory) -> Iterator[tuple[Edge, list[Replica]]]:
    """HAProxy, and two replicas of which only the users' and the operators' ports are there."""
    with contextlib.ExitStack() as stack:
        hosts = [f"{NETWORK}.{number}" for number in (201, 202)]
        names = stack.enter_context(name_server())
        names.addresses[NAME] = hosts
        servers = {host: Replica() for host in hosts}
        for (host, replica), port in itertools.product(servers.items(), (PORTS["http"], PORTS["operator"])):
            server = stack.enter_context(Server((host, port), replica))
            threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
            stack.callback(server.shutdown)
        yield stack.enter_context(edge(tmp_path_factory.mktemp("edge") / "haproxy.log", names)), list(servers.values())


@pytest.fixture
def front(proxied: tuple[Edge, list[Replica]]) -> Edge:
    front, replicas = proxied
    for replica in replicas:
        replica.reset()
    eventually(lambda: all(front.ready(part) == 2 for part in ("requests", "events", "operators")), "two are ready")
    return front


@pytest.fixture
def replicas(proxied: tuple[Edge, list[Replica]], front: Edge) -> list[Replica]:
    return proxied[1]


class Reader:
    """Of an event stream through HAProxy; it has read the first word."""

    def __init__(self, front: Edge, replicas: list[Replica], stack: contextlib.ExitStack) -> None:
        request = httpx2.stream("GET", f"{front.url}/v1/sessions/s/events", timeout=SECONDS)
        self._lines = (line for line in stack.enter_context(request).iter_lines() if line)
        assert next(self._lines) == "data: 0"
        (self.replica,) = (replica for replica in replicas if replica.seen)

    def reads_on(self) -> None:
        """To the end, each word before the replica says the next."""
        for number in range(1, WORDS):
            self.replica.more.release()
            assert next(self._lines) == f"data: {number}"
        assert not list(self._lines)


@pytest.fixture
def reader(front: Edge, replicas: list[Replica]) -> Iterator[Reader]:
    with contextlib.ExitStack() as stack:
        yield Reader(front, replicas, stack)


def test_the_configuration_is_valid_without_a_warning(front):
    checked = subprocess.run(["haproxy", "-c", "-f", str(CONFIGURATION)], capture_output=True, text=True)
    assert (checked.returncode, "WARNING" in checked.stderr) == (0, False), checked.stderr


def test_it_ends_tls(tmp_path):
    authority = Authority(tmp_path)
    own = authority.issue("edge")
    pem = tmp_path / "edge-and-key.pem"
    pem.write_bytes(own.cert.read_bytes() + own.key.read_bytes())
    with name_server() as names, edge(tmp_path / "tls.log", names, HTTP_TLS=f"ssl crt {pem} alpn h2,http/1.1") as front:
        eventually(lambda: front.began() > 0, "it is up")
        url = front.url.replace("http://", "https://")
        answer = httpx2.get(f"{url}/v1/models", verify=authority.client(), timeout=SECONDS)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "unavailable")


def agreed(client: ssl.SSLContext, address: str) -> bool:
    """Whether a handshake comes to its end."""
    try:
        with socket.create_connection(split_address(address), SECONDS) as connection:
            client.wrap_socket(connection, server_hostname="localhost").close()
    except OSError:
        return False
    return True


def test_its_tls_is_the_dispatchers_own(tmp_path):
    authority = Authority(tmp_path)
    own = authority.issue("edge")
    pem = tmp_path / "edge-and-key.pem"
    pem.write_bytes(own.cert.read_bytes() + own.key.read_bytes())
    shown = dict.fromkeys(("HTTP_TLS", "OPERATOR_TLS", "GRPC_TLS"), f"ssl crt {pem}")
    with name_server() as names, edge(tmp_path / "tls.log", names, **shown) as front:
        eventually(lambda: front.began() > 0, "it is up")
        addresses = [front.url.removeprefix("http://"), front.operator, front.target.removeprefix("dns:///")]
        for address, (ciphers, accepted) in itertools.product(addresses, CIPHERS.items()):
            client = authority.client()
            client.maximum_version = ssl.TLSVersion.TLSv1_2
            client.set_ciphers(ciphers)
            assert agreed(client, address) is accepted, (address, ciphers)
        for address, group in itertools.product(addresses, ("prime256v1", "ffdhe2048")):
            client = authority.client()
            client.set_ecdh_curve(group)
            assert agreed(client, address) is (group == tls.GROUP), (address, group)
    said = CONFIGURATION.read_text()
    assert all(f"ssl-default-{side}-ciphers {tls.CIPHERS}\n" in said for side in ("bind", "server"))


def test_words_pass_as_they_come(reader):
    """HAProxy would hold each for 0.2 s, to fill its packet: 6 s for these."""
    began = time.monotonic()
    reader.reads_on()
    assert time.monotonic() - began < 4


def test_what_may_have_reached_a_replica_is_not_sent_again(front, replicas):
    host, port = split_address(front.url.removeprefix("http://"))
    with socket.create_connection((host, port), SECONDS) as connection:
        # Head and body at once: then HAProxy holds all of it, and could send it again.
        connection.sendall(b"POST /v1/sessions/s/breaks HTTP/1.1\r\nhost: edge\r\ncontent-length: 2\r\n\r\n{}")
        assert connection.recv(65536).startswith(b"HTTP/1.1 502 ")
    assert [request for replica in replicas for request in replica.seen] == ["POST /v1/sessions/s/breaks"]


def test_what_changes_nothing_is_asked_at_another_replica(front, replicas):
    assert httpx2.get(f"{front.url}/v1/sessions/s/breaks", timeout=SECONDS).status_code == 502
    assert all("GET /v1/sessions/s/breaks" in replica.seen for replica in replicas)


def test_a_client_that_leaves_before_its_answer_is_gone_at_the_replica(front, replicas):
    """So a completion that is not streamed stops when nobody waits for it."""
    with pytest.raises(httpx2.TimeoutException):
        httpx2.post(f"{front.url}/v1/chat/waits", content=b"{}", timeout=0.5)
    eventually(lambda: any(replica.left.is_set() for replica in replicas), "the replica's connection is closed")


def test_a_replica_that_is_not_ready_gets_nothing_new_and_keeps_what_it_has(front, replicas, reader):
    reader.replica.ready = False
    eventually(lambda: front.ready("requests") == front.ready("events") == 1, "it is out")
    for _ in range(4):
        assert httpx2.get(f"{front.url}/v1/models", timeout=SECONDS).status_code == 200
    assert reader.replica.seen == ["GET /v1/sessions/s/events"]
    assert front.ready("operators") == 2, "operators reach it, for it says there why it is not ready"
    reader.reads_on()


def test_without_a_ready_replica_requests_get_the_promised_error_and_readers_come_back(front, replicas):
    """An EventSource never comes back after a status that is not 200; it does after a connection that broke."""
    for replica in replicas:
        replica.ready = False
    eventually(lambda: front.ready("requests") == front.ready("events") == 0, "both are out")
    refused = httpx2.post(f"{front.url}/v1/sessions", json={"prompt": "Hello."}, timeout=SECONDS)
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    assert set(refused.json()["error"]) == {"message", "type", "param", "code"}
    with pytest.raises(httpx2.RemoteProtocolError):
        httpx2.get(f"{front.url}/v1/sessions/s/events", timeout=SECONDS)


def test_its_own_errors_have_the_promised_shape():
    for line in CONFIGURATION.read_text().splitlines():
        if line.strip().startswith("http-error"):
            error = json.loads(line.split("'")[1])["error"]
            assert (set(error), error["type"]) == ({"message", "type", "param", "code"}, "server_error")


def test_a_reload_cuts_nothing(front, reader):
    before = front.began()
    eventually(lambda: time.time() >= before + 1, "the next process begins in another second")
    os.kill(front.pid, signal.SIGUSR2)
    eventually(lambda: front.began() > before and front.ready("requests") == 2, "the new process has taken over")
    assert httpx2.get(f"{front.url}/v1/models", timeout=SECONDS).status_code == 200
    reader.reads_on()


def test_commanders_are_told_not_to_ask_for_health(front):
    with grpc.insecure_channel(front.target) as channel:
        watch = channel.unary_stream(
            "/grpc.health.v1.Health/Watch",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        watching = watch(health_pb2.HealthCheckRequest(), timeout=SECONDS)
        with pytest.raises(grpc.RpcError) as refused:
            next(watching)
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
