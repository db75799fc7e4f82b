"""`[[toolset]]` entries of kind `grpc`."""

import re
import ssl
from pathlib import Path

import grpc

from dispatcher.files.document import quoted
from dispatcher.tools.entry import NAME, NAMED, TOOLSET, Terms, ToolEntry
from dispatcher.tools.http.entry import FORWARDED, TLS, tls_of
from dispatcher.tools.identity import SHOWN, WHO
from dispatcher.tools.rpc.descriptors import UnusableDescriptorsError, built, parsed
from dispatcher.tools.rpc.server import GrpcServer, Metadata, Target
from dispatcher.tools.rpc.toolset import GrpcToolset, Mapped, mapped

_KEYS = (*TOOLSET, "target", "services", "descriptor_set", "metadata", "private", "tls", *TLS)
_SERVICE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)
_METADATA = re.compile(r"[0-9a-z_.-]+")
_VALUE = re.compile(r"[!-~]([ -~]*[!-~])?|")
# What the protocol, the connection and the call's identity need.
OURS = frozenset(
    {"te", "content-type", "user-agent", "host", "connection", "idempotency-key", "traceparent", "tracestate"}
)


def grpc_toolset(entry: ToolEntry, terms: Terms) -> GrpcToolset | None:
    """None: something is wrong with it."""
    entry.only(_KEYS, 'kind "grpc"')
    target, services = _target(entry), entry.texts("services", "service")
    for number, service in enumerate(services, 1):
        right = not service or bool(_SERVICE.fullmatch(service))
        entry.check(right, f"service {number} is no full name, as `acme.billing.v1.Invoices`", "services", number)
        entry.check(service not in services[: number - 1], f"service {number} comes twice", "services", number)
    private = entry.flag("private")
    (metadata, told), credentials = _metadata(entry), _credentials(entry, private)
    if entry.flag("forward_token"):
        reason = "`forward_token` needs TLS: a token is whose it is who reads it"
        entry.check(credentials is not None, reason, "forward_token")
        taken = any(name == "authorization" for name, _ in (*metadata, *told))
        entry.check(not taken, f"`metadata`: {FORWARDED}", "metadata")
        told = (*told, ("authorization", SHOWN))
    if not entry.faultless or target is None:
        return None
    known = _known(entry, services, terms) if "descriptor_set" in entry else None
    return GrpcToolset(terms, GrpcServer(target, private, metadata, credentials, told), services, known)


def _target(entry: ToolEntry) -> Target | None:
    text = entry.text("target")
    try:
        target = Target.parsed(text) if text else None
    except ValueError as error:
        entry.wrong(f"`target`: {error}", "target")
        return None
    entry.check(not (target and target.path) or entry.flag("private"), "a Unix socket needs `private = true`", "target")
    return target


def _known(entry: ToolEntry, services: list[str], terms: Terms) -> Mapped | None:
    """What the descriptor set says; all of it that is allowed has to be of use."""
    content = entry.content("descriptor_set")
    if content is None:
        return None
    try:
        found = mapped(built(parsed(content)), services, terms)
    except UnusableDescriptorsError as error:
        entry.wrong(f"`descriptor_set`: {error}", "descriptor_set")
        return None
    for reason in found.left_out:
        entry.wrong(reason, "allow" if "`allow`" in reason else "descriptor_set")
    entry.check(bool(found.methods or found.left_out), "no method of the services is allowed", "allow")
    names: set[str] = set()
    for spec, _ in found.methods:
        entry.check(bool(NAME.fullmatch(spec.name)), f"the method {quoted(spec.name)}: a tool's name {NAMED}", "prefix")
        entry.check(spec.name not in names, f"two methods are named {quoted(spec.name)}", "services")
        names.add(spec.name)
    return found


def _metadata(entry: ToolEntry) -> tuple[Metadata, Metadata]:
    """Those that are always the same; and those that say who asked, with what of them."""
    found: list[tuple[str, str]] = []
    told: list[tuple[str, str]] = []
    for name, written in entry.table("metadata").items():
        who = WHO.fullmatch(written) if isinstance(written, str) else None
        value = "" if who else entry.filled("metadata", name, written)
        right = bool(_METADATA.fullmatch(name)) and not name.endswith("-bin")
        entry.check(right, f"`metadata`: {quoted(name)} is no name of text metadata, in lower case", "metadata")
        ours = name in OURS or name.startswith("grpc-")
        entry.check(not ours, f"`metadata`: {quoted(name)} is the Dispatcher's own to send", "metadata")
        right = bool(_VALUE.fullmatch(value))
        entry.check(right, f"`metadata`: {quoted(name)} has a value that cannot be sent", "metadata")
        if who:
            told.append((name, who[1]))
        else:
            found.append((name, value))
    return tuple(found), tuple(told)


def _credentials(entry: ToolEntry, private: bool) -> grpc.ChannelCredentials | None:
    """A server in a private network is spoken to without TLS, unless one of the keys is there."""
    secure = entry.flag("tls", not private or any(key in entry for key in TLS))
    if tls_of(entry, secure, "`tls = true`") is None:
        return None
    ca = entry.content("ca") if "ca" in entry else _system()
    key = entry.content("key") if "key" in entry else None
    return grpc.ssl_channel_credentials(ca, key, entry.content("cert") if key else None)


def _system() -> bytes | None:
    """Whom the system trusts, or `SSL_CERT_FILE`; None: whom gRPC does."""
    file = ssl.get_default_verify_paths().cafile
    try:
        return Path(file).read_bytes() if file else None
    except OSError:
        return None
