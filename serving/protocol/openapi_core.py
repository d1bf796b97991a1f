"""The operations of every server of the protocol: health, metadata, inference; with generate."""

from serving.protocol.http_codec import HEADER_LENGTH
from serving.protocol.http_routes import MODEL_PATHS
from serving.protocol.openapi_messages import Schema, reference
from serving.protocol.openapi_operation import (
    BINARY,
    JSON,
    Answer,
    Field,
    Operation,
    json_answer,
    under,
)

_INFERENCE_ERRORS = (400, 404, 413, 429, 500, 501, 503, 504)
_FIND_ERRORS = (404, 503)
_BYTES: Schema = {"contentMediaType": BINARY}
_TIMEOUT: Schema = {"type": "number", "minimum": 0}
_LENGTH: Schema = {"type": "integer", "minimum": 0}
_ENCODING: Schema = {"type": "string", "enum": ["gzip", "deflate", "identity"]}
_WAITS = (
    Field("Ridgeline-Timeout-Ms", "milliseconds that the client will wait", _TIMEOUT),
    Field("X-Envoy-Expected-Rq-Timeout-Ms", "the same, as Envoy and Istio say it", _TIMEOUT),
    Field("Content-Encoding", "how the body is compressed", _ENCODING),
)

HEALTH = (
    Operation(
        "serverLive",
        "get",
        ("/v2/health/live",),
        "health",
        "Whether the process answers at all",
        json_answer("Live", "It does."),
    ),
    Operation(
        "serverReady",
        "get",
        ("/v2/health/ready",),
        "health",
        "Whether inference requests are taken",
        {
            200: Answer("They are.", {JSON: reference("Ready")}),
            503: Answer("The server is loading or stopping.", {JSON: reference("Ready")}),
        },
    ),
    Operation(
        "modelReady",
        "get",
        under(MODEL_PATHS, "/ready"),
        "health",
        "Whether a model can answer",
        {
            200: Answer("It can.", {JSON: reference("ModelReady")}),
            503: Answer("It cannot, or is not there.", {JSON: reference("ModelReady")}),
        },
    ),
)
METADATA = (
    Operation(
        "serverMetadata",
        "get",
        ("/v2", "/v2/"),
        "metadata",
        "Name, version and extensions of the server",
        json_answer("ServerMetadata", "The server."),
    ),
    Operation(
        "modelMetadata",
        "get",
        MODEL_PATHS,
        "metadata",
        "Inputs and outputs of a model, with the batch axis",
        json_answer("ModelMetadata", "The model."),
        errors=_FIND_ERRORS,
    ),
    Operation(
        "modelConfig",
        "get",
        under(MODEL_PATHS, "/config"),
        "metadata",
        "The complete configuration of a model",
        json_answer("ModelConfig", "Triton's configuration, completed, with the model's cost."),
        errors=_FIND_ERRORS,
    ),
)
INFERENCE = (
    Operation(
        "infer",
        "post",
        under(MODEL_PATHS, "/infer"),
        "inference",
        "One inference",
        {
            200: Answer(
                "The outputs; as binary data behind the JSON where the request asks for it.",
                {JSON: reference("InferResponse"), BINARY: _BYTES},
                (Field(HEADER_LENGTH, "bytes of the JSON, where binary data follow", _LENGTH),),
            )
        },
        description="The body is a JSON object, followed by the bytes of the inputs that have a "
        f"`binary_data_size` where `{HEADER_LENGTH}` tells how long the JSON is. With "
        f"`{HEADER_LENGTH}: 0` the body is the one input of the model, as a batch of 1. "
        "The Content-Type of a request is not looked at.",
        fields=(
            Field(HEADER_LENGTH, "bytes of the JSON, where binary data follow", _LENGTH),
            *_WAITS,
            Field(
                "Accept-Encoding",
                "gzip or deflate compress answers of 1 KiB and more; binary ones where it is alone",
                {"type": "string"},
            ),
        ),
        body={JSON: reference("InferRequest"), BINARY: _BYTES},
        body_required=True,
        errors=_INFERENCE_ERRORS,
    ),
    Operation(
        "generate",
        "post",
        under(MODEL_PATHS, "/generate"),
        "inference",
        "The one answer of a model, as flat JSON",
        json_answer("GenerateResponse", "The outputs by name."),
        description="A model that does not answer exactly once is refused with 400.",
        fields=_WAITS,
        body={JSON: reference("GenerateRequest")},
        body_required=True,
        errors=_INFERENCE_ERRORS,
    ),
    Operation(
        "generateStream",
        "post",
        under(MODEL_PATHS, "/generate_stream"),
        "inference",
        "Every answer of a model, as server-sent events",
        {
            200: Answer(
                "One event an answer, each as the schema says; an error after the first answer is "
                "the last event.",
                {"text/event-stream": reference("GenerateEvent")},
            )
        },
        description="An error before the first answer is a status.",
        fields=_WAITS,
        body={JSON: reference("GenerateRequest")},
        body_required=True,
        errors=_INFERENCE_ERRORS,
    ),
)
