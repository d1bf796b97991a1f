"""What a subcommand is: things that its module defines, read by `ridgeline.__main__`.

A module may also define `failed(result)`: whether a result that was printed means exit code 1.
"""

import argparse
from collections.abc import Mapping
from typing import Any, Protocol


class Command(Protocol):
    """A module such as `training.command`; importing it is cheap, `run` loads what it needs."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the flags of this subcommand; `--json` is added for every one of them."""

    def run(self, arguments: argparse.Namespace) -> Mapping[str, Any]:
        """Do the work and return what `--json` prints. Progress goes to standard error.

        Raises a RidgelineError with a text for the user when the work cannot be done.
        """

    def show(self, result: Mapping[str, Any]) -> None:
        """Print the result of `run` for a person, on standard output."""
