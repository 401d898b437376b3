"""The routes for people: one page made from the OpenAPI document, with nothing from elsewhere and no script."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from fastapi.responses import HTMLResponse

STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
section { border-top: 1px solid color-mix(in srgb, currentColor 25%, transparent); padding: .75rem 0; }
h2 { font-size: 1.05rem; margin: .5rem 0; font-family: ui-monospace, monospace; }
h2 b { display: inline-block; min-width: 4rem; }
table { border-collapse: collapse; width: 100%; }
td, th { text-align: left; vertical-align: top; padding: .2rem .75rem .2rem 0; }
pre { overflow-x: auto; padding: .75rem; background: color-mix(in srgb, currentColor 8%, transparent); }
"""


def docs_response(document: Mapping[str, Any]) -> HTMLResponse:
    """Return the page.

    Args:
        document: OpenAPI 3.1.
    """
    digest = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; frame-ancestors 'none'"
    return HTMLResponse(docs_page(document), headers={"Content-Security-Policy": policy})


def docs_page(document: Mapping[str, Any]) -> str:
    """Return the page as HTML."""
    title = escape(f"{document['info']['title']} {document['info']['version']}")
    routes = [
        _route(method, path, operation)
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    ]
    schemas = [
        f'<section id="{escape(name)}"><h2>{escape(name)}</h2>{_table(_properties(schema))}</section>'
        for name, schema in document["components"]["schemas"].items()
    ]
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head><body>'
        f'<h1>{title}</h1><p>For programs: <a href="openapi.json">openapi.json</a>.</p>'
        f"{''.join(routes)}<h1>What goes over the wire</h1>{''.join(schemas)}</body></html>"
    )


def _route(method: str, path: str, operation: Mapping[str, Any]) -> str:
    parameters = [
        (one["name"], _type(one["schema"]), one.get("description", "")) for one in operation.get("parameters", ())
    ]
    contents = operation.get("requestBody", {}).get("content", {})
    bodies = [f"<p>Body, {escape(kind)}: {_type(content['schema'])}</p>" for kind, content in contents.items()]
    answered = operation["responses"].get("200", {}).get("content", {})
    answers = [
        f"<p>Answer, {escape(kind)}: {_type(content.get('schema', {}))}</p>" for kind, content in answered.items()
    ]
    return (
        f"<section><h2><b>{method.upper()}</b> {escape(path)}</h2><p>{escape(operation.get('description', ''))}</p>"
        f"{_table(parameters)}{''.join(bodies)}{''.join(answers)}</section>"
    )


def _properties(schema: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    for name, described in schema.get("properties", {}).items():
        default = described.get("default")
        known = "" if default is None or default is False else f" default: {json.dumps(default)}"
        yield name, _type(described), described.get("description", "") + known


def _type(schema: Mapping[str, Any]) -> str:
    """Return a schema in few words, as HTML; what has a name is a link to it."""
    if "$ref" in schema:
        name = escape(schema["$ref"].rsplit("/", 1)[-1])
        return f'<a href="#{name}">{name}</a>'
    if "anyOf" in schema:
        return " or ".join(_type(one) for one in schema["anyOf"])
    if "enum" in schema:
        return " | ".join(escape(json.dumps(value)) for value in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    bounds = {"minimum": "from", "exclusiveMinimum": "above", "maximum": "to", "maxLength": "up to"}
    limits = [f"{word} {schema[key]}" for key, word in bounds.items() if key in schema]
    return escape(" ".join([schema.get("type", "anything"), *limits]))


def _table(rows: Any) -> str:
    lines = [f"<tr><th>{escape(name)}</th><td>{kind}</td><td>{escape(text)}</td></tr>" for name, kind, text in rows]
    return f"<table>{''.join(lines)}</table>" if lines else ""
