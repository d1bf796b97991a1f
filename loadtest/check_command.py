"""The command `ridgeline check`: budgets held, missed, or not to be told; regressions by turns."""

import argparse
import functools
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `ridgeline check`."""
    file = functools.partial(parser.add_argument, type=Path, metavar="FILE")
    file("--budgets", required=True, help="the limits, as docs/measurement.md describes them")
    parser.add_argument(
        "--repository",
        type=Path,
        default=Path("model_repository"),
        metavar="DIR",
        help="the models to serve (default: model_repository)",
    )
    parser.add_argument(
        "--against",
        metavar="BASELINE",
        help="also compare with this version: a git revision, a checkout, or an environment",
    )
    parser.add_argument(
        "--only-against", action="store_true", help="compare, and leave the other limits unmeasured"
    )
    number = functools.partial(parser.add_argument, type=int, metavar="N")
    number("--rounds", default=3, help="servers started anew for each limit (default: 3)")
    number("--pairs", default=20, help="pairs of blocks in a round of a comparison (default: 20)")
    number(
        "--most-rounds",
        default=40,
        help="pairs of servers started for a comparison that cannot be told yet (default: 40)",
    )
    number("--seed", default=0, help="of inputs, arrivals and the order of blocks (default: 0)")
    parser.add_argument(
        "--duration", type=float, default=3.0, metavar="S", help="of each scenario (default: 3)"
    )
    file("--output", help="write the findings as JSON")
    file("--junit", help="write them as JUnit XML")
    file("--markdown", help="write them as Markdown, for a comment on a pull request")


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Check; returns {"findings", "exit_code", "against", "environment"}, and writes the files.

    Raises WrongUsage, NotFound or InvalidInput for what is asked, StepFailed where a server fails.
    """
    import contextlib
    import json

    from loadtest import environment
    from loadtest.check import Plan, check_budgets
    from loadtest.check_output import as_junit, as_markdown
    from loadtest.findings import Finding, exit_code, to_json
    from loadtest.versions import this_version, version_of
    from ridgeline.budget import read_budgets

    _refuse_nonsense(arguments)
    budgets = read_budgets(arguments.budgets)
    announce = functools.partial(print, file=sys.stderr, flush=True)
    plan = Plan(arguments.repository, arguments.rounds, arguments.duration, arguments.seed)
    found: list[Finding] = []
    with contextlib.ExitStack() as stack:
        baseline = stack.enter_context(version_of(arguments.against)) if arguments.against else None
        if not arguments.only_against:
            found += check_budgets(budgets, plan=plan, version=this_version(), announce=announce)
        if baseline:
            found += _compare(arguments, budgets=budgets, baseline=baseline, announce=announce)
    findings = [to_json(each) for each in found]
    code = exit_code(findings)
    result = {
        "findings": findings,
        "exit_code": code,
        "against": arguments.against,
        "environment": environment.describe(),
    }
    _write(arguments.output, lambda: json.dumps(result, indent=2, allow_nan=False) + "\n")
    _write(arguments.junit, lambda: as_junit(findings))
    _write(
        arguments.markdown,
        lambda: as_markdown(findings, code=code, against=arguments.against),
    )
    return result


def show(result: Mapping[str, Any]) -> None:
    """Print the findings, what needs attention last."""
    from loadtest.check_output import as_text

    print(as_text(result["findings"], code=result["exit_code"]))


def exit_code(result: Mapping[str, Any]) -> int:
    """0 all held, 1 one missed, 3 none missed but one could not be told."""
    return int(result["exit_code"])


def _compare(
    arguments: argparse.Namespace, *, budgets: Any, baseline: Any, announce: Any
) -> list[Any]:
    from loadtest.regression import Effort, compare
    from loadtest.versions import this_version

    limits = dict(budgets.regression) or {"p50": 1.05}
    effort = Effort(pairs=arguments.pairs, most_rounds=arguments.most_rounds)
    return [
        finding
        for model in budgets.models
        for finding in compare(
            model,
            limits=limits,
            versions=(baseline, this_version()),
            repository=arguments.repository,
            effort=effort,
            announce=announce,
            seed=arguments.seed,
        )
    ]


def _refuse_nonsense(arguments: argparse.Namespace) -> None:
    from ridgeline.errors import WrongUsage

    for name, least in (("rounds", 1), ("pairs", 4), ("most_rounds", 4)):
        if getattr(arguments, name) < least:
            raise WrongUsage(
                f"--{name.replace('_', '-')} must be at least {least}, "
                f"received {getattr(arguments, name)}"
            )
    if not arguments.duration > 0:
        raise WrongUsage(f"--duration must be positive, received {arguments.duration}")
    if arguments.only_against and not arguments.against:
        raise WrongUsage("--only-against needs --against")


def _write(path: Path | None, text: Any) -> None:
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text(), encoding="utf-8")
