"""What commands ask of a server are routes that it has: a path that is none is an answer too, and nobody would notice."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.routing import APIRoute

import appliance.cli
from api.app import ROUTERS

pytestmark = pytest.mark.slow

CLI = Path(appliance.cli.__file__).parent
METHODS = {
    "get": "GET",
    "items": "GET",
    "events": "GET",
    "download": "GET",
    "post": "POST",
    "put": "PUT",
    "delete": "DELETE",
}


def routes() -> set[tuple[str, str]]:
    """Method, and path with ``{}`` for its parameters."""
    every = [route for router in ROUTERS for route in router.routes if isinstance(route, APIRoute)]
    return {
        (method, "/".join("{}" if part.startswith("{") else part for part in route.path.split("/")))
        for route in every
        for method in route.methods
    }


def text_of(node: ast.expr) -> str | None:
    """A path as it is written there, with ``{}`` for what is put in; ``None`` for what is no path."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in parts)
        case ast.Call(func=ast.Name(id="at"), args=parts):
            return "".join(f"/{part.value}" if isinstance(part, ast.Constant) else "/{}" for part in parts)
    return None


def asked() -> Iterator[tuple[str, str]]:
    for file in (CLI / "login.py", *sorted((CLI / "remote").glob("*.py"))):
        for node in ast.walk(ast.parse(file.read_text())):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            said = [text for each in node.args if (text := text_of(each)) is not None]
            paths = [text for text in said if text.startswith("/")]
            if paths and node.func.attr == "call":
                yield said[0], paths[0]
            elif paths and node.func.attr in METHODS:
                yield METHODS[node.func.attr], paths[0]


def test_every_question_is_a_route_of_the_api() -> None:
    found, known = set(asked()), routes()
    assert len(found) > 50
    # 'job enable' and 'job disable' are one function, which puts the word in.
    assert found - known == {("POST", "/jobs/{}/{}")}
