"""`[[toolset]]` entries of kind `mcp`."""

from importlib.util import find_spec

from dispatcher.files.document import quoted
from dispatcher.tools.entry import TOOLSET, Terms, ToolEntry
from dispatcher.tools.http.entry import CONNECTING, connecting_of
from dispatcher.tools.http.template import Template, UnusableTemplateError
from dispatcher.tools.mcp.servers import McpProcess, McpUrl
from dispatcher.tools.mcp.toolset import McpToolset

# What the protocol itself sends.
OURS = ("accept", "content-type", "last-event-id", "mcp-method", "mcp-name", "mcp-protocol-version", "mcp-session-id")


def mcp_toolset(entry: ToolEntry, terms: Terms) -> McpToolset | None:
    """None: something is wrong with it."""
    entry.only((*TOOLSET, "url", *CONNECTING, "command", "env"), 'kind "mcp"')
    entry.check(("url" in entry) != ("command" in entry), "either `url` or `command`", "url")
    entry.check(find_spec("mcp") is not None, 'kind "mcp" needs the package `mcp`: midsentence[mcp]', "kind")
    reason = "a server's session is many users', and no one's token is shown to it; `headers` may say who asked"
    entry.check("forward_token" not in entry, f"`forward_token`: {reason}", "forward_token")
    server = _command(entry) if "command" in entry else _remote(entry)
    return McpToolset(terms, server) if entry.faultless else None


def _remote(entry: ToolEntry) -> McpUrl:
    entry.check("env" not in entry, "`env` is for `command`", "env")
    url = entry.text("url")
    try:
        template = Template(url, {}) if url else None
        entry.check(template is None or not template.names, "`url` takes no arguments", "url")
    except UnusableTemplateError as error:
        entry.wrong(f"`url`: {error}", "url")
    connecting = connecting_of(entry, url)
    for name, _ in (*connecting.headers, *connecting.told):
        entry.check(name.lower() not in OURS, f"`headers`: {quoted(name)} is the protocol's own to send", "headers")
    return McpUrl(url, connecting)


def _command(entry: ToolEntry) -> McpProcess:
    for key in CONNECTING:
        entry.check(key not in entry, f"`{key}` is for `url`", key)
    command = entry.texts("command", "part")
    for number, part in enumerate(command, 1):
        entry.check("\0" not in part, f"part {number} has a NUL", "command", number)
    environment = {}
    for name, written in entry.table("env").items():
        value = entry.filled("env", name, written)
        right = bool(name) and not {"=", "\0"} & {*name, *value.replace("=", "")}
        entry.check(right, f"`env`: {quoted(name)} cannot be set so", "env")
        environment[name] = value
    return McpProcess(tuple(command), environment, entry.where.file.parent)
