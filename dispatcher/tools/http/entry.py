"""`[[tool]]` entries of kind `http`, and the keys that say how a service over HTTP is asked."""

import json
import re
import ssl
from typing import Any, TypeAlias
from urllib.parse import urlsplit

import httpcore2

from dispatcher.files.document import quoted
from dispatcher.files.entry import listed
from dispatcher.tools import strict_json
from dispatcher.tools.entry import MAX_FILE_BYTES, REMOTE, Terms, ToolEntry
from dispatcher.tools.http.answers import Pointer
from dispatcher.tools.http.template import Template, UnusableTemplateError
from dispatcher.tools.http.tool import Connecting, HttpTool, is_ours
from dispatcher.tools.identity import SHOWN, WHO
from dispatcher.tools.registry import check_schema

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
WITH_BODY = ("POST", "PUT", "PATCH")
TLS = ("ca", "cert", "key")
CONNECTING = ("headers", "private", *TLS)
MAX_SCHEMA_BYTES = 64 * 1024  # as many as arguments may have: a model reads it, and each assignment holds it
FORWARDED = "`forward_token` says what Authorization is"
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, 5.1: a token
_VALUE = re.compile(r"[!-~]([ \t!-~]*[!-~])?|")
_Headers: TypeAlias = tuple[tuple[str, str], ...]
_KEYS = (*REMOTE, "description", "method", "url", "query", "body", "schema", "schema_file", "result", *CONNECTING)


def http_tool(entry: ToolEntry, terms: Terms) -> HttpTool | None:
    """None: something is wrong with it."""
    entry.only(_KEYS, 'kind "http"')
    description = entry.text("description") if "description" in entry else ""
    method = entry.choice("method", METHODS, "POST")
    default = "arguments" if method in WITH_BODY else "none"
    body = entry.choice("body", ("arguments", "none"), default) == "arguments"
    entry.check(not (body and method == "GET"), "a GET has no body", "body")
    schema = _schema(entry)
    template = _template(entry)
    pointer = _pointer(entry)
    connecting = connecting_of(entry, entry.get("url"))
    if template and schema is not None:
        _check_arguments(entry, template, schema, body)
    if not entry.faultless or template is None or schema is None:
        return None
    spec = terms.offered(terms.spec.name, description, schema)
    return HttpTool(spec, method, template, connecting, body=body, pointer=pointer)


def connecting_of(entry: ToolEntry, url: object) -> Connecting:
    """Of the keys CONNECTING. url: to which it is connected."""
    secure = isinstance(url, str) and urlsplit(url).scheme == "https"
    headers, told = _headers(entry)
    reason = "`forward_token` needs https: a token is whose it is who reads it"
    entry.check(secure or not entry.flag("forward_token"), reason, "forward_token")
    return Connecting(headers, told, private=entry.flag("private"), tls=tls_of(entry, secure, "https"))


def _template(entry: ToolEntry) -> Template | None:
    url, query = entry.text("url"), {}
    for name, value in entry.table("query").items():
        entry.check(isinstance(value, str), f"`query`: {quoted(name)} is not a text", "query")
        query[name] = str(value)
    try:
        return Template(url, query) if url else None
    except UnusableTemplateError as error:
        entry.wrong(f"`url`: {error}", "url")
    return None


def _pointer(entry: ToolEntry) -> Pointer | None:
    if "result" not in entry:
        return None
    try:
        return Pointer(entry.text("result"))
    except ValueError as error:
        entry.wrong(f"`result`: {error}", "result")
    return None


def _schema(entry: ToolEntry) -> dict[str, Any] | None:
    """None: it is wrong. Without one there are no arguments."""
    entry.check(not ("schema" in entry and "schema_file" in entry), "either `schema` or `schema_file`", "schema_file")
    key = "schema_file" if "schema_file" in entry else "schema"
    schema: Any = {"type": "object", "properties": {}, "additionalProperties": False}
    if key == "schema" and "schema" in entry:
        schema = entry.get("schema")
    elif key == "schema_file":
        content = entry.content(key)
        if content is None:
            return None
        try:
            schema = strict_json.parse(content.decode(), MAX_FILE_BYTES)
        except ValueError as error:
            reason = "not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)
            entry.wrong(f"`{key}`: {reason}", key)
            return None
    if not isinstance(schema, dict) or schema.get("type") != "object":
        entry.wrong(f'`{key}` has to be a JSON Schema with type = "object"', key)
        return None
    try:
        size = len(json.dumps(schema, allow_nan=False))  # TOML has dates and infinities, and these raise
        entry.check(size <= MAX_SCHEMA_BYTES, f"`{key}` has more than {MAX_SCHEMA_BYTES} bytes", key)
        check_schema(schema)
    except (ValueError, TypeError) as error:  # UnusableSchemaError is one
        entry.wrong(f"`{key}` cannot be used: {error}", key)
        return None
    return schema


def _check_arguments(entry: ToolEntry, template: Template, schema: dict[str, Any], body: bool) -> None:
    """Each placeholder is an argument, and each argument goes somewhere."""
    properties, required = schema.get("properties", {}), schema.get("required", [])
    for name in sorted(template.names):
        key = "url" if name in template.in_path else "query"
        if name not in properties:
            entry.wrong(f"{{{name}}} is no argument of the schema", key)
        elif name in template.in_path:
            entry.check(name in required, f"{{{name}}} stands in the path, and is not required by the schema", key)
            kinds = kinds_of(properties[name])
            wrong = kinds & {"object", "array", "null"}
            entry.check(not wrong, f"{{{name}}} stands in the path, and may be of type {listed(sorted(wrong))}", key)
        else:
            wrong = kinds_of(properties[name]) & {"object"}
            entry.check(not wrong, f"{{{name}}} stands in the query, and may be an object", key)
    for header, text in entry.table("headers").items():
        for name in re.findall(r"\{([^{}]*)\}", text) if isinstance(text, str) else ():
            reason = f"`headers`: {quoted(header)}: the argument {{{name}}} stands in path and query only"
            entry.check(name not in properties, reason, "headers")
    if not body:
        for name in sorted(properties.keys() - template.names):
            entry.wrong(f"the argument {quoted(name)} goes nowhere: neither URL nor body has it", "schema")


def kinds_of(schema: Any) -> set[str]:
    """The types that a schema names; none: it does not say."""
    kinds = schema.get("type", []) if isinstance(schema, dict) else []
    return {kinds} if isinstance(kinds, str) else set(kinds)


def _headers(entry: ToolEntry) -> tuple[_Headers, _Headers]:
    """Those that are always the same; and those that say who asked, with what of them."""
    found: dict[str, tuple[str, str]] = {}
    told: dict[str, tuple[str, str]] = {}
    for name, written in entry.table("headers").items():
        who = WHO.fullmatch(written) if isinstance(written, str) else None
        value = "" if who else entry.filled("headers", name, written)
        lower = name.lower()
        entry.check(bool(_NAME.fullmatch(name)), f"`headers`: {quoted(name)} is no header's name", "headers")
        entry.check(
            bool(_VALUE.fullmatch(value)), f"`headers`: {quoted(name)} has a value that cannot be sent", "headers"
        )
        entry.check(not is_ours(name), f"`headers`: {quoted(name)} is the Dispatcher's own to send", "headers")
        entry.check(lower not in found | told, f"`headers`: {quoted(name)} comes twice", "headers")
        if who:
            told[lower] = name, who[1]
        else:
            found[lower] = name, value
    if entry.flag("forward_token"):
        entry.check("authorization" not in found | told, f"`headers`: {FORWARDED}", "headers")
        told["authorization"] = "Authorization", SHOWN
    return tuple(found.values()), tuple(told.values())


def tls_of(entry: ToolEntry, secure: bool, of: str) -> ssl.SSLContext | None:
    """Of the keys TLS. None: something is wrong with it, or it is not secure. of: what the keys are for."""
    given = [key for key in TLS if key in entry]
    if not secure:
        for key in given:
            entry.wrong(f"`{key}` is for {of}", key)
        return None
    entry.check(("cert" in entry) == ("key" in entry), "`cert` and `key` belong together", "cert")
    # read here too, so that they are watched
    contents = {key: entry.content(key) for key in given}
    if any(content is None for content in contents.values()):
        return None
    return _context(entry, given)


def _context(entry: ToolEntry, given: list[str]) -> ssl.SSLContext | None:
    """With `ca` nobody else is trusted; without it those whom the system trusts, or `SSL_CERT_FILE`."""
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if "ca" in given else httpcore2.default_ssl_context()
        if "ca" in given:
            context.load_verify_locations(entry.path("ca"))
    except (OSError, ValueError):
        entry.wrong(f"`{'ca' if 'ca' in given else 'url'}`: no certificates to trust", "ca")
        return None
    try:
        if "cert" in given and "key" in given:
            # a key with a password would ask for it on the terminal
            context.load_cert_chain(entry.path("cert"), entry.path("key"), password=lambda: "")
    except (OSError, ValueError):
        entry.wrong("`cert` and `key` are no certificate and its key, without a password", "cert")
    return context
