"""Measures servers over networks of six decades of FLOPs: the data of the report in docs/.

Usage: python -m loadtest.bench.campaign [--servers ridgeline,triton] [--output FOLDER]. Writes
measurements.json and, with every request's times, raw.npz; `ridgeline report` makes the page. The
servers take turns on each network, so that what disturbs the machine for long disturbs both.
"""

import argparse
import contextlib
import functools
import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from loadtest import calibration, environment, eventloop, measurement
from loadtest.bench import networks
from loadtest.bench.overload_servers import server
from loadtest.capacity_run import latency_curve
from loadtest.prediction import learn
from loadtest.result import RunResult, raw_arrays
from loadtest.schedule import ClosedLoop, Load
from loadtest.settings import LoadtestSettings
from ridgeline import hardware
from ridgeline.errors import RidgelineError

_MODELS = (
    *("softmax784", "perceptron", "lenet5", "cnn78", "mobilenetv2", "squeezenet"),
    *("alexnet", "googlenet", "resnet18", "resnet50", "vgg16"),
)
_BATCH_SIZES = (1, 4, 16)
_CONCURRENCY = 32
_WARMUP_S, _TIMEOUT_S = 0.5, 60.0
_FORMAT = "ridgeline measurements 1"


def main() -> int:
    """Measure everything, write the files. Returns the exit code."""
    arguments = _arguments()
    say = functools.partial(print, file=sys.stderr, flush=True)
    results: list[tuple[str, RunResult]] = []
    curves: list[dict[str, Any]] = []
    try:
        machine = hardware.load(refresh=arguments.again, announce=say)
        with tempfile.TemporaryDirectory(prefix="ridgeline-campaign-") as folder:
            for model in arguments.models:
                repository = Path(folder) / model
                networks.write([model], root=repository)
                for name in arguments.servers:
                    say(f"{model} on {name}")
                    found, curve = _measure(arguments, name, model=model, repository=repository)
                    results += [(name, each) for each in found]
                    curves += curve
                # After each network, so that nothing is lost where a later one cannot be measured.
                _write(arguments.output, results=results, curves=curves, machine=machine)
        if arguments.predict:
            points = calibration.load(hardware=machine, again=arguments.again, announce=say)
            found_prediction = _prediction(points)
            _write(
                arguments.output,
                results=results,
                curves=curves,
                machine=machine,
                prediction=found_prediction,
            )
    except RidgelineError as error:
        print(f"campaign: {error}", file=sys.stderr)
        return 1
    return 0


def _write(
    folder: Path,
    *,
    results: list[tuple[str, RunResult]],
    curves: list[dict[str, Any]],
    machine: hardware.Hardware,
    prediction: dict[str, Any] | None = None,
) -> None:
    table = {
        "format": _FORMAT,
        "command": " ".join(["python -m loadtest.bench.campaign", *sys.argv[1:]]),
        "hardware": asdict(machine),
        "environment": environment.describe(),
        "runs": [{"label": name, **each.to_json()} for name, each in results],
        "curves": curves,
        "prediction": prediction,
    }
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(table, indent=1, allow_nan=False)
    (folder / "measurements.json").write_text(text + "\n", encoding="utf-8")
    np.savez_compressed(folder / "raw.npz", allow_pickle=False, **_raw(results))


def _measure(
    arguments: argparse.Namespace, name: str, *, model: str, repository: Path
) -> tuple[list[RunResult], list[dict[str, Any]]]:
    """All runs of one network on one server."""
    with _running(name, repository=repository, model=model) as url:
        settings = functools.partial(
            LoadtestSettings,
            url=url,
            protocol="grpc",
            model=model,
            warmup_s=_WARMUP_S,
            repository=repository,
            request_timeout_s=_TIMEOUT_S,
            min_requests=1,
        )

        def run(load: Load, *sizes: int) -> list[RunResult]:
            told = settings(load=load, batch_sizes=sizes, duration_s=arguments.duration)
            quiet = functools.partial(measurement.measure, announce=lambda _: None)
            return eventloop.run(quiet(told))

        found = run(ClosedLoop(1), *_BATCH_SIZES) + run(ClosedLoop(_CONCURRENCY), 1)
        if model not in arguments.curves:
            return found, []
        told = settings(load=ClosedLoop(_CONCURRENCY), duration_s=arguments.duration)
        points = eventloop.run(latency_curve(told))
        return found, [{"label": name, "model": model, "points": points}]


@contextlib.contextmanager
def _running(name: str, *, repository: Path, model: str) -> Iterator[str]:
    start = server(name, repository=repository, model=model, deadline_ms=0, capacity_per_s=None)
    with start as target:
        yield f"127.0.0.1:{target.port}"


def _prediction(points: Any) -> dict[str, Any]:
    predictor = learn(points)
    names = ("model", "batch_size", "time_ns", "predicted_ns", "low_ns", "high_ns")
    rows = [dict(zip(names, row, strict=True)) for row in predictor.errors]
    return {"summary": predictor.summary, "left_out": rows}


def _raw(results: list[tuple[str, RunResult]]) -> dict[str, Any]:
    return {
        f"{name}/{each.target.model.name}/{_slots(each)}/{key}": array
        for name, each in results
        for key, array in raw_arrays([each]).items()
    }


def _slots(result: RunResult) -> str:
    """How many requests at a time, for a name."""
    return f"{result.settings.load.describe()['concurrency']} at a time"


def _arguments() -> argparse.Namespace:
    def names(text: str) -> list[str]:
        return [name for name in text.split(",") if name]

    parser = argparse.ArgumentParser(prog="python -m loadtest.bench.campaign", description=__doc__)
    parser.add_argument("--servers", type=names, default=["ridgeline", "triton"])
    parser.add_argument("--models", type=names, default=list(_MODELS))
    parser.add_argument("--curves", type=names, default=["lenet5", "cnn78"], help="of these, too")
    parser.add_argument("--duration", type=float, default=1.5, help="seconds of each run")
    parser.add_argument("--again", action="store_true", help="measure the machine again before")
    parser.add_argument(
        "--predict", action=argparse.BooleanOptionalAction, default=True, help="time networks, too"
    )
    parser.add_argument("--output", type=Path, default=Path("reports/measurement"))
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
