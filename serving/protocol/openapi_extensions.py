"""The operations of Triton's extensions: statistics, logging, traces, repository, shared memory."""

from serving.protocol.http_routes import MODEL_PATHS
from serving.protocol.openapi_messages import reference
from serving.protocol.openapi_operation import (
    BODY_ERRORS,
    JSON,
    Answer,
    Operation,
    json_answer,
    under,
)

_DONE = {200: Answer("It is done.")}
_TRACE_PATHS = ("/v2/trace/setting", "/v2/models/{model}/trace/setting")
OBSERVATION = (
    Operation(
        "statistics",
        "get",
        ("/v2/models/stats", *under(MODEL_PATHS, "/stats")),
        "statistics and logging",
        "What models have done since they were loaded",
        json_answer("Statistics", "Triton's counters, for every version that can answer."),
        errors=(400, 404),
    ),
    Operation(
        "logSettings",
        "get",
        ("/v2/logging",),
        "statistics and logging",
        "What is logged",
        json_answer("LogSettings", "All settings."),
    ),
    Operation(
        "setLogSettings",
        "post",
        ("/v2/logging",),
        "statistics and logging",
        "Change what is logged",
        json_answer("LogSettings", "All settings, changed."),
        body={JSON: reference("LogChanges")},
        errors=BODY_ERRORS,
    ),
    Operation(
        "traceSettings",
        "get",
        _TRACE_PATHS,
        "statistics and logging",
        "Which requests are traced",
        json_answer("TraceSettings", "All settings, of the server or of a model."),
        errors=(400,),
    ),
    Operation(
        "setTraceSettings",
        "post",
        _TRACE_PATHS,
        "statistics and logging",
        "Change which requests are traced",
        json_answer("TraceSettings", "All settings, changed."),
        body={JSON: reference("TraceChanges")},
        errors=BODY_ERRORS,
    ),
)
_ANY_REPOSITORY = "/v2/repository/{repository}"
REPOSITORY = (
    Operation(
        "repositoryIndex",
        "post",
        ("/v2/repository/index", f"{_ANY_REPOSITORY}/index"),
        "model repository",
        "The models, their versions and states",
        json_answer("Index", "One entry a version, or a model that was never loaded."),
        body={JSON: reference("IndexRequest")},
        errors=BODY_ERRORS,
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
        errors=(*BODY_ERRORS, 500, 503),
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
        errors=(*BODY_ERRORS, 503),
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
    regions = json_answer(status, "The regions.")
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
            errors=(*BODY_ERRORS, 503) if real else BODY_ERRORS,
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


SHARED_MEMORY = (
    *_memory("system", status="SystemRegions", region="SystemRegion"),
    *_memory("cuda", status="CudaRegions", region="CudaRegion"),
)
