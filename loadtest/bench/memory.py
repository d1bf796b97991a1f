"""Does the gateway's memory grow? A million requests over one connection set, and its curve.

Usage: python -m loadtest.bench.memory [--requests N]; writes reports/memory.json and .svg.
"""

import argparse
import json
import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from loadtest.bench import networks
from loadtest.bench.overload_runs import Bench
from loadtest.bench.overload_servers import Sample, Target, server
from loadtest.plots import _STYLE, BLUE, _svg
from ridgeline.errors import RidgelineError

_MODEL = "lenet5"
_SLICE_S = 3.0
_KIB_PER_MIB = 1024


def main() -> int:
    """Send the requests in slices, noting the resident memory between them. Returns the code."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.bench.memory", description=__doc__)
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--output", type=Path, default=Path("reports/memory.json"))
    arguments = parser.parse_args()
    try:
        curve = _curve(arguments.requests)
    except RidgelineError as error:
        print(f"memory: {error}", file=sys.stderr)
        return 1
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps({"answered_and_mib": curve}), encoding="utf-8")
    arguments.output.with_suffix(".svg").write_text(_plot(curve), encoding="utf-8")
    middle = curve[len(curve) // 2]
    print(
        f"resident: {curve[0][1]:.0f} MiB before the first request, {middle[1]:.0f} MiB after "
        f"{middle[0]:,}, {curve[-1][1]:.0f} MiB after {curve[-1][0]:,}"
    )
    return 0


def _curve(requests: int) -> list[tuple[int, float]]:
    """Pairs of requests answered so far, and MiB resident then."""
    with tempfile.TemporaryDirectory() as folder:
        repository = Path(folder) / "repository"
        networks.write([_MODEL], root=repository)
        sample = Sample.of(repository, model=_MODEL)
        start = server(
            "ridgeline", repository=repository, model=_MODEL, deadline_ms=0, capacity_per_s=None
        )
        with start as target:
            bench = Bench(target, sample, Path(folder), None)
            answered, curve = 0, [(0, _resident_mib(target))]
            while answered < requests:
                answered += bench.closed(_SLICE_S)["answered"]
                curve.append((answered, _resident_mib(target)))
            return curve


def _resident_mib(target: Target) -> float:
    """proc(5), VmRSS."""
    resident = re.compile(r"^VmRSS:\s+(\d+) kB$", re.MULTILINE)
    files = [Path(f"/proc/{number}/status") for number in target.process_ids()]
    found = [resident.search(file.read_text(encoding="ascii")) for file in files]
    return sum(int(each[1]) for each in found if each) / _KIB_PER_MIB


def _plot(curve: Sequence[tuple[int, float]]) -> str:
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(6, 3), layout="constrained")
        axes = figure.subplots()
        axes.plot([answered / 1e6 for answered, _ in curve], [mib for _, mib in curve], color=BLUE)
        axes.set(xlabel="million requests answered", ylabel="resident memory, MiB")
        axes.set_ylim(0, 1.15 * max(mib for _, mib in curve))
        return _svg(figure, name="memory")


if __name__ == "__main__":
    sys.exit(main())
