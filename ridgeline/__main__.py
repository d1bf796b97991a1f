"""The one command line: `ridgeline train|export|serve|...`. Loads a stage only when called."""

import argparse
import ctypes
import importlib
import json
import logging
import os
import signal
import sys
import types
from collections.abc import Sequence
from typing import NoReturn, cast

from ridgeline import __version__
from ridgeline.command import Command
from ridgeline.errors import MissingData, RidgelineError, WrongUsage

DONE, FAILED, WRONG_USAGE, MISSING_DATA = 0, 1, 2, 4

# name -> (module that defines it, one line for `ridgeline --help`), in the order of a model's life.
COMMANDS = {
    "train": ("training.command", "train a network and write it as a SavedModel"),
    "export": ("export.command", "turn a SavedModel into ONNX, prove it equal, publish it"),
    "models": ("ridgeline.models", "list what the model repository holds"),
    "pipeline": ("serving.pipeline_command", "let a published classifier take image files"),
    "serve": ("serving.command", "answer inference requests over gRPC and HTTP"),
    "evaluate": ("loadtest.evaluate", "send labelled samples to a server and count right answers"),
    "loadtest": ("loadtest.command", "measure a server's latency beside the physical floor"),
    "conformance": ("conformance.command", "ask a server whether it speaks the protocol"),
    "hardware": ("ridgeline.hardware_command", "measure this machine's peak FLOP/s and bandwidth"),
    "cost": ("ridgeline.cost_command", "count what a pass of an ONNX graph costs, layer by layer"),
    "predict": ("loadtest.predict_command", "predict how long a graph takes here, unrun"),
    "check": ("loadtest.check_command", "check budgets, and whether a server became slower"),
    "report": ("loadtest.report_command", "write the page of a summary"),
    "demo": ("ridgeline.demo", "do all of it once: train, export, serve, evaluate, measure"),
}

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand. Returns 0 done, 1 failed, 2 wrong usage (argparse exits itself).

    4 says that data are missing, so that who runs many recipes can go on with the others. A command
    may define `exit_code(result)` where it has more to tell than that.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    _stop_with_parent()
    signal.signal(signal.SIGTERM, _raise_interrupt)
    called = next((word for word in words if not word.startswith("-")), None)
    parser, commands = _parser(called)
    arguments = parser.parse_args(words)
    logging.basicConfig(
        level=arguments.log_level.upper(),
        stream=sys.stderr,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    command = commands[arguments.command]
    try:
        result = command.run(arguments)
        if arguments.json:
            print(json.dumps(result, indent=2, allow_nan=False), flush=True)
        else:
            command.show(result)
        if exit_code := getattr(command, "exit_code", None):
            return int(exit_code(result))
        failed = getattr(command, "failed", None)
        return FAILED if failed and failed(result) else DONE
    except RidgelineError as error:
        print(f"ridgeline {arguments.command}: {error}", file=sys.stderr)
        return _exit_code(error)
    except BrokenPipeError:  # whoever read the output has stopped, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except OSError as error:  # a folder that cannot be written, a full disk
        print(f"ridgeline {arguments.command}: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print(f"ridgeline {arguments.command}: interrupted", file=sys.stderr)
        return FAILED


def _exit_code(error: RidgelineError) -> int:
    if isinstance(error, WrongUsage):
        return WRONG_USAGE
    return MISSING_DATA if isinstance(error, MissingData) else FAILED


def _parser(called: str | None) -> tuple[argparse.ArgumentParser, dict[str, Command]]:
    """The parser, with the flags of the subcommand that was called: the others stay unloaded."""
    parser = argparse.ArgumentParser(
        prog="ridgeline",
        description="Train, export, serve and measure models against their physical floor.",
        epilog="`ridgeline COMMAND --help` describes each. "
        "Exit codes: 0 done, 1 failed, 2 wrong usage; "
        "3 (check) could not tell; 4 (train) the data set is not here.",
    )
    parser.add_argument("--version", action="version", version=f"ridgeline {__version__}")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands = {}
    for name, (module_name, summary) in COMMANDS.items():
        subparser = subparsers.add_parser(
            name, help=summary, description=summary[0].upper() + summary[1:] + "."
        )
        subparser.add_argument(
            "--json", action="store_true", help="print the result as JSON, for machines"
        )
        subparser.add_argument(
            "--log-level",
            default="warning",
            choices=["debug", "info", "warning", "error"],
            help="least severe message written to standard error (default: warning)",
        )
        if name == called:
            commands[name] = _load(name, module_name)
            commands[name].add_arguments(subparser)
    return parser, commands


def _load(name: str, module_name: str) -> Command:
    module: types.ModuleType = importlib.import_module(module_name)
    missing = [part for part in ("add_arguments", "run", "show") if not hasattr(module, part)]
    if missing:
        raise TypeError(
            f"{module_name} does not define {', '.join(missing)} of the command {name!r}"
        )
    return cast(Command, module)


def _raise_interrupt(_signal: int, _frame: types.FrameType | None) -> NoReturn:
    """SIGTERM ends a command as Ctrl-C does, so that files and children are cleaned up."""
    raise KeyboardInterrupt


def _stop_with_parent() -> None:
    """Ask the kernel for SIGTERM when the parent dies, where RIDGELINE_STOP_WITH_PARENT is set.

    `make demo` sets it: however the demo ends, no server or training run outlives it (Linux only).
    """
    if os.environ.get("RIDGELINE_STOP_WITH_PARENT") == "1" and sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
