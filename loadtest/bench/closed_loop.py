"""`make bench`: the gateway beside bare ONNX Runtime, as ratios within one run.

Each round measures, one after the other on the same machine, for each network: ONNX Runtime alone
in a process of its own; then each server with 64 requests in flight, with one at a time, and bare
echoes of the same size (ServerLive carrying a field that nobody reads). Reported are the medians
over the rounds; on shared machines only the ratios mean anything.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from loadtest.bench import networks
from loadtest.bench.overload_runs import IN_FLIGHT, Bench
from loadtest.bench.overload_servers import SERVERS, Sample, server
from ridgeline.errors import RidgelineError, StepFailed
from ridgeline.repository import MODEL_FILE, scan

_WARM_UP_S = 0.5
_DEADLINE_MS, _CAPACITY_PER_S = 1000.0, 1e5  # tuned peers get queues that bound nothing here
_US_PER_S = 1e6
_LEAST_TURNS = 8  # answers to each place in flight, however long that takes
_ROWS = (
    ("samples/s, 64 in flight", "samples_per_s", ",.0f"),
    ("share of bare ONNX Runtime", "share_of_bare", ".1%"),
    ("the same without the client's share of the CPU", "share_without_client", ".1%"),
    ("share of bare single samples", "share_of_single", ".1%"),
    ("server CPU per request, us", "server_cpu_us", ".0f"),
    ("the same per echo, us", "echo_cpu_us", ".0f"),
    ("the same / (echo + bare engine)", "cpu_to_echo_and_engine", ".2f"),
    ("client CPU per request, us", "client_cpu_us", ".0f"),
    ("p50 one at a time, ms", "p50_ms", ".3f"),
    ("p50 of an echo, ms", "echo_p50_ms", ".3f"),
    ("(p50 - bare p50) / echo p50", "added_to_echo", ".2f"),
    ("the same, the bare engine rested before each run", "added_to_rested_and_echo", ".2f"),
)


def main() -> int:
    """Run the rounds, print the medians, write them as JSON. Returns the exit code."""
    arguments = _arguments()
    result: dict[str, Any] = {"cores": sorted(os.sched_getaffinity(0)), "models": {}}
    try:
        with tempfile.TemporaryDirectory(prefix="ridgeline-networks-") as folder:
            for model in arguments.models:
                repository = arguments.repository or Path(folder) / model
                if arguments.repository is None:
                    networks.write([model], root=repository)
                rounds = [
                    _round(arguments, repository=repository, model=model, number=number)
                    for number in range(1, arguments.rounds + 1)
                ]
                result["models"][model] = {"medians": _medians(rounds), "rounds": rounds}
    except RidgelineError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(result, indent=2), encoding="utf-8")
    for model, found in result["models"].items():
        _show(found["medians"], title=f"{model}: medians of {len(found['rounds'])} rounds")
    return 0


def _round(
    arguments: argparse.Namespace, *, repository: Path, model: str, number: int
) -> dict[str, Any]:
    """One measurement of everything, over one network."""
    Console(stderr=True).print(f"[bold]{model}, round {number}[/bold]")
    model_path = _graph_of(repository, model=model)
    bare = _bare(model_path, 2 * arguments.duration)
    found: dict[str, Any] = {"bare": bare}
    sample = Sample.of(repository, model=model)
    best = _Best(model_path, bare["best"], arguments.duration)
    for name in arguments.servers:
        start = server(name, repository=repository, model=model, deadline_ms=0, capacity_per_s=None)
        with tempfile.TemporaryDirectory() as folder, start as target:
            bench = Bench(target, sample, Path(folder), None)
            found[name] = _measure(bench, bare=bare, best=best, seconds=arguments.duration)
    found["bare"]["best_samples_per_s"] = statistics.median(best.rates)
    return found


class _Best:
    """The bare engine, run in the way that a survey found best.

    Measured anew before and after each server's run: the best of many noisy figures is too high,
    and a shared machine changes its speed within seconds.
    """

    def __init__(self, path: Path, way: Sequence[int], seconds: float) -> None:
        self._path, self._way, self._seconds = path, way, seconds
        self.rates: list[float] = []

    def samples_per_s(self) -> float:
        """Measure once more."""
        found = _bare(self._path, self._seconds, *self._way)
        self.rates.append(found["samples_per_s"])
        return self.rates[-1]


def _measure(
    bench: Bench, *, bare: Mapping[str, Any], best: _Best, seconds: float
) -> dict[str, float]:
    bench.closed(_WARM_UP_S)
    before = best.samples_per_s()
    many = bench.closed(max(seconds, _LEAST_TURNS * IN_FLIGHT / before))
    best_per_s = (before + best.samples_per_s()) / 2
    if not many["answered"]:
        raise StepFailed(f"{bench.target.name} answered nothing: {many['refused']}")
    cores = len(os.sched_getaffinity(0))
    throughput, client_us = many["answered_per_s"], many["client"]["cpu_us_per_request"]
    client_share = throughput * client_us / _US_PER_S / cores
    figures = {
        "samples_per_s": throughput,
        "share_of_bare": throughput / best_per_s,
        "share_without_client": throughput / best_per_s / (1 - client_share),
        "share_of_single": throughput / bare["single_samples_per_s"],
        "server_cpu_us": _cpu_us(many),
        "client_cpu_us": client_us,
    }
    one = bench.closed(seconds, in_flight=1)
    figures["p50_ms"] = one["classes"][0]["p50_ms"]
    if bench.target.protocol == "grpc":
        figures |= _beside_echoes(bench, figures, bare=bare, seconds=seconds)
    return figures


def _beside_echoes(
    bench: Bench, figures: Mapping[str, float], *, bare: Mapping[str, Any], seconds: float
) -> dict[str, float]:
    size_bytes = bench.sample.array.nbytes
    echo = bench.closed(seconds, echo_bytes=size_bytes)
    one_echo = bench.closed(seconds, echo_bytes=size_bytes, in_flight=1)
    echo_p50_ms, p50_ms = one_echo["classes"][0]["p50_ms"], figures["p50_ms"]
    engine_us = bare["cpu_us_per_sample"]
    return {
        "echo_cpu_us": _cpu_us(echo),
        "cpu_to_echo_and_engine": figures["server_cpu_us"] / (_cpu_us(echo) + engine_us),
        "echo_p50_ms": echo_p50_ms,
        "added_to_echo": (p50_ms - bare["p50_ms"]) / echo_p50_ms,
        "added_to_rested_and_echo": (p50_ms - bare["rested_p50_ms"]) / echo_p50_ms,
    }


def _cpu_us(run: Mapping[str, Any]) -> float:
    return _US_PER_S * float(run["server_cpu_s"]) / max(1, int(run["answered"]))


def _graph_of(repository: Path, *, model: str) -> Path:
    """The newest version's file."""
    models = {found.name: found for found in scan(repository)}
    if model not in models:
        raise StepFailed(f"{repository} holds no model {model!r}")
    return models[model].version_directory(models[model].versions[-1]) / MODEL_FILE


def _bare(path: Path, seconds: float, *way: int) -> dict[str, Any]:
    """ONNX Runtime alone, in one way or in all of them."""
    words = [sys.executable, "-m", "loadtest.bench.bare_engine", path, seconds, *way]
    done = subprocess.run(  # noqa: S603 - our own module
        [str(word) for word in words], stdout=subprocess.PIPE, check=False
    )
    if done.returncode:
        raise StepFailed(f"bare ONNX Runtime ended with exit code {done.returncode}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _medians(rounds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Of each figure of each part of the rounds; of the best way to run, the first round's."""
    return {
        part: {
            key: value
            if isinstance(value, list)
            else statistics.median(each[part][key] for each in rounds)
            for key, value in figures.items()
        }
        for part, figures in rounds[0].items()
    }


def _show(medians: Mapping[str, Any], *, title: str) -> None:
    names = [name for name in medians if name != "bare"]
    table = Table("", *names, title=title, box=box.SIMPLE)
    for text, key, form in _ROWS:
        table.add_row(
            text,
            *(format(medians[name][key], form) if key in medians[name] else "" for name in names),
        )
    Console().print(table)
    bare = medians["bare"]
    workers, threads, rows = bare["best"]
    print(
        f"bare ONNX Runtime: {bare['best_samples_per_s']:,.0f} samples/s at its best "
        f"({workers} x {threads} thread(s), batch size {rows}), "
        f"{bare['single_samples_per_s']:,.0f} one by one, p50 {bare['p50_ms']:.3f} ms (rested: "
        f"{bare['rested_p50_ms']:.3f}) and {bare['cpu_us_per_sample']:.0f} us CPU for one sample"
    )


def _arguments() -> argparse.Namespace:
    def names(text: str) -> list[str]:
        return [name for name in text.split(",") if name]

    parser = argparse.ArgumentParser(
        prog="python -m loadtest.bench.closed_loop", description=__doc__
    )
    parser.add_argument("--models", type=names, default=["lenet5", "cnn78", "resnet50"])
    parser.add_argument(
        "--servers", type=names, default=["ridgeline"], help=f"of {', '.join(SERVERS)}"
    )
    parser.add_argument("--repository", type=Path, help="default: networks made on the spot")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--duration", type=float, default=3.0, help="seconds per measurement")
    parser.add_argument("--output", type=Path, default=Path("reports/bench.json"))
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
