"""Services whose tools an agent may call, one of each kind, for the profile `tools`: `services.py http|mcp|grpc`.

They stand in for yours: rates over HTTP (`rates.yaml` is their OpenAPI document), a glossary over MCP, and over gRPC
grpcio's own health service, with reflection.
"""

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

PORT = 8000
RATES = {"CHF": 0.93, "GBP": 0.84, "JPY": 163.2, "USD": 1.08}  # for a euro
GLOSSARY = {
    "session": "One conversation of an agent, from its prompt to its end.",
    "stop": "The end of a session in the middle of a sentence.",
}


class Rates(BaseHTTPRequestHandler):
    """GET /rates/{currency}"""

    def do_GET(self) -> None:
        """200 with the rate, or 404."""
        currency = unquote(urlsplit(self.path).path.removeprefix("/rates/"))
        known = currency in RATES
        answer = {"currency": currency, "rate": RATES[currency]} if known else {"error": "unknown currency"}
        body = json.dumps(answer).encode()
        self.send_response(200 if known else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def http() -> None:
    """Serve rates."""
    ThreadingHTTPServer(("", PORT), Rates).serve_forever()


def mcp() -> None:
    """Serve the glossary."""
    from mcp.server.mcpserver import MCPServer

    server = MCPServer("glossary")

    @server.tool()
    def define(word: str) -> str:
        """What a word of this product means."""
        return GLOSSARY.get(word.lower(), "No such word.")

    server.run("streamable-http", host="0.0.0.0", port=PORT)  # noqa: S104 - a container's


def grpc() -> None:
    """Serve grpc.health.v1.Health, and reflection."""
    from grpc import server
    from grpc_health.v1 import health, health_pb2, health_pb2_grpc
    from grpc_reflection.v1alpha import reflection

    served = server(ThreadPoolExecutor(4))
    servicer = health.HealthServicer()
    servicer.set("rates", health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(servicer, served)
    reflection.enable_server_reflection((health.SERVICE_NAME, reflection.SERVICE_NAME), served)
    served.add_insecure_port(f"0.0.0.0:{PORT}")
    served.start()
    served.wait_for_termination()


if __name__ == "__main__":
    {"http": http, "mcp": mcp, "grpc": grpc}[sys.argv[1]]()
