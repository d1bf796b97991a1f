"""The command `ridgeline loadtest`: measure a server's latency beside the physical floor."""

import argparse
import functools
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

DEFAULT_DURATION_S, DEFAULT_WARMUP_S = 10.0, 2.0


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
    file(
        "--data",
        help="an .npz file with samples to send, its keys being input names; "
        "random values otherwise",
    )
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
    file("--raw", help="keep every request's times in this .npz file")
    file("--output", help="also write the result as JSON to this file")


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
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(result, indent=2, allow_nan=False)
        arguments.output.write_text(text + "\n", encoding="utf-8")
    return result


def show(result: Mapping[str, Any]) -> None:
    """Print one table of all runs, and why the floor is unknown or a run is INVALID."""
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table

    first = result["runs"][0]
    server, model, load = first["server"], first["model"], first["settings"]["load"]
    how = f"{load['rate_per_s']:g}/s" if load["kind"] == "open" else f"{load['concurrency']} slots"
    table = Table(
        title=f"{model['name']} version {model['version'] or '?'} on {server['name']} "
        f"{server['version']}, {first['protocol']}, {load['kind']} loop, {how}",
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


def _settings(arguments: argparse.Namespace) -> Any:
    """The flags as LoadtestSettings. Raises WrongUsage."""
    from loadtest.schedule import ClosedLoop, Load, OpenLoop
    from loadtest.settings import LoadtestSettings
    from ridgeline.errors import InvalidInput, WrongUsage

    try:
        load: Load = (
            ClosedLoop(1 if arguments.concurrency is None else arguments.concurrency)
            if arguments.rate is None
            else OpenLoop(arguments.rate)
        )
        return LoadtestSettings(
            url=arguments.url,
            protocol=arguments.protocol,
            model=arguments.model,
            model_version=arguments.model_version,
            load=load,
            duration_s=arguments.duration,
            warmup_s=arguments.warmup,
            batch_sizes=tuple(arguments.batch_size),
            seed=arguments.seed,
            data=arguments.data,
            repository=arguments.repository,
            hardware=arguments.hardware,
            request_timeout_s=arguments.request_timeout,
            min_requests=arguments.min_requests,
        )
    except InvalidInput as error:
        raise WrongUsage(str(error)) from error


def _figure(value: float | None) -> str:
    """Three significant digits, never in powers of ten."""
    if value is None:
        return "?"
    return f"{value:,.0f}" if value >= 1000 else f"{value:#.3g}".rstrip(".")
