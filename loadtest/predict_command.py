"""The command `ridgeline predict`: how long a graph takes here, without running it."""

import argparse
import functools
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ridgeline.cost_command import add_sizes, read_sizes

_NS_PER_MS = 1e6
_LEFT_OUT = ("model", "batch_size", "time_ns", "predicted_ns", "low_ns", "high_ns")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `ridgeline predict`."""
    parser.add_argument("model", type=Path, metavar="MODEL.onnx", help="the graph")
    add_sizes(parser)
    parser.add_argument(
        "--again", action="store_true", help="time the networks again that predictions learn from"
    )
    parser.add_argument(
        "--calibration", type=Path, metavar="FILE", help="such times, from a file instead"
    )


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Predict; returns the time in ms with its interval, the floor, and the errors so far.

    Raises as `ridgeline cost`, StepFailed where the networks cannot be timed.
    """
    from loadtest import calibration
    from loadtest.prediction import learn
    from ridgeline import graph, graph_profile, hardware, roofline
    from ridgeline.errors import NotFound

    rows, sizes = read_sizes(arguments)
    if not arguments.model.is_file():
        raise NotFound(f"there is no file {arguments.model}")
    model = graph.load(arguments.model)
    operators = graph_profile.profile(model, batches=not sizes, rows=rows, sizes=sizes)
    cost = graph.cost_of(model, batches=not sizes, sizes=sizes)
    announce = functools.partial(print, file=sys.stderr, flush=True)
    machine = hardware.load(announce=announce)
    points = (
        calibration.read(arguments.calibration, hardware=machine)
        if arguments.calibration
        else calibration.load(hardware=machine, again=arguments.again, announce=announce)
    )
    predictor = learn(points)
    estimate = calibration.estimate_by_kind(operators, hardware=machine)
    time_ns, low_ns, high_ns = predictor.predict_ns(estimate)
    floor = roofline.floor(cost, batch_size=rows, hardware=machine)
    time_ns, low_ns, high_ns = (max(each, floor.ns) for each in (time_ns, low_ns, high_ns))
    return {
        "model": model.graph.name or arguments.model.stem,
        "batch_size": rows,
        "predicted_ms": time_ns / _NS_PER_MS,
        "low_ms": low_ns / _NS_PER_MS,
        "high_ms": high_ns / _NS_PER_MS,
        "floor_ms": floor.ns / _NS_PER_MS,
        "roofline_ms": sum(estimate.values()) / _NS_PER_MS,
        "learned": predictor.summary,
        "left_out": [
            dict(
                zip(
                    ("model", "batch_size", "time_ns", "predicted_ns", "low_ns", "high_ns"),
                    row,
                    strict=True,
                )
            )
            for row in predictor.errors
        ],
    }


def show(result: Mapping[str, Any]) -> None:
    """Print the prediction, and how good such predictions were."""
    learned = result["learned"]
    print(
        f"{result['model']}, batch size {result['batch_size']}: "
        f"{result['predicted_ms']:.4g} ms ({result['low_ms']:.4g} .. {result['high_ms']:.4g} ms "
        f"for {learned['interval_promises']:.0%} of networks); floor {result['floor_ms']:.4g} ms"
    )
    print(
        f"learned from {learned['models']} networks; of those left out, the median error was "
        f"{learned['median_error']:.0%}, the largest {learned['largest_error']:.0%}, and the "
        f"interval held {learned['interval_held']:.0%}"
    )
