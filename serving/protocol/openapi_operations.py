"""Every operation of the HTTP API, group by group, as `http_app` has the routes."""

from serving.protocol.openapi_core import HEALTH, INFERENCE, METADATA
from serving.protocol.openapi_extensions import OBSERVATION, REPOSITORY, SHARED_MEMORY
from serving.protocol.openapi_operation import JSON, Answer, Operation

_DOCUMENTATION = (
    Operation(
        "page",
        "get",
        ("/docs",),
        "documentation",
        "This description, to be read",
        {200: Answer("A page that loads nothing else.", {"text/html": {"type": "string"}})},
    ),
    Operation(
        "description",
        "get",
        ("/docs/openapi.json",),
        "documentation",
        "This description, as OpenAPI 3.1",
        {200: Answer("The description.", {JSON: {"type": "object"}})},
    ),
)

OPERATIONS: tuple[Operation, ...] = (
    *HEALTH,
    *METADATA,
    *INFERENCE,
    *OBSERVATION,
    *REPOSITORY,
    *SHARED_MEMORY,
    *_DOCUMENTATION,
)
