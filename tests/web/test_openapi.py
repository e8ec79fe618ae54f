"""The OpenAPI document: from protos with their comments, and from the ingress."""

from __future__ import annotations

import json
from typing import Any

import pytest
from click.testing import CliRunner

import sdk.testing
from sdk.cli.main import main
from tests.web.conftest import HERE, INSTALLED_PROTOS
from tests.web.http_client import ask


def document(*arguments: str) -> Any:
    done = CliRunner().invoke(main, ["openapi", *arguments])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def of_protos() -> Any:
    """The document of the protos: valid."""
    found = document(str(HERE / "protos"), "-I", str(INSTALLED_PROTOS))
    check_openapi(found)
    return found


def check_openapi(document: Any) -> None:
    # Every process imports this module, and one uses what takes a third of a second to import.
    from openapi_spec_validator import OpenAPIV31SpecValidator

    OpenAPIV31SpecValidator(document).validate()


def test_the_document_of_protos_is_valid_and_has_their_comments(of_protos: Any) -> None:
    say = of_protos["paths"]["/sdk.web.Chat/Say"]["post"]
    assert say["summary"] == "Say one thing."
    assert of_protos["tags"] == [{"name": "sdk.web.Chat", "description": "Listens."}]
    said = of_protos["components"]["schemas"]["sdk.web.Said"]
    assert said["description"] == "What is said, and how the call ends."
    assert said["properties"]["text"] == {"type": "string", "description": "The text."}
    assert said["properties"]["author"] == {"$ref": "#/components/schemas/sdk.web.Author"}
    assert said["properties"]["counts"]["additionalProperties"] == {"type": "integer", "format": "int32"}
    assert said["properties"]["at"] == {"type": "string", "format": "date-time"}
    assert of_protos["components"]["schemas"]["sdk.web.Mood"]["enum"] == ["MOOD_UNKNOWN", "MOOD_GLAD"]


def test_routes_of_google_api_http_are_operations_with_parameters(of_protos: Any) -> None:
    paths = of_protos["paths"]
    assert {"/v1/say", "/v1/authors/{author_name}/say/{text}", "/v1/heard/{text}", "/v1/repeat/{text}"} <= set(paths)
    put = paths["/v1/authors/{author_name}/say/{text}"]["put"]
    places = {parameter["name"]: parameter["in"] for parameter in put["parameters"]}
    assert (places["author_name"], places["text"], places["times"]) == ("path", "path", "query")
    heard = paths["/v1/heard/{text}"]["get"]["responses"]["200"]["content"]
    assert heard == {"application/json": {"schema": {"type": "string"}}}
    stream = paths["/v1/repeat/{text}"]["get"]["responses"]["200"]["content"]
    assert set(stream) == {"application/x-ndjson", "text/event-stream"}


def test_raw_bodies_are_bytes_of_any_type_on_routes_and_messages_elsewhere(of_protos: Any) -> None:
    raw = {"*/*": {"schema": {"type": "string", "format": "binary"}}}
    paths = of_protos["paths"]
    for operation in (paths["/v1/echo"]["post"], paths["/v1/files/{name}"]["put"]):
        assert operation["requestBody"]["content"] == operation["responses"]["200"]["content"] == raw
    assert paths["/v1/uploads/{name}"]["post"]["requestBody"]["content"] == raw
    assert set(paths["/v1/uploads/{name}"]["post"]["responses"]["200"]["content"]) == {"application/json"}
    assert paths["/v1/downloads/{text}"]["get"]["responses"]["200"]["content"] == raw
    assert "application/json" in paths["/sdk.web.Chat/Echo"]["post"]["requestBody"]["content"]


def test_the_ingress_has_the_document_of_its_services(server: sdk.testing.Server) -> None:
    answer = ask(server, "/openapi.json", None)
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    check_openapi(answer.json)
    assert "/sdk.web.Chat/Say" in answer.json["paths"]
    assert set(answer.json["paths"]) == set(document(server.target)["paths"])


def test_the_documents_of_a_server_have_the_comments_of_its_protos(server: sdk.testing.Server, of_protos: Any) -> None:
    for found in (ask(server, "/openapi.json", None).json, document(server.target)):
        for part in (("tags",), ("paths", "/sdk.web.Chat/Say"), ("components", "schemas", "sdk.web.Said")):
            here, there = found, of_protos
            for key in part:
                here, there = here[key], there[key]
            assert here == there


def test_an_unknown_service_is_an_error() -> None:
    done = CliRunner().invoke(main, ["openapi", str(HERE / "protos"), "no.Such", "-I", str(INSTALLED_PROTOS)])
    assert done.exit_code == 2
    assert "has no service 'no.Such'; it has sdk.web.Chat" in done.stderr
