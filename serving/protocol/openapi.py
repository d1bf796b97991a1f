"""The OpenAPI 3.1 description of the HTTP API, put together from its operations and schemas."""

import functools
from typing import Any

from serving.dataplane import SERVER_VERSION
from serving.protocol.openapi_operations import OPERATIONS
from serving.protocol.openapi_schemas import SCHEMAS

INTRODUCTION = (
    "The Open Inference Protocol v2 over HTTP, with Triton's extensions of it. Every error is a "
    'JSON object `{"error": "..."}`. A path that is not here is answered with 404, another '
    "method with 405 and the field `Allow`; HEAD is answered where GET is. Request bodies may be "
    "compressed (gzip, deflate). With `--status-codes triton` malformed JSON is 500, not "
    "ready is 400, and a refusal is 503."
)


@functools.cache
def description() -> dict[str, Any]:
    """The whole description, as a table for JSON. It is shared: do not change it."""
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        for path in operation.paths:
            paths.setdefault(path, {})[operation.method] = operation.table(path)
    tags = dict.fromkeys(operation.tag for operation in OPERATIONS)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Ridgeline", "version": SERVER_VERSION, "description": INTRODUCTION},
        "servers": [{"url": "/"}],
        "tags": [{"name": tag} for tag in tags],
        "paths": paths,
        "components": {"schemas": SCHEMAS},
    }
