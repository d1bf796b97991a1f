"""The command `ridgeline cost`: what a pass of an ONNX graph costs, layer by layer."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ridgeline.errors import WrongUsage


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `ridgeline cost`."""
    parser.add_argument("model", type=Path, metavar="MODEL.onnx", help="the graph")
    add_sizes(parser)


def add_sizes(parser: argparse.ArgumentParser) -> None:
    """Add the flags that settle the free axes of a graph."""
    parser.add_argument(
        "--batch-size",
        type=int,
        metavar="B",
        help="rows on the first axis of each input (default: 1)",
    )
    parser.add_argument(
        "--shape",
        action="append",
        default=[],
        metavar="INPUT=1,224,224,3",
        help="the whole shape of an input, where other axes are free; may be repeated",
    )


def read_sizes(arguments: argparse.Namespace) -> tuple[int, dict[str, tuple[int, ...]]]:
    """The rows and the shapes that those flags give. Raises WrongUsage."""
    rows = 1 if arguments.batch_size is None else arguments.batch_size
    if rows < 1:
        raise WrongUsage(f"--batch-size must be positive, received {rows}")
    sizes = {}
    for text in arguments.shape:
        name, _, numbers = text.rpartition("=")
        try:
            sizes[name] = tuple(int(number) for number in numbers.split(","))
        except ValueError:
            sizes[name] = ()
        if not name or not sizes[name] or min(sizes[name]) < 1:
            raise WrongUsage(f"--shape must be INPUT=1,224,224,3, received {text!r}")
    if sizes and arguments.batch_size is not None:
        raise WrongUsage("--shape gives whole shapes, the batch included: leave --batch-size away")
    return rows, sizes


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Count; returns the totals, the operators, floor and estimate on this machine, all in ns.

    Raises NotFound or CorruptData for the file, InvalidInput where the graph leaves its cost open.
    """
    from dataclasses import asdict

    from ridgeline import graph, graph_profile, hardware, roofline
    from ridgeline.errors import NotFound

    rows, sizes = read_sizes(arguments)
    if not arguments.model.is_file():
        raise NotFound(f"there is no file {arguments.model}")
    model = graph.load(arguments.model)
    batches = not sizes
    cost = graph.cost_of(model, batches=batches, sizes=sizes)
    operators = graph_profile.profile(model, batches=batches, rows=rows, sizes=sizes)
    machine = hardware.load()
    floor = roofline.floor(cost, batch_size=rows, hardware=machine)
    pass_bytes = sum(each.weight_bytes for each in operators)
    return {
        "model": model.graph.name or arguments.model.stem,
        "batch_size": rows,
        **cost.summary(),
        "flops": cost.flops(batch_size=rows),
        "bytes_moved": cost.bytes_moved(batch_size=rows),
        "floor_ns": floor.ns,
        "simple_floor_ns": floor.simple_ns,
        "estimate_ns": roofline.estimate_ns(operators, hardware=machine),
        "operators": [
            asdict(each)
            | {"estimate_ns": roofline.operator_ns(each, pass_bytes=pass_bytes, hardware=machine)}
            for each in operators
        ],
    }


def show(result: Mapping[str, Any]) -> None:
    """Print a table of the operators, and the totals."""
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{result['model']}, batch size {result['batch_size']}", box=SIMPLE)
    table.add_column("operator", overflow="fold")
    for name in ("kind", "MFLOP", "weights KB", "activations KB", "roofline us"):
        table.add_column(name, justify="left" if name == "kind" else "right")
    for row in result["operators"]:
        table.add_row(
            f"{row['operator']} {row['name']}",
            row["kind"],
            f"{2 * row['multiply_adds'] / 1e6:,.3f}",
            f"{row['weight_bytes'] / 1e3:,.1f}",
            f"{row['activation_bytes'] / 1e3:,.1f}",
            f"{row['estimate_ns'] / 1e3:,.1f}",
        )
    console = Console()
    console.print(table)
    for line in _totals(result):
        console.print(line, soft_wrap=True, markup=False)


def _totals(result: Mapping[str, Any]) -> Sequence[str]:
    return (
        f"{result['multiply_adds_per_sample']:,} multiply-adds a sample, "
        f"{result['flops']:,} FLOPs for the batch; {result['parameters']:,} parameters",
        f"{result['bytes_moved']:,} bytes must move: weights once, inputs and outputs per sample",
        f"floor on this machine: {result['floor_ns'] / 1e6:,.4g} ms "
        f"(max(FLOPs / peak, bytes / bandwidth) alone: {result['simple_floor_ns'] / 1e6:,.4g} ms)",
        f"roofline estimate, with activations, no bound: {result['estimate_ns'] / 1e6:,.4g} ms",
    )
