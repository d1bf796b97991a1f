"""`make bench-peers`: model servers under more load than they can bear, one after the other.

Each round starts each server anew and measures its capacity (closed loop, 64 in flight), then, open
loop, how much it still answers on time at multiples of that; then the same with deadlines mixed;
then how soon all is well again after an overload. The capacity is measured anew after each load.
Reported are medians over the rounds.
"""

import argparse
import contextlib
import json
import os
import resource
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from loadtest.bench import networks
from loadtest.bench.overload_figures import complaints, medians, round_figures
from loadtest.bench.overload_runs import (
    DEADLINE_MS,
    IN_FLIGHT,
    MIXED_DEADLINES_MS,
    OFFERED,
    Bench,
    brief_capacity_per_s,
    measure,
)
from loadtest.bench.overload_servers import SERVERS, Sample, server
from loadtest.bench.overload_show import on_time_plot, table
from ridgeline.errors import RidgelineError, StepFailed

_FILES = 8192


@contextlib.contextmanager
def _bench(
    name: str,
    *,
    repository: Path,
    model: str,
    client_core: int | None,
    capacity_per_s: float | None = None,
) -> Iterator[Bench]:
    sample = Sample.of(repository, model=model)
    start = server(
        name,
        repository=repository,
        model=model,
        deadline_ms=DEADLINE_MS,
        capacity_per_s=capacity_per_s,
    )
    with tempfile.TemporaryDirectory(prefix="ridgeline-bench-") as folder, start as target:
        yield Bench(target, sample, Path(folder), client_core)


def _capacity_to_tune_for(name: str, **told: Any) -> float | None:
    """A tuned server needs to be told its queue: what it serves as it comes, measured briefly."""
    plain, _, variant = name.partition("-")
    if not variant:
        return None
    with _bench(plain, **told) as bench:
        return brief_capacity_per_s(bench)


def _over_model(model: str, *, arguments: argparse.Namespace, repository: Path) -> dict[str, Any]:
    """All rounds of all servers over one model.

    A server that dies of a round has one less, and the others go on. Raises StepFailed where none
    has any.
    """
    console = Console(stderr=True)
    told = {"repository": repository, "model": model, "client_core": arguments.client_core}
    raw: dict[str, dict[int, dict[str, Any]]] = {name: {} for name in arguments.servers}
    deaths: dict[str, list[str]] = {name: [] for name in arguments.servers}
    tuning: dict[str, float | None] = {}
    for number in range(1, arguments.rounds + 1):
        for name in arguments.servers:
            console.print(f"[bold]{model}, round {number}: {name}[/bold]")
            try:
                if name not in tuning:
                    tuning[name] = _capacity_to_tune_for(name, **told)
                with _bench(name, **told, capacity_per_s=tuning[name]) as bench:
                    raw[name][number] = measure(
                        bench,
                        duration_s=arguments.duration,
                        seed=number,
                        least_capacity_per_s=tuning[name] or 0.0,
                    )
            except StepFailed as error:
                console.print(f"overload: {error}", highlight=False)
                deaths[name].append(f"round {number}: {error}")
    if not any(raw.values()):
        raise StepFailed(f"{model}: no server lived through a round")
    return {
        name: {
            "medians": medians([round_figures(each) for each in rounds.values()]),
            "invalid": [
                *deaths[name],
                *(f"round {n}, {text}" for n, each in rounds.items() for text in complaints(each)),
            ],
            "rounds": list(rounds.values()),
        }
        for name, rounds in raw.items()
        if rounds
    }


def main() -> int:
    """Run the rounds, print the medians, write all as JSON and a plot. Returns the exit code."""
    arguments = _arguments()
    _separate(arguments)
    settings = {
        "rounds": arguments.rounds,
        "duration_s": arguments.duration,
        "in_flight": IN_FLIGHT,
        "offered": OFFERED,
        "deadline_ms": DEADLINE_MS,
        "mixed_deadlines_ms": MIXED_DEADLINES_MS,
        "server_cores": sorted(os.sched_getaffinity(0)),
        "client_core": arguments.client_core,
    }
    models = {}
    try:
        with tempfile.TemporaryDirectory(prefix="ridgeline-networks-") as folder:
            for model in arguments.models:
                repository = arguments.repository or Path(folder) / model
                if arguments.repository is None:
                    networks.write([model], root=repository)
                models[model] = _over_model(model, arguments=arguments, repository=repository)
    except RidgelineError as error:
        print(f"overload: {error}", file=sys.stderr)
        return 1
    _write({"settings": settings, "models": models}, path=arguments.output)
    return 0


def _write(result: Mapping[str, Any], *, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1), encoding="utf-8")
    result = json.loads(path.read_text(encoding="utf-8"))
    path.with_suffix(".svg").write_text(on_time_plot(result), encoding="utf-8")
    console = Console()
    for model, servers in result["models"].items():
        console.print(table(servers, model=model, settings=result["settings"]))
        for name, found in servers.items():
            for text in found["invalid"]:
                console.print(f"INVALID {model}, {name}, {text}", highlight=False)


def _separate(arguments: argparse.Namespace) -> None:
    """Leave a core to the client, and the others to the servers, which inherit what we have."""
    cores = sorted(os.sched_getaffinity(0))
    if arguments.client_core is None and len(cores) > 1:
        arguments.client_core = cores[-1]
    if arguments.client_core is not None and arguments.client_core < 0:
        arguments.client_core = None
    if arguments.client_core is not None and len(cores) > 1:
        os.sched_setaffinity(0, set(cores) - {arguments.client_core})
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if most == resource.RLIM_INFINITY else min(_FILES, most)
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), most))


def _arguments() -> argparse.Namespace:
    def names(text: str) -> list[str]:
        return [name for name in text.split(",") if name]

    parser = argparse.ArgumentParser(prog="python -m loadtest.bench.overload", description=__doc__)
    parser.add_argument("--models", type=names, default=["lenet5", "cnn78"])
    parser.add_argument("--servers", type=names, default=list(SERVERS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--duration", type=float, default=4.0, help="seconds per measurement")
    parser.add_argument("--repository", type=Path, help="default: networks made on the spot")
    parser.add_argument(
        "--client-core", type=int, help="core of the load generator; -1: any; default: the last"
    )
    parser.add_argument("--output", type=Path, default=Path("reports/overload.json"))
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
