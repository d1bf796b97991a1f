"""The command `ridgeline demo`: the whole life of a model, once, each step a command of its own.

Every step runs as `python -m ridgeline STEP --json` in a child process: the demo does what a user
would do, and shares with the stages nothing but files, sockets and their JSON.
"""

import argparse
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from ridgeline.children import gateway, step
from ridgeline.errors import StepFailed

_PROTOCOLS = ("grpc", "http")
_SWEEP = (1, 2, 4, 8, 16, 32, 64)
_IN_FLIGHT = 32


@dataclass(frozen=True)
class DemoSettings:
    """What the demo trains, where it writes, and how long each measurement takes."""

    recipe: str
    artifacts: Path
    repository: Path
    reports: Path
    duration_s: float


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The folders and the recipe; the defaults are those of `make demo`."""
    parser.add_argument("--recipe", default="lenet5", help="recipe to train (default: lenet5)")
    parser.add_argument("--artifacts", type=Path, default=Path("artifacts"), metavar="DIR")
    parser.add_argument("--repository", type=Path, default=Path("model_repository"), metavar="DIR")
    parser.add_argument("--reports", type=Path, default=Path("reports/demo"), metavar="DIR")
    parser.add_argument(
        "--duration", type=float, default=2.0, metavar="S", help="seconds per measurement"
    )


def run(arguments: argparse.Namespace) -> Mapping[str, Any]:
    """Train, export, serve, evaluate and measure; write summary.json and index.html.

    Raises StepFailed where a step fails, or where the served answers are not the trained ones.
    """
    begin = time.monotonic()
    settings = DemoSettings(
        recipe=arguments.recipe,
        artifacts=arguments.artifacts,
        repository=arguments.repository,
        reports=arguments.reports,
        duration_s=arguments.duration,
    )
    training = step("1/6 train", "train", settings.recipe, "--output", settings.artifacts)
    artifact = Path(training["artifact"])
    export = step("2/6 export and prove", "export", artifact, "--repository", settings.repository)
    hardware = step("3/6 measure this machine", "hardware")
    summary: dict[str, Any] = {
        "model": export["name"],
        "training": training,
        "export": export,
        "hardware": hardware,
        **_served(export["name"], data=artifact / "evaluation.npz", settings=settings),
    }
    _check_equal(summary)
    summary["seconds"] = round(time.monotonic() - begin, 1)
    settings.reports.mkdir(parents=True, exist_ok=True)
    path = settings.reports / "summary.json"
    path.write_text(json.dumps(summary, indent=2), encoding="utf-8")
    page = settings.reports / "index.html"
    step("6/6 write the report", "report", path, "--output", page)
    return {**summary, "summary": str(path), "report": str(page)}


def show(result: Mapping[str, Any]) -> None:
    """The summary as one table."""
    trained, exported, cost = result["training"], result["export"], result["export"]["cost"]
    table = Table(title=f"{result['model']}: train -> export -> serve -> measure", box=box.SIMPLE)
    for heading in ("", "gRPC", "HTTP"):
        table.add_column(heading, justify="left" if not heading else "right")
    table.add_row("test images", f"{trained['test_samples']:,}")
    table.add_row("accuracy, trained", _accuracy(trained, prefix="test_"))
    table.add_row("accuracy, exported", _accuracy(exported["accuracy"]["exported"]))
    table.add_row("accuracy, served", *(_accuracy(result["served"][p]) for p in _PROTOCOLS))
    table.add_row("FLOPs per sample", f"{cost['flops_per_sample']:,}")
    one = [result["loadtest"][protocol] for protocol in _PROTOCOLS]
    table.add_row("floor of one sample", f"{1000 * one[0]['floor_ms']:.1f} us")
    for name in ("p50", "p99"):
        table.add_row(f"{name}, one at a time", *(_latency(run, name=name) for run in one))
    many = [result["loaded"][protocol]["throughput"] for protocol in _PROTOCOLS]
    table.add_row(
        f"samples/s, {_IN_FLIGHT} in flight",
        *(f"{found['samples_per_s']:,.0f}" for found in many),
    )
    Console().print(table)
    for run in (*one, *result["loaded"].values(), *result["sweep"]):
        for reason in run["reasons"]:
            print(f"INVALID ({run['protocol']}, batch size {run['batch_size']}): {reason}")
    print(f"{result['seconds']:.0f} s in all; report: {result['report']}")


def _served(model: str, *, data: Path, settings: DemoSettings) -> dict[str, Any]:
    """What can be learned from a running gateway: accuracy and latency over both protocols."""
    results: dict[str, Any] = {"served": {}, "loadtest": {}, "loaded": {}}
    with gateway(settings.repository) as ready:
        for protocol in _PROTOCOLS:
            url = f"127.0.0.1:{ready[protocol + '_port']}"
            target = ("--url", url, "--protocol", protocol, "--model", model, "--data", data)
            title = f"4/6 classify the test set over {protocol}"
            results["served"][protocol] = step(title, "evaluate", *target)
            load = ("loadtest", *target, "--duration", settings.duration_s, "--warmup", 0.5)
            one, *sweep = step(
                f"5/6 measure {protocol}, one request at a time",
                *(*load, "--batch-size", *(_SWEEP if protocol == "grpc" else _SWEEP[:1])),
            )["runs"]
            results["loadtest"][protocol] = one
            if sweep:
                results["sweep"] = [one, *sweep]
            title = f"5/6 measure {protocol}, {_IN_FLIGHT} requests in flight"
            (results["loaded"][protocol],) = step(title, *load, "--concurrency", _IN_FLIGHT)["runs"]
    return results


def _check_equal(summary: Mapping[str, Any]) -> None:
    """Exported and served must be right on exactly as many images as trained."""
    expected = summary["training"]["test_correct"]
    found = {"exported": summary["export"]["accuracy"]["exported"]["correct"]}
    found |= {protocol: served["correct"] for protocol, served in summary["served"].items()}
    if wrong := {where: correct for where, correct in found.items() if correct != expected}:
        raise StepFailed(f"trained, {expected} images were right; now {wrong}")


def _latency(run: Mapping[str, Any], *, name: str) -> str:
    """A percentile, and how many times its floor it is."""
    value = run["latency_ms"][name]["value"]
    return f"{value:.2f} ms = {run['ratio_to_floor'][name]:,.0f} x floor"


def _accuracy(result: Mapping[str, Any], *, prefix: str = "") -> str:
    correct, samples = result[prefix + "correct"], result[prefix + "samples"]
    return f"{100 * correct / samples:.2f} % ({correct:,})"
