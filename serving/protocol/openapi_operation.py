"""One operation of the HTTP API, and how OpenAPI writes it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from serving.protocol.openapi_messages import Schema, reference

JSON = "application/json"
BINARY = "application/octet-stream"
_ERRORS = {
    400: "What was sent is malformed, or does not fit.",
    404: "There is nothing of that name or version.",
    413: "The body is larger than `max_request_bytes`, perhaps only when decompressed.",
    429: "The server cannot answer in time, or its queue is full.",
    500: "A fault in the server or its repository.",
    501: "The `Content-Encoding` of the body is unknown, or the server does not do that.",
    503: "Not now: the server is loading, stopping, or refuses.",
    504: "The deadline of the request has passed, or cannot be met.",
}
BODY_ERRORS = (400, 413, 501)  # of every operation that reads a body
_RETRY = (429, 503)  # these may tell when to come again
_RETRY_FIELDS = {"Retry-After": "seconds", "Retry-After-Ms": "milliseconds"}
PATH_NAMES = {
    "model": "name of a model",
    "version": "version of the model; without it, the newest that is ready",
    "repository": "name of a repository; there is one, without a name",
    "region": "name that a region of shared memory has, or shall have",
}


@dataclass(frozen=True, slots=True)
class Field:
    """A header field, of a request or an answer."""

    name: str
    description: str
    schema: Schema


@dataclass(frozen=True, slots=True)
class Answer:
    """What a status of success comes with: schemas by media type; none for an empty body."""

    description: str
    content: Mapping[str, Schema] = field(default_factory=dict)
    fields: Sequence[Field] = ()


@dataclass(frozen=True, slots=True)
class Operation:
    """A method of some paths that do the same; their names in braces are described above.

    `name` begins the operation's id, and is unique. `answers` are by status; an error of `errors`
    carries an Error. `body` has schemas by media type.
    """

    name: str
    method: str
    paths: tuple[str, ...]
    tag: str
    summary: str
    answers: Mapping[int, Answer]
    description: str = ""
    fields: Sequence[Field] = ()
    body: Mapping[str, Schema] = field(default_factory=dict)
    body_required: bool = False
    errors: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        unknown = set(self.errors) - set(_ERRORS) | set(self.errors) & set(self.answers)
        if unknown or not self.paths or not (self.answers or self.errors):
            raise ValueError(f"{self.name!r} needs paths and known statuses, received {self}")

    def error_text(self, status: int) -> str:
        """What a status of `errors` means."""
        return _ERRORS[status]

    def path_names(self, path: str) -> list[str]:
        """The names in braces of one of the paths."""
        return [part[1:-1] for part in path.split("/") if part.startswith("{")]

    def table(self, path: str) -> dict[str, Any]:
        """The Operation Object of one of the paths."""
        table: dict[str, Any] = {
            "operationId": self.name if path == self.paths[0] else self.name + _suffix(path),
            "tags": [self.tag],
            "summary": self.summary,
            "responses": self._responses(),
        }
        if self.description:
            table["description"] = self.description
        parameters = [*map(_path_parameter, self.path_names(path)), *map(_header, self.fields)]
        if parameters:
            table["parameters"] = parameters
        if self.body:
            table["requestBody"] = {
                "required": self.body_required,
                "content": {media: {"schema": schema} for media, schema in self.body.items()},
            }
        return table

    def _responses(self) -> dict[str, Any]:
        responses = {str(status): _response(answer) for status, answer in self.answers.items()}
        for status in self.errors:
            fields = [
                Field(name, f"{unit} until to try again", {"type": "integer", "minimum": 1})
                for name, unit in _RETRY_FIELDS.items()
                if status in _RETRY
            ]
            error = Answer(_ERRORS[status], {JSON: reference("Error")}, fields)
            responses[str(status)] = _response(error)
        return dict(sorted(responses.items()))


def json_answer(name: str, description: str) -> dict[int, Answer]:
    """The answers of an operation that succeeds with that object."""
    return {200: Answer(description, {JSON: reference(name)})}


def under(paths: tuple[str, ...], end: str) -> tuple[str, ...]:
    """Each path with that end."""
    return tuple(f"{path}{end}" for path in paths)


def _suffix(path: str) -> str:
    names = [name for name in PATH_NAMES if f"{{{name}}}" in path]
    return f"Of{names[-1].capitalize()}" if names else "WithSlash"


def _path_parameter(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "in": "path",
        "required": True,
        "description": PATH_NAMES[name],
        "schema": {"type": "string", "pattern": "^[^/]+$"},
    }


def _header(one: Field) -> dict[str, Any]:
    return {
        "name": one.name,
        "in": "header",
        "description": one.description,
        "schema": one.schema,
    }


def _response(answer: Answer) -> dict[str, Any]:
    response: dict[str, Any] = {"description": answer.description}
    if answer.fields:
        response["headers"] = {
            one.name: {"description": one.description, "schema": one.schema}
            for one in answer.fields
        }
    if answer.content:
        response["content"] = {
            media: {"schema": schema} for media, schema in answer.content.items()
        }
    return response
