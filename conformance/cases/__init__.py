"""The cases, one file for each part of the protocol; each has a function `cases`."""

from collections.abc import Callable, Iterator

from conformance.case import Case
from conformance.cases import (
    binary_faults,
    classification,
    ensembles,
    generate,
    grpc_services,
    health,
    infer_binary,
    infer_grpc,
    infer_http,
    infer_json,
    json_faults,
    metadata,
    parameters,
    repository_control,
    routes,
    schedule,
    sequences,
    shared_memory,
    statistics,
    streams,
    trace_and_logging,
)

_FILES: tuple[Callable[[], Iterator[Case]], ...] = (
    health.cases,
    metadata.cases,
    infer_json.cases,
    json_faults.cases,
    infer_binary.cases,
    binary_faults.cases,
    infer_http.cases,
    infer_grpc.cases,
    routes.cases,
    grpc_services.cases,
    streams.cases,
    classification.cases,
    statistics.cases,
    repository_control.cases,
    schedule.cases,
    parameters.cases,
    shared_memory.cases,
    sequences.cases,
    trace_and_logging.cases,
    generate.cases,
    ensembles.cases,
)


def every_case() -> list[Case]:
    """All of them, in the order in which they are run. No two have the same name."""
    cases = [case for part in _FILES for case in part()]
    names = [case.name for case in cases]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"two cases have the same name: {', '.join(twice)}")
    return cases
