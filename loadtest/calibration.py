"""Times networks made on the spot in ONNX Runtime, for predictions; kept per machine.

Each point is a process of its own (`loadtest.bench.engine_times`), so that no network leaves its
memory to the next.
"""

import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from loadtest.prediction import Point
from ridgeline.errors import CorruptData, NotFound, StepFailed
from ridgeline.fingerprint import current_fingerprint
from ridgeline.graph_profile import Operator
from ridgeline.hardware import Hardware, cache_path
from ridgeline.roofline import operator_ns

_NETWORKS = (
    *("softmax784", "perceptron", "perceptron500", "perceptron1000", "lenet1", "lenet4", "lenet5"),
    *("cnn78", "mobilenetv1", "mobilenetv2", "squeezenet", "alexnet", "googlenet", "resnet18"),
    *("resnet50", "vgg16"),
)
_BATCH_SIZES = (1, 2, 4, 8, 16)
# Calling an operator costs something, however little it does; a large one is also shared out to the
# threads of the engine.
EACH_OPERATOR, EACH_SHARED = "each operator", "each operator of several threads"
_NS_PER_OPERATOR = 1000.0
_SHARED_NS = 5_000.0
_TURNS = 3  # minutes apart: a machine that others disturb is seldom disturbed each time
_SECONDS, _TIMEOUT_S = 0.2, 600.0


def estimate_by_kind(operators: Sequence[Operator], *, hardware: Hardware) -> dict[str, float]:
    """The roofline estimate in ns, by kind of operator."""
    pass_bytes = sum(operator.weight_bytes for operator in operators)
    found: dict[str, float] = defaultdict(float)
    for operator in operators:
        time_ns = operator_ns(operator, pass_bytes=pass_bytes, hardware=hardware)
        found[operator.kind] += time_ns
        if time_ns > _SHARED_NS:
            found[EACH_SHARED] += _NS_PER_OPERATOR
    found[EACH_OPERATOR] = _NS_PER_OPERATOR * len(operators)
    return dict(found)


def load(
    *, hardware: Hardware, again: bool = False, announce: Callable[[str], object]
) -> list[Point]:
    """The points of this machine, from the cache, or timed (some minutes) and kept."""
    path = cache_path(current_fingerprint()).with_name(
        cache_path(current_fingerprint()).name.replace("hardware", "prediction")
    )
    if path.exists() and not again:
        return read(path, hardware=hardware)
    announce(f"timing {len(_NETWORKS)} networks in ONNX Runtime, once, in some minutes ...")
    rows = _quickest([_time(name, announce=announce) for _ in range(_TURNS) for name in _NETWORKS])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"points": rows}), encoding="utf-8")
    return _points(rows, hardware=hardware)


def _quickest(turns: Sequence[Sequence[Mapping[str, Any]]]) -> list[Mapping[str, Any]]:
    """Of each point the quickest turn: others on the machine make it slower, never faster."""
    found: dict[tuple[str, int], Mapping[str, Any]] = {}
    for row in (row for turn in turns for row in turn):
        place = row["model"], row["batch_size"]
        if place not in found or row["time_ns"] < found[place]["time_ns"]:
            found[place] = row
    return list(found.values())


def read(path: Path, *, hardware: Hardware) -> list[Point]:
    """The points in a file that `load` wrote. Raises NotFound or CorruptData."""
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["points"]
        return _points(rows, hardware=hardware)
    except OSError as error:
        raise NotFound(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptData(f"{path} holds no times of networks: {error!r}") from error


def _points(rows: Sequence[Mapping[str, Any]], *, hardware: Hardware) -> list[Point]:
    """Estimates are computed anew, since the machine may have been measured again."""
    return [
        Point(
            model=row["model"],
            batch_size=row["batch_size"],
            time_ns=row["time_ns"],
            estimate_ns=estimate_by_kind(
                [Operator(**each) for each in row["operators"]], hardware=hardware
            ),
        )
        for row in rows
    ]


def _time(name: str, *, announce: Callable[[str], object]) -> list[dict[str, Any]]:
    announce(f"  {name}")
    words = [sys.executable, "-m", "loadtest.bench.engine_times", name, str(_SECONDS)]
    words += [str(size) for size in _BATCH_SIZES]
    done = subprocess.run(words, capture_output=True, text=True, timeout=_TIMEOUT_S)  # noqa: S603
    if done.returncode:
        raise StepFailed(f"timing {name} failed: {done.stderr.strip()[-500:]}")
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    return rows


def to_rows(operators: Sequence[Operator]) -> list[dict[str, Any]]:
    """Operators as JSON holds them."""
    return [asdict(operator) for operator in operators]
