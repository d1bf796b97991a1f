"""The progress of a training run, on standard error: a bar for people, a log line per epoch."""

import logging
from typing import Any

import keras
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

_log = logging.getLogger(__name__)


class ProgressBar(keras.callbacks.Callback):  # type: ignore[misc]  # keras publishes no types
    """One bar over the steps of the whole run; use it as a context manager around the run.

    Standard output stays untouched, it belongs to the result. Where standard error is no terminal,
    rich draws the bar once, at the end.
    """

    def __init__(self, title: str) -> None:
        super().__init__()
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("epoch {task.fields[epoch]}"),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self._task = self._bar.add_task(title, total=None, epoch="", figures="")

    def __enter__(self) -> "ProgressBar":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002
        """Show which epoch runs."""
        epochs, steps = self.params["epochs"], self.params["steps"]
        self._bar.update(self._task, total=epochs * steps, epoch=f"{epoch + 1}/{epochs}")

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:  # noqa: ARG002
        """Move the bar by a step."""
        self._bar.advance(self._task)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Show and log the epoch's accuracy."""
        figures = f"validation accuracy {(logs or {}).get('val_accuracy', 0.0):.2%}"
        self._bar.update(self._task, figures=figures)
        _log.info("epoch %d of %d: %s", epoch + 1, self.params["epochs"], figures)
