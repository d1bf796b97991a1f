"""The statistics extension: what a model has done, counted exactly."""

import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from tritonclient.grpc import service_pb2

from conformance.answer import ANY, Answer, Expected
from conformance.ask import get, infer_grpc, infer_http, rpc
from conformance.case import Ask, Case, Server
from conformance.samples import add_raw, json_input, message

_EXTENSION = "statistics"
_MOST_PATIENCE_S = 10.0
_PAUSE_S = 0.02  # between two looks
_ROWS = np.ones((3, 2), dtype=np.float32)
_DURATIONS = ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output")


def cases() -> Iterator[Case]:
    """Every case of this file."""
    for protocol in ("http", "grpc"):
        yield from _reading(protocol)
        yield from _counting(protocol)


def _stats(protocol: str, model: str = "", version: str = "") -> Ask:
    if protocol == "grpc":
        return rpc(
            "ModelStatistics", service_pb2.ModelStatisticsRequest(name=model, version=version)
        )
    path = (
        f"/v2/models/{model}" + (f"/versions/{version}" if version else "")
        if model
        else "/v2/models"
    )
    return get(f"{path}/stats")


def _reading(protocol: str) -> Iterator[Case]:
    ok, missing = (
        ("200", ("404", "400")) if protocol == "http" else ("OK", ("NOT_FOUND", "INVALID_ARGUMENT"))
    )
    for name, model, version, expected in (
        ("of-a-model", "simple", "", Expected((ok,), [["simple", "1"]])),
        ("of-a-version", "versioned", "3", Expected((ok,), [["versioned", "3"]])),
        (
            "of-each-version",
            "versioned",
            "",
            Expected((ok,), [["versioned", "1"], ["versioned", "3"]]),
        ),
        ("of-an-unknown-model", "nope", "", Expected(missing)),
        ("of-an-unknown-version", "simple", "7", Expected(missing)),
        ("of-a-version-that-is-no-number", "simple", "one", Expected(missing)),
    ):
        models = (model,) if expected.statuses == (ok,) else ()
        yield Case(
            f"{protocol}/statistics/{name}",
            _named(_stats(protocol, model, version)),
            expected,
            extension=_EXTENSION,
            models=models,
        )
    yield Case(
        f"{protocol}/statistics/of-every-model",
        _holds(_stats(protocol), "simple"),
        Expected((ok,), {"holds": True}),
        extension=_EXTENSION,
        models=("simple",),
    )
    yield Case(
        f"{protocol}/statistics/fields",
        _fields(protocol),
        Expected((ok,), {name: {"count": ANY, "ns": ANY} for name in _DURATIONS}),
        extension=_EXTENSION,
        models=("counted",),
    )


def _named(ask: Ask) -> Ask:
    def asked(server: Server) -> Answer:
        answer = ask(server)
        if answer.failed:
            return answer
        return Answer(
            answer.status,
            sorted([row["name"], row["version"]] for row in answer.body["model_stats"]),
        )

    return asked


def _holds(ask: Ask, model: str) -> Ask:
    def asked(server: Server) -> Answer:
        answer = ask(server)
        if answer.failed:
            return answer
        names = {row["name"] for row in answer.body["model_stats"]}
        return Answer(answer.status, {"holds": model in names})

    return asked


def _fields(protocol: str) -> Ask:
    """After one inference every duration that the protocol names has a count and a sum."""

    def asked(server: Server) -> Answer:
        answer = _counted(protocol, [_good(protocol)], successes=1, server=server)[1]
        if answer.failed:
            return answer
        told = answer.body["model_stats"][0]["inference_stats"]
        body = {
            name: {key: key in told[name] or protocol == "grpc" for key in ("count", "ns")}
            for name in _DURATIONS
            if name in told
        }
        return Answer(answer.status, body)

    return asked


def _good(protocol: str, rows: np.ndarray = _ROWS) -> Ask:
    if protocol == "http":
        return infer_http("counted", {"inputs": [json_input(rows, datatype="FP32")]})
    return infer_grpc(add_raw(message("counted"), rows, datatype="FP32"))


def _bad(protocol: str) -> Ask:
    wrong = np.ones((1, 2), dtype=np.int32)
    if protocol == "http":
        return infer_http("counted", {"inputs": [json_input(wrong, datatype="INT32")]})
    return infer_grpc(add_raw(message("counted"), wrong, datatype="INT32"))


def _counting(protocol: str) -> Iterator[Case]:
    ok = ("200",) if protocol == "http" else ("OK",)
    one = {
        "inference_count": 3,
        "execution_count": 1,
        "success": 1,
        "fail": 0,
        "queue": 1,
        "compute_input": 1,
        "compute_infer": 1,
        "compute_output": 1,
        "batches": {"3": 1},
    }
    nothing: dict[str, Any] = {key: {} if key == "batches" else 0 for key in one}
    for name, asks, successes, expected in (
        ("a-success", [_good(protocol)], 1, one),
        ("two-successes", [_good(protocol)] * 2, 2, _twice(one)),
        ("a-request-that-is-refused", [_bad(protocol)], 0, {**nothing, "fail": 0}),
        ("nothing", [], 0, nothing),
    ):
        yield Case(
            f"{protocol}/statistics/counts/{name}",
            _difference(protocol, asks, successes=successes),
            Expected(ok, expected if name != "a-request-that-is-refused" else ANY),
            extension=_EXTENSION,
            models=("counted",),
        )


def _twice(counts: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: {size: 2 * count for size, count in value.items()} if key == "batches" else 2 * value
        for key, value in counts.items()
    }


def _difference(protocol: str, asks: list[Ask], *, successes: int) -> Ask:
    """By how much the counts grow while some questions are asked."""

    def asked(server: Server) -> Answer:
        before, after = _counted(protocol, asks, successes=successes, server=server)
        if before.failed or after.failed:
            return after
        old, new = (_counts(answer.body["model_stats"][0]) for answer in (before, after))
        grown: dict[str, Any] = {key: new[key] - old[key] for key in new if key != "batches"}
        grown["batches"] = {
            size: count - old["batches"].get(size, 0)
            for size, count in new["batches"].items()
            if count != old["batches"].get(size, 0)
        }
        return Answer(after.status, grown)

    return asked


def _counted(
    protocol: str, asks: list[Ask], *, successes: int, server: Server
) -> tuple[Answer, Answer]:
    """The statistics before some questions and after them.

    Servers may count after they have answered, and one counter after the other: where the machine
    has other things to do, long after. So the second are those in which every counter knows of the
    successes; both have not changed between two looks.
    """
    ask = _stats(protocol, "counted")
    before = _settled(ask, {}, server=server)
    for each in asks:
        each(server)
    if before.failed:
        return before, before
    least = _totals(_counts(before.body["model_stats"][0]))
    for name in least:
        least[name] += successes * (len(_ROWS) if name == "inference_count" else 1)
    return before, _settled(ask, least, server=server)


def _settled(ask: Ask, least: Mapping[str, int], *, server: Server) -> Answer:
    """The statistics when no counter is below its least and none changes; or after long enough."""
    until = time.monotonic() + _MOST_PATIENCE_S
    last, answer = None, ask(server)
    while time.monotonic() < until and not answer.failed:
        counts = _counts(answer.body["model_stats"][0])
        totals = _totals(counts)
        if counts == last and all(totals[name] >= count for name, count in least.items()):
            break
        time.sleep(_PAUSE_S)
        last, answer = counts, ask(server)
    return answer


def _totals(counts: Mapping[str, Any]) -> dict[str, int]:
    """What grows with a request that is answered, where no other one shares its batch."""
    grows = {name: count for name, count in counts.items() if name not in ("fail", "batches")}
    return {**grows, "batches": sum(counts["batches"].values())}


def _counts(row: Mapping[str, Any]) -> dict[str, Any]:
    told = row.get("inference_stats", {})
    counts: dict[str, Any] = {
        "inference_count": int(row.get("inference_count", 0)),
        "execution_count": int(row.get("execution_count", 0)),
    }
    for name in _DURATIONS:
        counts[name] = int(told.get(name, {}).get("count", 0))
    counts["batches"] = {
        str(batch["batch_size"]): int(batch.get("compute_infer", {}).get("count", 0))
        for batch in row.get("batch_stats", [])
    }
    return counts
