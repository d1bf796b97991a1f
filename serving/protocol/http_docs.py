"""GET /docs and /docs/openapi.json: the description of this API, for people and for programs."""

import functools
import html
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from serving.protocol.http_routes import route
from serving.protocol.openapi import INTRODUCTION, description
from serving.protocol.openapi_messages import Schema
from serving.protocol.openapi_operation import PATH_NAMES, Operation
from serving.protocol.openapi_operations import OPERATIONS
from serving.protocol.openapi_schemas import SCHEMAS

_STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem;color:#222}
code,pre{font:14px/1.4 ui-monospace,monospace}
code,pre{background:#f3f3f1;border-radius:3px;padding:.1em .3em}
pre{padding:.6em;overflow-x:auto}
h2{margin-top:3rem;border-bottom:2px solid #ccc}
h3{margin:2rem 0 .3rem}
table{border-collapse:collapse;width:100%;margin:.5rem 0}
th,td{border-bottom:1px solid #ddd;padding:.25rem .6rem .25rem 0;text-align:left;vertical-align:top}
th{font-weight:600}
.method{color:#fff;background:#345;border-radius:3px;padding:.1em .5em;font-size:.8em}
"""
# The page needs nothing but its own style, and no other site may frame it.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"


def docs_routes() -> list[Route]:
    """The page, and the description that it shows."""

    async def show(_request: Request) -> Response:
        return HTMLResponse(page(), headers={"content-security-policy": _POLICY})

    async def describe(_request: Request) -> Response:
        return Response(_encoded(), media_type="application/json")

    return [route("/docs", show), route("/docs/openapi.json", describe)]


@functools.cache
def _encoded() -> bytes:
    return orjson.dumps(description())


@functools.cache
def page() -> str:
    """The description as HTML that loads nothing else."""
    tags = list(dict.fromkeys(operation.tag for operation in OPERATIONS))
    contents = "".join(f'<li><a href="#{_anchor(tag)}">{_text(tag)}</a></li>' for tag in tags)
    parts = [
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Ridgeline: HTTP API</title>',
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style>',
        f"<h1>Ridgeline: the HTTP API</h1><p>{_text(INTRODUCTION)}</p>",
        '<p>For programs: <a href="/docs/openapi.json">openapi.json</a> (OpenAPI 3.1).</p>',
        f'<ul>{contents}<li><a href="#schemas">schemas</a></li></ul>',
    ]
    for tag in tags:
        parts.append(f'<h2 id="{_anchor(tag)}">{_text(tag)}</h2>')
        parts += [_operation(operation) for operation in OPERATIONS if operation.tag == tag]
    parts.append('<h2 id="schemas">schemas</h2>')
    parts += [_component(name, schema) for name, schema in SCHEMAS.items()]
    return "\n".join(parts)


def _operation(operation: Operation) -> str:
    method = f'<span class="method">{operation.method.upper()}</span>'
    paths = "<br>".join(f"{method} <code>{_escaped(path)}</code>" for path in operation.paths)
    return "".join(
        (
            f'<section id="{operation.name}"><h3>{_text(operation.summary)}</h3><p>{paths}</p>',
            f"<p>{_text(operation.description)}</p>" if operation.description else "",
            _rows(("parameter", "in", "what"), _parameters(operation)),
            _rows(("body", "what"), _content(operation.body)),
            _rows(("answer", "what", "body"), _answers(operation)),
            "</section>",
        )
    )


def _parameters(operation: Operation) -> Iterator[tuple[str, ...]]:
    names = dict.fromkeys(name for path in operation.paths for name in operation.path_names(path))
    for name in names:
        yield _code(name), "path", _text(PATH_NAMES[name])
    for field in operation.fields:
        yield _code(field.name), "header", f"{_text(field.description)}; {_kind(field.schema)}"


def _content(content: Any) -> Iterator[tuple[str, ...]]:
    for media, schema in content.items():
        yield _code(media), _kind(schema)


def _answers(operation: Operation) -> Iterator[tuple[str, ...]]:
    for status, answer in operation.answers.items():
        kinds = "<br>".join(f"{media}: {kind}" for media, kind in _content(answer.content))
        yield str(status), _text(answer.description), kinds or "empty"
    for status in operation.errors:
        yield str(status), _text(operation.error_text(status)), _link("Error")


def _component(name: str, schema: Schema) -> str:
    return (
        f'<section id="schema-{name}"><h3>{_text(name)}</h3>'
        f"<p>{_text(schema.get('description', ''))}</p>{_shape(schema)}</section>"
    )


def _shape(schema: Schema) -> str:
    """What a schema allows: the fields of an object as rows, anything else in words."""
    properties = schema.get("properties")
    if not properties:
        return f"<p>{_kind(schema)}</p>"
    required = schema.get("required", ())
    rows = [
        (
            _code(name) + ("" if name in required else " (optional)"),
            _kind(field) if "properties" not in field else _shape(field),
            _text(field.get("description", "")),
        )
        for name, field in properties.items()
    ]
    return _rows(("field", "kind", "what"), rows)


def _kind(schema: Schema) -> str:
    """A schema in a few words, as HTML."""
    if "$ref" in schema:
        return _link(schema["$ref"].rpartition("/")[2])
    if "enum" in schema:
        return "one of " + ", ".join(_code(str(value)) for value in schema["enum"])
    if "const" in schema:
        return _code(json.dumps(schema["const"]))
    if "anyOf" in schema:
        return " or ".join(map(_kind, schema["anyOf"]))
    if "items" in schema:
        items = schema["items"]
        return "list of " + (_shape(items) if "properties" in items else _kind(items))
    if schema.get("type") == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"object of {_kind(schema['additionalProperties'])}"
    kinds = schema.get("type", "bytes")
    return _escaped(kinds if isinstance(kinds, str) else " or ".join(kinds))


def _rows(head: Iterable[str], rows: Iterable[tuple[str, ...]]) -> str:
    """A table of cells that are HTML already; nothing where it has no rows."""
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    titles = "".join(f"<th>{title}</th>" for title in head)
    return f"<table><tr>{titles}</tr>{body}</table>" if body else ""


def _link(name: str) -> str:
    return f'<a href="#schema-{name}">{_escaped(name)}</a>'


def _code(text: str) -> str:
    return f"<code>{_escaped(text)}</code>"


def _anchor(tag: str) -> str:
    return tag.replace(" ", "-")


def _escaped(text: str) -> str:
    return html.escape(text)


def _text(text: str) -> str:
    """Words with `code` between backticks, as HTML."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", _escaped(text))
