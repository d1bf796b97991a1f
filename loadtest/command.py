"""The command `ridgeline loadtest`: measure a server's latency beside the physical floor."""

import argparse
import functools
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from loadtest.schedule import Load

DEFAULT_DURATION_S, DEFAULT_WARMUP_S = 10.0, 2.0
SCENARIOS = (
    *("single-stream", "multi-stream", "server", "offline"),
    *("ramp", "bursts", "replay"),
)
_OFFLINE_CONCURRENCY = 64


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `ridgeline loadtest`."""
    add_target(parser)
    load = parser.add_mutually_exclusive_group()
    load.add_argument(
        "--rate", type=float, metavar="R", help="open loop: R requests per second, Poisson arrivals"
    )
    load.add_argument(
        "--concurrency",
        type=int,
        metavar="C",
        help="closed loop: C slots, each sending when its last request was answered (default: 1)",
    )
    add_scenarios(parser)
    number = functools.partial(parser.add_argument, metavar="S", type=float)
    number("--duration", default=DEFAULT_DURATION_S, help="seconds to measure (default: 10)")
    number("--warmup", default=DEFAULT_WARMUP_S, help="seconds before, discarded (default: 2)")
    number("--request-timeout", default=10.0, help="longest wait for an answer (default: 10)")
    parser.add_argument(
        "--batch-size",
        type=int,
        nargs="+",
        default=[1],
        metavar="B",
        help="rows per request; several give one run each (default: 1)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of inputs and arrivals (default: 0)")
    parser.add_argument(
        "--min-requests",
        type=int,
        default=100,
        metavar="N",
        help="a run with fewer answers is INVALID (default: 100)",
    )
    file = functools.partial(parser.add_argument, type=Path, metavar="FILE")
    add_data(parser)
    parser.add_argument(
        "--repository",
        type=Path,
        metavar="DIR",
        help="where to find the model's FLOPs, if the server does not tell them",
    )
    file(
        "--hardware",
        help="what `ridgeline hardware --json` printed on the server's machine, "
        "if that is not this one",
    )
    parser.add_argument(
        "--capacity-p99",
        type=float,
        metavar="MS",
        help="instead of one load, search for the largest rate whose p99 stays within MS",
    )
    file("--raw", help="keep every request's times in this .npz file")
    file("--output", help="also write the result as JSON to this file")


def add_scenarios(parser: argparse.ArgumentParser) -> None:
    """Add the flags of loads that are more than one rate or concurrency."""
    parser.add_argument(
        "--scenario",
        choices=SCENARIOS,
        help="single-stream: one request at a time; multi-stream: one at a time, of --batch-size "
        "samples; server: Poisson at --rate; offline: as much as it bears, --concurrency at a time "
        "(default: 64); ramp: from --rate to --to-rate; bursts: --rate, and --to-rate for 0.2 s of "
        "every 2 s; replay: --trace as it was recorded",
    )
    parser.add_argument("--to-rate", type=float, metavar="R", help="of ramps and bursts")
    parser.add_argument(
        "--trace",
        type=Path,
        metavar="FILE",
        help='JSON lines such as {"time_s": 0.25, "rows": 4}',
    )
    parser.add_argument(
        "--client-core", type=int, metavar="N", help="pin the load generator to that core"
    )


def add_data(parser: argparse.ArgumentParser) -> None:
    """Add the flag that names samples."""
    parser.add_argument(
        "--data",
        type=Path,
        nargs="+",
        default=[],
        metavar="PATH",
        help="files or folders with samples to send: .npz and .jsonl with the names of inputs (and "
        '"label", and outputs that are right), .npy, or files to be sent as they are, such as '
        "JPEG, with what is right in NAME.json beside them; random values otherwise",
    )


def add_target(parser: argparse.ArgumentParser) -> None:
    """Add the flags that name a server and a model."""
    parser.add_argument(
        "--url", required=True, metavar="HOST:PORT", help="where the server listens"
    )
    parser.add_argument("--protocol", required=True, choices=["grpc", "http"])
    parser.add_argument("--model", required=True, metavar="M", help="name of the model")
    parser.add_argument(
        "--model-version", default="", metavar="V", help="version of it (default: the newest)"
    )


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure; returns {"runs": [one per batch size], "hardware": the machine or None}.

    Raises WrongUsage for flags that make no sense, otherwise as `measurement.measure`.
    """
    from dataclasses import asdict

    from loadtest import eventloop, measurement
    from loadtest.result import raw_arrays

    if arguments.capacity_p99 is not None:
        return _capacity(arguments)
    settings = _settings(arguments)
    announce: Callable[[str], object] = functools.partial(print, file=sys.stderr, flush=True)
    results = eventloop.run(measurement.measure(settings, announce=announce))
    hardware = results[0].target.hardware
    result = {
        "runs": [each.to_json() for each in results],
        "hardware": asdict(hardware) if hardware else None,
    }
    if arguments.raw:
        import numpy as np

        arguments.raw.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(arguments.raw, **raw_arrays(results))
    _write(result, path=arguments.output)
    return result


def _capacity(arguments: argparse.Namespace) -> dict[str, Any]:
    from loadtest import capacity_run, eventloop

    announce: Callable[[str], object] = functools.partial(print, file=sys.stderr, flush=True)
    search = capacity_run.measure_capacity(
        _settings(arguments), budget_ms=arguments.capacity_p99, announce=announce
    )
    result = {"capacity": eventloop.run(search)}
    _write(result, path=arguments.output)
    return result


def _write(result: Mapping[str, Any], *, path: Path | None) -> None:
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(result, indent=2, allow_nan=False)
        path.write_text(text + "\n", encoding="utf-8")


def show(result: Mapping[str, Any]) -> None:
    """Print one table of all runs, and why the floor is unknown or a run is INVALID."""
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table

    if "capacity" in result:
        return _show_capacity(result["capacity"])
    first = result["runs"][0]
    server, model, load = first["server"], first["model"], first["settings"]["load"]
    how = how_much(load)
    table = Table(
        title=f"{model['name']} version {model['version'] or '?'} on {server['name']} "
        f"{server['version']}, {first['protocol']}, {first['scenario']}, {how}",
        caption="latency from the intended send time; p99 with its confidence interval",
        box=SIMPLE,
        show_edge=False,
        padding=(0, 1, 0, 0),  # fits into 80 columns
    )
    columns = "batch", "p50 ms", "p99 ms", "(95 % interval)", "samples/s", "floor ms", "p50/floor"
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for row in result["runs"]:
        p50, p99 = row["latency_ms"]["p50"], row["latency_ms"]["p99"]
        table.add_row(
            str(row["batch_size"]),
            _figure(p50["value"]),
            _figure(p99["value"]),
            f"({_figure(p99['low'])} .. {_figure(p99['high'])})",
            f"{row['throughput']['samples_per_s']:,.0f}",
            _figure(row["floor_ms"]),
            _figure((row["ratio_to_floor"] or {}).get("p50")),
            row["verdict"],
        )
    console = Console()
    console.print(table)
    for note in dict.fromkeys(row["floor_note"] for row in result["runs"] if row["floor_note"]):
        console.print(f"floor: {note}", soft_wrap=True, markup=False)
    for row in result["runs"]:
        for reason in row["reasons"]:
            text = f"{row['verdict']}, batch size {row['batch_size']}: {reason}"
            console.print(text, soft_wrap=True, markup=False)


def _show_capacity(found: Mapping[str, Any]) -> None:
    """The probes, and what they enclose."""
    for probe in found["probes"]:
        print(
            f"{probe['rate_per_s']:>10,.0f}/s  p50 {_figure(probe['p50_ms'])} ms  "
            f"p99 {_figure(probe['p99_ms'])} ms ({_figure(probe['p99_low_ms'])} .. "
            f"{_figure(probe['p99_high_ms'])})  {probe['failed']} failed  "
            f"{probe['wrong']} wrong  {probe['judged']}"
        )
    held, missed = found["held_per_s"], found["missed_per_s"] or found["open_per_s"]
    print(
        f"p99 within {found['budget_ms']:g} ms: held at {_figure(held)}/s, "
        f"{'undecided' if found['open_per_s'] else 'missed'} at {_figure(missed)}/s"
    )


def _settings(arguments: argparse.Namespace) -> Any:
    """The flags as LoadtestSettings. Raises WrongUsage."""
    from loadtest.schedule import Replay
    from loadtest.settings import LoadtestSettings
    from ridgeline.errors import InvalidInput, WrongUsage

    try:
        load = _load(arguments)
        duration_s, batch_sizes = arguments.duration, tuple(arguments.batch_size)
        if isinstance(load, Replay):
            duration_s, batch_sizes = load.duration_s, (min(load.rows),)
        return LoadtestSettings(
            url=arguments.url,
            protocol=arguments.protocol,
            model=arguments.model,
            model_version=arguments.model_version,
            load=load,
            duration_s=duration_s,
            warmup_s=arguments.warmup,
            batch_sizes=batch_sizes,
            seed=arguments.seed,
            data=tuple(arguments.data),
            repository=arguments.repository,
            hardware=arguments.hardware,
            request_timeout_s=arguments.request_timeout,
            min_requests=arguments.min_requests,
            client_core=arguments.client_core,
        )
    except InvalidInput as error:
        raise WrongUsage(str(error)) from error


def _load(arguments: argparse.Namespace) -> "Load":
    """The load that the flags ask for. Raises InvalidInput, WrongUsage, NotFound or CorruptData."""
    from loadtest import schedule
    from ridgeline.errors import WrongUsage

    scenario = arguments.scenario or ("server" if arguments.rate is not None else "closed")
    needed = {"server": ["rate"], "ramp": ["rate", "to_rate"], "bursts": ["rate", "to_rate"]}
    needed["replay"] = ["trace"]
    for name in needed.get(scenario, []):
        if getattr(arguments, name) is None:
            raise WrongUsage(f"--scenario {scenario} needs --{name.replace('_', '-')}")
    if scenario in ("single-stream", "multi-stream") and (arguments.concurrency or 1) != 1:
        raise WrongUsage(f"--scenario {scenario} sends one request at a time")
    if scenario == "single-stream" and arguments.batch_size != [1]:
        raise WrongUsage("--scenario single-stream sends one sample; multi-stream sends several")
    if scenario == "server":
        return schedule.OpenLoop(arguments.rate)
    if scenario == "ramp":
        return schedule.Ramp(arguments.rate, arguments.to_rate)
    if scenario == "bursts":
        return schedule.Bursts(arguments.rate, arguments.to_rate)
    if scenario == "replay":
        return schedule.read_trace(arguments.trace)
    fallback = _OFFLINE_CONCURRENCY if scenario == "offline" else 1
    return schedule.ClosedLoop(fallback if arguments.concurrency is None else arguments.concurrency)


def how_much(load: Mapping[str, Any]) -> str:
    """The load of a result in a few words."""
    kind = load["kind"]
    if kind == "closed":
        return f"closed loop, {load['concurrency']} slots"
    if kind == "ramp":
        return f"ramp from {load['from_per_s']:g}/s to {load['to_per_s']:g}/s"
    if kind == "bursts":
        return f"{load['rate_per_s']:g}/s, bursts of {load['burst_per_s']:g}/s"
    return f"{'trace' if kind == 'replay' else 'open loop'}, {load['rate_per_s']:g}/s"


def _figure(value: float | None) -> str:
    """Three significant digits, never in powers of ten."""
    if value is None:
        return "?"
    return f"{value:,.0f}" if value >= 1000 else f"{value:#.3g}".rstrip(".")
