"""`make bench`: the gateway beside bare ONNX Runtime, as ratios within one run.

Each round measures, one after the other on the same machine: ONNX Runtime alone in a process of its
own, then the gateway under the load generator, over gRPC and over HTTP. Reported are the medians of
five rounds; on shared machines only the ratios mean anything.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families
from rich import box
from rich.console import Console
from rich.table import Table

from ridgeline.children import gateway, step
from ridgeline.errors import RidgelineError, StepFailed
from ridgeline.repository import MODEL_FILE, scan

_PROTOCOLS = ("grpc", "http")
_IN_FLIGHT = 64


def main() -> int:
    """Run the rounds, print the medians, write them as JSON. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.bench", description=__doc__)
    parser.add_argument("--repository", type=Path, default=Path("model_repository"))
    parser.add_argument("--model", default="lenet5")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--duration", type=float, default=3.0, help="seconds per measurement")
    parser.add_argument("--output", type=Path, default=Path("reports/bench.json"))
    arguments = parser.parse_args()
    try:
        rounds = [_round(arguments, number=number) for number in range(1, arguments.rounds + 1)]
    except RidgelineError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    medians = {key: statistics.median(found[key] for found in rounds) for key in rounds[0]}
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    result = {"model": arguments.model, "medians": medians, "rounds": rounds}
    arguments.output.write_text(json.dumps(result, indent=2), encoding="utf-8")
    _show(medians, title=f"{arguments.model}: medians of {len(rounds)} rounds")
    return 0


def _round(arguments: argparse.Namespace, *, number: int) -> dict[str, float]:
    """One measurement of everything."""
    bare = _bare(arguments)
    found = {"bare_samples_per_s": bare["best_samples_per_s"], "bare_p50_ms": bare["p50_ms"]}
    with gateway(arguments.repository) as ready:
        for protocol in _PROTOCOLS:
            url = f"127.0.0.1:{ready[protocol + '_port']}"
            target = ("loadtest", "--url", url, "--protocol", protocol, "--model", arguments.model)
            timing = ("--duration", arguments.duration, "--warmup", 0.5)
            title = f"round {number}: {protocol}"
            before = _server_cost(ready)
            (many,) = step(
                f"{title}, {_IN_FLIGHT} in flight", *target, *timing, "--concurrency", _IN_FLIGHT
            )["runs"]
            cpu_s, answered = (b - a for a, b in zip(before, _server_cost(ready), strict=True))
            (one,) = step(f"{title}, one at a time", *target, *timing)["runs"]
            throughput = many["throughput"]["samples_per_s"]
            found |= {
                f"{protocol}_samples_per_s": throughput,
                f"{protocol}_share_of_bare": throughput / bare["best_samples_per_s"],
                f"{protocol}_server_cpu_us": 1e6 * cpu_s / answered,
                f"{protocol}_client_cpu_us": 1e6 * many["client"]["cpu_s_per_request"],
                f"{protocol}_p50_ms": one["latency_ms"]["p50"]["value"],
                f"{protocol}_p50_to_bare": one["latency_ms"]["p50"]["value"] / bare["p50_ms"],
            }
    return found


def _bare(arguments: argparse.Namespace) -> dict[str, float]:
    """ONNX Runtime alone, on the newest version's graph."""
    models = {model.name: model for model in scan(arguments.repository)}
    if arguments.model not in models:
        raise StepFailed(f"{arguments.repository} holds no model {arguments.model!r}")
    model = models[arguments.model]
    path = model.version_directory(model.versions[-1]) / MODEL_FILE
    words = [sys.executable, "-m", "loadtest.bare_engine", str(path), str(arguments.duration)]
    done = subprocess.run(words, stdout=subprocess.PIPE, check=False)  # noqa: S603 - our own module
    if done.returncode:
        raise StepFailed(f"bare ONNX Runtime ended with exit code {done.returncode}")
    found: dict[str, float] = json.loads(done.stdout)
    return found


def _server_cost(ready: Mapping[str, Any]) -> tuple[float, float]:
    """CPU seconds of the gateway so far, and the requests it has answered."""
    fields = (
        Path(f"/proc/{ready['pid']}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()
    )
    ticks = int(fields[11]) + int(fields[12])  # utime and stime, proc(5)
    url = f"http://127.0.0.1:{ready['metrics_port']}/metrics"
    with urllib.request.urlopen(url) as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    (success,) = (family for family in families if family.name == "nv_inference_request_success")
    answered = sum(sample.value for sample in success.samples)
    return ticks / os.sysconf("SC_CLK_TCK"), answered


def _show(medians: Mapping[str, float], *, title: str) -> None:
    table = Table("", "gRPC", "HTTP", title=title, box=box.SIMPLE)
    rows = (
        (f"samples/s, {_IN_FLIGHT} in flight", "samples_per_s", ",.0f"),
        ("share of bare ONNX Runtime", "share_of_bare", ".1%"),
        ("server CPU per request, us", "server_cpu_us", ".0f"),
        ("client CPU per request, us", "client_cpu_us", ".0f"),
        ("p50 one at a time, ms", "p50_ms", ".2f"),
        ("the same / bare ONNX Runtime", "p50_to_bare", ".1f"),
    )
    for text, key, form in rows:
        table.add_row(
            text, *(format(medians[f"{protocol}_{key}"], form) for protocol in _PROTOCOLS)
        )
    Console().print(table)
    print(
        f"bare ONNX Runtime: {medians['bare_samples_per_s']:,.0f} samples/s at its best batch "
        f"size, p50 {medians['bare_p50_ms']:.3f} ms for one sample"
    )


if __name__ == "__main__":
    sys.exit(main())
