"""The description of the HTTP API says what the application has, and nothing else."""

import json
import re

import pytest
from schemathesis.openapi import from_dict
from starlette.routing import Route

from serving.dataplane import DataPlane
from serving.protocol.http_app import http_app
from serving.protocol.openapi import description
from serving.protocol.openapi_messages import reference
from serving.protocol.openapi_operation import Answer, Operation
from serving.protocol.openapi_schemas import SCHEMAS
from serving.registry import Registry

pytestmark = pytest.mark.anyio


@pytest.fixture
def app(settings):
    return http_app(DataPlane(Registry(settings)), max_request_bytes=1000)


@pytest.fixture
def client(app, asgi):
    return asgi(app)


def _described() -> dict[tuple[str, str], dict]:
    return {
        (method.upper(), path): operation
        for path, operations in description()["paths"].items()
        for method, operation in operations.items()
    }


def test_every_route_of_the_application_is_described_and_no_other(app):
    assert all(isinstance(one, Route) for one in app.routes)
    routes = {
        (method, one.path) for one in app.routes for method in one.methods or () if method != "HEAD"
    }

    assert routes == set(_described())


def test_operations_have_names_of_their_own():
    names = [operation["operationId"] for operation in _described().values()]

    assert len(set(names)) == len(names)


def test_every_name_in_a_path_is_described():
    for (_, path), operation in _described().items():
        named = [one["name"] for one in operation.get("parameters", ()) if one["in"] == "path"]
        assert re.findall(r"{(\w+)}", path) == named


def test_every_reference_leads_to_a_schema_and_every_schema_is_used():
    text = json.dumps(description())
    referred = set(re.findall(r'"#/components/schemas/([^"]+)"', text))

    assert referred == set(SCHEMAS)


def test_the_description_is_openapi_3_1():
    from_dict(description()).validate()


def test_a_message_is_described_with_the_fields_that_are_always_written():
    statistics = SCHEMAS["ModelStatistics"]

    assert statistics["properties"]["inference_stats"] == reference("InferStatistics")
    assert statistics["properties"]["response_stats"] == {
        "type": "object",
        "additionalProperties": reference("InferResponseStatistics"),
    }
    assert "inference_count" in statistics["required"]
    assert "inference_stats" not in statistics["required"]
    assert SCHEMAS["ModelConfig"]["properties"]["version_policy"] == reference("ModelVersionPolicy")


async def test_programs_get_the_description(client):
    answer = await client.call("GET", "/docs/openapi.json")

    assert answer.headers["content-type"] == "application/json"
    assert answer.json == json.loads(json.dumps(description()))
    assert answer.json["openapi"] == "3.1.0"


async def test_people_get_a_page_with_every_route_that_loads_nothing(client):
    answer = await client.call("GET", "/docs")
    text = answer.body.decode()

    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert [path for _, path in _described() if f"<code>{path}</code>" not in text] == []
    assert not re.search(r"<script|<link|<img|src=|url\(|https?:", text)
    links = set(re.findall(r'href="#([^"]+)"', text))
    assert links <= set(re.findall(r'id="([^"]+)"', text))


@pytest.mark.parametrize(
    "wrong",
    [
        {"paths": ()},
        {"errors": (418,)},
        {"answers": {400: Answer("no")}, "errors": (400,)},
        {"answers": {}},
    ],
)
def test_an_operation_without_paths_or_with_odd_statuses_is_refused(wrong):
    right = {
        "name": "x",
        "method": "get",
        "paths": ("/x",),
        "tag": "x",
        "summary": "x",
        "answers": {200: Answer("yes")},
    }

    with pytest.raises(ValueError, match="needs paths and known statuses"):
        Operation(**{**right, **wrong})
