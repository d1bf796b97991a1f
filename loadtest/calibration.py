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
    *("softmax784", "perceptron", "lenet5", "cnn78", "mobilenetv1", "mobilenetv2", "squeezenet"),
    *("alexnet", "googlenet", "resnet18", "resnet50", "vgg16"),
)
_BATCH_SIZES = (1, 2, 4, 8, 16)
EACH_OPERATOR = "each operator"  # calling one costs something, however little it does
_NS_PER_OPERATOR = 1000.0
_SECONDS, _TIMEOUT_S = 0.5, 600.0


def estimate_by_kind(operators: Sequence[Operator], *, hardware: Hardware) -> dict[str, float]:
    """The roofline estimate in ns, by kind of operator."""
    pass_bytes = sum(operator.weight_bytes for operator in operators)
    found: dict[str, float] = defaultdict(float)
    for operator in operators:
        found[operator.kind] += operator_ns(operator, pass_bytes=pass_bytes, hardware=hardware)
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
    rows = [row for name in _NETWORKS for row in _time(name, announce=announce)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"points": rows}), encoding="utf-8")
    return _points(rows, hardware=hardware)


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
