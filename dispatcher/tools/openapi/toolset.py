"""Toolsets of kind `openapi`: an entry's operations as tools, each call one request to the entry's `base_url`."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any

from dispatcher.files.entry import listed
from dispatcher.tools.context import Context
from dispatcher.tools.entry import NAME, NAMED, TOOLSET, Terms, ToolEntry
from dispatcher.tools.errors import InvalidArgumentsError
from dispatcher.tools.http.answers import result
from dispatcher.tools.http.entry import CONNECTING, connecting_of
from dispatcher.tools.http.exchange import exchange
from dispatcher.tools.http.template import Template, UnusableTemplateError
from dispatcher.tools.http.tool import Connecting, request
from dispatcher.tools.openapi.document import Document, UnusableDocumentError
from dispatcher.tools.openapi.operations import BODY, SAID, MappedOperation, found, mapped
from dispatcher.tools.ports import Offer, Spec, Tool
from dispatcher.tools.registry import UnusableSchemaError, check_schema

_KEYS = (*TOOLSET, "spec", "base_url", *CONNECTING)


class OperationTool:
    """One operation."""

    def __init__(self, spec: Spec, operation: MappedOperation, template: Template, connecting: Connecting) -> None:
        self.spec = spec
        self._operation, self._template, self._connecting = operation, template, connecting
        self._names = {parameter.name for parameter in operation.parameters}

    async def call(self, arguments: dict[str, Any], context: Context) -> str:
        """As `dispatcher.tools.ports.Tool` says."""
        operation = self._operation
        path: dict[str, str] = {}
        pairs: list[str] = []
        headers: dict[str, str] = {}
        for parameter in operation.parameters:
            value = arguments.get(parameter.name)
            if value is None:
                continue
            if parameter.place == "path":
                path[parameter.name] = parameter.in_path(value)
            elif parameter.place == "query":
                pairs += parameter.in_query(value)
            else:
                headers[parameter.name] = parameter.in_header(value)
        target = self._template.target(path)
        if pairs:
            target += ("&" if "?" in target else "?") + "&".join(pairs)
        body = self._body({name: value for name, value in arguments.items() if name not in self._names})
        if body is not None:
            headers["Content-Type"] = operation.media
        asked = request(self._connecting, operation.method, self._template, target, body, context, headers)
        async with exchange(asked) as response:
            return await result(response, None, html=False)

    def _body(self, rest: dict[str, Any]) -> bytes | None:
        operation = self._operation
        if not operation.body:
            if rest:  # the schema has refused it, unless a list of properties was left open
                raise InvalidArgumentsError(f"The argument {json.dumps(min(rest))[:100]} is not known.")
            return None
        if not rest and not operation.body_required:
            return None
        body = rest.get(BODY) if operation.whole else rest
        return operation.form.encoded(body or {}) if operation.form else json.dumps(body, ensure_ascii=False).encode()


class OpenApiToolset:
    """tools: what it offers, which its document says."""

    def __init__(self, name: str, tools: Sequence[Tool]) -> None:
        self.name, self.tools = name, tuple(tools)

    async def run(self, offer: Offer) -> None:
        """As `dispatcher.tools.ports.Toolset` says. There is no connection that could be lost: a call makes its own."""
        offer(self.tools)
        await asyncio.get_running_loop().create_future()


def openapi_toolset(entry: ToolEntry, terms: Terms) -> OpenApiToolset | None:
    """None: something is wrong with it."""
    entry.only(_KEYS, 'kind "openapi"')
    base_url = entry.text("base_url").rstrip("/")
    connecting = connecting_of(entry, base_url)
    right = bool(base_url) and _checked_base(entry, base_url)
    content = entry.content("spec")
    if content is None or not right:
        return None
    try:
        document = Document(content)
        tools = _tools(entry, terms, document, base_url, connecting)
    except UnusableDocumentError as error:
        entry.wrong(f"`spec`: {error}", "spec")
        return None
    entry.check(bool(tools) or not entry.faultless, "no operation with an operationId is allowed", "allow")
    return OpenApiToolset(terms.spec.name, tools)


def _checked_base(entry: ToolEntry, base_url: str) -> bool:
    try:
        template = Template(base_url, {})
    except UnusableTemplateError as error:
        entry.wrong(f"`base_url`: {error}", "base_url")
        return False
    right = not template.names and "?" not in base_url
    entry.check(right, "`base_url` has neither arguments nor a query", "base_url")
    return right


def _tools(
    entry: ToolEntry, terms: Terms, document: Document, base_url: str, connecting: Connecting
) -> list[OperationTool]:
    """What is allowed and can be mapped; the rest of what is allowed is named."""
    tools: dict[str, OperationTool] = {}
    said = SAID | connecting.names
    matched: set[str] = set()
    for one in found(document):
        if not terms.allows(one.operation_id):
            continue
        matched.add(one.operation_id)
        try:
            operation = mapped(document, one, said)
            spec = terms.offered(operation.tool_name, operation.description, operation.schema)
            check_schema(spec.schema)
            tool = OperationTool(spec, operation, Template(base_url + operation.path, {}), connecting)
            if not NAME.fullmatch(spec.name):
                entry.wrong(f"the operation {json.dumps(one.operation_id)[:100]}: a tool's name {NAMED}", "spec")
            entry.check(spec.name not in tools, f"two operations are named {json.dumps(spec.name)}", "spec")
            tools[spec.name] = tool
        except (UnusableDocumentError, UnusableTemplateError, UnusableSchemaError) as error:
            entry.wrong(f"the operation {json.dumps(one.operation_id)[:100]} cannot be mapped: {error}", "spec")
    literal = [name for name in terms.allow if not set(name) & set("*?[")]
    missing = [name for name in literal if name not in matched]
    entry.check(not missing, f"`allow` names no operation of the document: {listed(missing)}", "allow")
    return list(tools.values())
