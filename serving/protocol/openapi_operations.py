"""Every operation of the HTTP API, group by group, as `http_app` has the routes."""

from serving.protocol.http_codec import HEADER_LENGTH
from serving.protocol.http_routes import MODEL_PATHS
from serving.protocol.openapi_messages import Schema, reference
from serving.protocol.openapi_operation import BINARY, JSON, Answer, Field, Operation

_BODY_ERRORS = (400, 413, 501)
_INFERENCE_ERRORS = (400, 404, 413, 429, 500, 501, 503, 504)
_FIND_ERRORS = (404, 503)
_DONE = {200: Answer("It is done.")}
_BYTES: Schema = {"contentMediaType": BINARY}
_TIMEOUT: Schema = {"type": "number", "minimum": 0}
_LENGTH: Schema = {"type": "integer", "minimum": 0}
_ENCODING: Schema = {"type": "string", "enum": ["gzip", "deflate", "identity"]}
_WAITS = (
    Field("Ridgeline-Timeout-Ms", "milliseconds that the client will wait", _TIMEOUT),
    Field("X-Envoy-Expected-Rq-Timeout-Ms", "the same, as Envoy and Istio say it", _TIMEOUT),
    Field("Content-Encoding", "how the body is compressed", _ENCODING),
)


def _json(name: str, description: str) -> dict[int, Answer]:
    return {200: Answer(description, {JSON: reference(name)})}


def _under(paths: tuple[str, ...], end: str) -> tuple[str, ...]:
    return tuple(f"{path}{end}" for path in paths)


_HEALTH = (
    Operation(
        "serverLive",
        "get",
        ("/v2/health/live",),
        "health",
        "Whether the process answers at all",
        _json("Live", "It does."),
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
        _under(MODEL_PATHS, "/ready"),
        "health",
        "Whether a model can answer",
        {
            200: Answer("It can.", {JSON: reference("ModelReady")}),
            503: Answer("It cannot, or is not there.", {JSON: reference("ModelReady")}),
        },
    ),
)
_METADATA = (
    Operation(
        "serverMetadata",
        "get",
        ("/v2", "/v2/"),
        "metadata",
        "Name, version and extensions of the server",
        _json("ServerMetadata", "The server."),
    ),
    Operation(
        "modelMetadata",
        "get",
        MODEL_PATHS,
        "metadata",
        "Inputs and outputs of a model, with the batch axis",
        _json("ModelMetadata", "The model."),
        errors=_FIND_ERRORS,
    ),
    Operation(
        "modelConfig",
        "get",
        _under(MODEL_PATHS, "/config"),
        "metadata",
        "The complete configuration of a model",
        _json("ModelConfig", "Triton's configuration, completed, with the model's cost."),
        errors=_FIND_ERRORS,
    ),
)
_INFERENCE = (
    Operation(
        "infer",
        "post",
        _under(MODEL_PATHS, "/infer"),
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
        _under(MODEL_PATHS, "/generate"),
        "inference",
        "The one answer of a model, as flat JSON",
        _json("GenerateResponse", "The outputs by name."),
        description="A model that does not answer exactly once is refused with 400.",
        fields=_WAITS,
        body={JSON: reference("GenerateRequest")},
        body_required=True,
        errors=_INFERENCE_ERRORS,
    ),
    Operation(
        "generateStream",
        "post",
        _under(MODEL_PATHS, "/generate_stream"),
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
_TRACE_PATHS = ("/v2/trace/setting", "/v2/models/{model}/trace/setting")
_OBSERVATION = (
    Operation(
        "statistics",
        "get",
        ("/v2/models/stats", *_under(MODEL_PATHS, "/stats")),
        "statistics and logging",
        "What models have done since they were loaded",
        _json("Statistics", "Triton's counters, for every version that can answer."),
        errors=(400, 404),
    ),
    Operation(
        "logSettings",
        "get",
        ("/v2/logging",),
        "statistics and logging",
        "What is logged",
        _json("LogSettings", "All settings."),
    ),
    Operation(
        "setLogSettings",
        "post",
        ("/v2/logging",),
        "statistics and logging",
        "Change what is logged",
        _json("LogSettings", "All settings, changed."),
        body={JSON: reference("LogChanges")},
        errors=_BODY_ERRORS,
    ),
    Operation(
        "traceSettings",
        "get",
        _TRACE_PATHS,
        "statistics and logging",
        "Which requests are traced",
        _json("TraceSettings", "All settings, of the server or of a model."),
        errors=(400,),
    ),
    Operation(
        "setTraceSettings",
        "post",
        _TRACE_PATHS,
        "statistics and logging",
        "Change which requests are traced",
        _json("TraceSettings", "All settings, changed."),
        body={JSON: reference("TraceChanges")},
        errors=_BODY_ERRORS,
    ),
)
_ANY_REPOSITORY = "/v2/repository/{repository}"
_REPOSITORY = (
    Operation(
        "repositoryIndex",
        "post",
        ("/v2/repository/index", f"{_ANY_REPOSITORY}/index"),
        "model repository",
        "The models, their versions and states",
        _json("Index", "One entry a version, or a model that was never loaded."),
        body={JSON: reference("IndexRequest")},
        errors=_BODY_ERRORS,
    ),
    Operation(
        "loadModel",
        "post",
        ("/v2/repository/models/{model}/load",),
        "model repository",
        "Load a model, or load it anew",
        _DONE,
        description="In the model control mode explicit only, else 503.",
        body={JSON: reference("LoadRequest")},
        errors=(*_BODY_ERRORS, 500, 503),
    ),
    Operation(
        "unloadModel",
        "post",
        ("/v2/repository/models/{model}/unload",),
        "model repository",
        "Unload a model, and those that need it",
        _DONE,
        description="In the model control mode explicit only, else 503.",
        body={JSON: reference("UnloadRequest")},
        errors=(*_BODY_ERRORS, 503),
    ),
    *(
        Operation(
            f"{act}ModelOfRepository",
            "post",
            (f"{_ANY_REPOSITORY}/models/{{model}}/{act}",),
            "model repository",
            f"As `{act}`, of a repository by its name: not supported, as in Triton",
            {},
            errors=(501,),
        )
        for act in ("load", "unload")
    ),
)


def _memory(kind: str, *, status: str, region: str) -> tuple[Operation, ...]:
    """The operations of one kind of shared memory; there are no regions of CUDA's to be had."""
    path, tag = f"/v2/{kind}sharedmemory", "shared memory"
    named = f"{path}/region/{{region}}"
    real = kind == "system"
    regions = _json(status, "The regions.")
    return (
        Operation(
            f"{kind}Regions", "get", (f"{path}/status",), tag, f"All {kind} regions", regions
        ),
        Operation(
            f"{kind}Region",
            "get",
            (f"{named}/status",),
            tag,
            f"One {kind} region",
            regions if real else {},
            errors=(404,),
        ),
        Operation(
            f"register{kind.capitalize()}Region",
            "post",
            (f"{named}/register",),
            tag,
            f"Register a {kind} region" + ("" if real else ": always refused"),
            {200: Answer("It is registered.")} if real else {},
            body={JSON: reference(region)},
            body_required=True,
            errors=(*_BODY_ERRORS, 503) if real else _BODY_ERRORS,
        ),
        Operation(
            f"unregister{kind.capitalize()}Regions",
            "post",
            (f"{path}/unregister", f"{named}/unregister"),
            tag,
            f"Forget {kind} regions: all of them, or one",
            {200: Answer("They are not, or no longer, registered.")},
        ),
    )


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
    *_HEALTH,
    *_METADATA,
    *_INFERENCE,
    *_OBSERVATION,
    *_REPOSITORY,
    *_memory("system", status="SystemRegions", region="SystemRegion"),
    *_memory("cuda", status="CudaRegions", region="CudaRegion"),
    *_DOCUMENTATION,
)
