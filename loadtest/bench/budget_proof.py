"""`make budget-proof`: does `ridgeline check --against` catch what it should, and nothing else?

Slowdowns are planted into copies of the server: its engine spins for a share of the time that each
inference took. Every trial compares a copy with this version as `ridgeline check` does; a copy
without a slowdown must pass. Prints how many trials ended how; the raw ratios go into JSON.
"""

import argparse
import contextlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from loadtest import environment
from loadtest.bench import networks
from loadtest.comparison import HELD, MISSED
from loadtest.regression import Effort, compare
from loadtest.versions import Version
from ridgeline.errors import RidgelineError

_ROOT = Path(__file__).parents[2]
_PACKAGES = ("ridgeline", "serving")
_ALLOWED = {"p50": 1.05}
_PLANTED = """

def _plant(share):
    import time

    import onnxruntime

    inner = onnxruntime.InferenceSession.run

    def run(self, *words, **more):
        begin_ns = time.perf_counter_ns()
        results = inner(self, *words, **more)
        now_ns = time.perf_counter_ns()
        end_ns = now_ns + share * (now_ns - begin_ns)
        while time.perf_counter_ns() < end_ns:
            pass
        return results

    onnxruntime.InferenceSession.run = run


_plant({share})
"""


def main() -> int:
    """Run the trials, print the counts, write the JSON. Returns the exit code."""
    arguments = _arguments()
    begin_s = time.monotonic()
    trials: list[dict[str, Any]] = []
    try:
        with tempfile.TemporaryDirectory(prefix="ridgeline-proof-") as name:
            repository = Path(name) / "repository"
            networks.write([arguments.model], root=repository)
            for number in range(arguments.trials):
                for percent in arguments.percent:
                    out_of_time = time.monotonic() - begin_s > arguments.most_seconds
                    if not out_of_time:
                        trials.append(_trial(arguments, repository, percent=percent, seed=number))
    except RidgelineError as error:
        print(f"budget proof: {error}", file=sys.stderr)
        return 1
    result = {
        "model": arguments.model,
        "allowed": _ALLOWED,
        "seconds": time.monotonic() - begin_s,
        "environment": environment.describe(),
        "trials": trials,
    }
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    for percent in arguments.percent:
        print(_summary(trials, percent=percent))
    return 0


def _trial(
    arguments: argparse.Namespace, repository: Path, *, percent: int, seed: int
) -> dict[str, Any]:
    """One comparison of this version with a copy that is so much slower."""
    load_average = os.getloadavg()[0]
    with _copy(percent=0) as baseline, _copy(percent=percent) as candidate:
        (finding,) = compare(
            arguments.model,
            limits=_ALLOWED,
            versions=(baseline, candidate),
            repository=repository,
            effort=Effort(pairs=arguments.pairs, most_rounds=arguments.most_rounds),
            announce=lambda _: None,
            seed=seed,
        )
    found = asdict(finding) | {"planted_percent": percent, "load_average": load_average}
    print(f"planted {percent:>2} %: {finding.verdict}, {finding.text}", flush=True)
    return found


@contextlib.contextmanager
def _copy(*, percent: int) -> Iterator[Version]:
    """This version of the server, with a slowdown planted."""
    with tempfile.TemporaryDirectory(prefix="ridgeline-planted-") as name:
        folder = Path(name)
        for package in _PACKAGES:
            shutil.copytree(_ROOT / package, folder / package)
        if percent:
            with (folder / "serving" / "__init__.py").open("a", encoding="utf-8") as file:
                file.write(_PLANTED.replace("{share}", str(percent / 100)))
        yield Version(f"planted {percent} %", sys.executable, folder)


def _summary(trials: list[dict[str, Any]], *, percent: int) -> str:
    own = [trial for trial in trials if trial["planted_percent"] == percent]
    counts = Counter(trial["verdict"] for trial in own)
    expected = MISSED if percent else HELD
    rest = ", ".join(f"{count} {name}" for name, count in counts.items() if name != expected)
    return (
        f"planted {percent:>2} %: {counts[expected]} of {len(own)} trials {expected}"
        f"{f'; {rest}' if rest else ''}"
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m loadtest.bench.budget_proof", description=__doc__
    )
    parser.add_argument("--model", default="cnn78")
    parser.add_argument("--percent", type=int, nargs="+", default=[0, 10, 25])
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--most-rounds", type=int, default=40)
    parser.add_argument("--most-seconds", type=float, default=float("inf"))
    parser.add_argument("--output", type=Path, default=Path("reports/budget-proof.json"))
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
