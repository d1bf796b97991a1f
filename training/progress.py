"""The progress of a training run, on standard error: a bar for people, a log line per epoch."""

import logging

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from ridgeline import fingerprint, hardware
from ridgeline.errors import RidgelineError
from training import epoch

_log = logging.getLogger(__name__)
_EVERY = 20  # steps: a bar that is drawn more often costs small networks time


class ProgressBar:
    """One bar over the steps of the whole run; use it as a context manager around the run.

    It shows the time left, and the achieved FLOP/s, as a share of the measured peak where
    `ridgeline hardware` has measured it. Standard output stays untouched, it belongs to the result.
    Where standard error is no terminal, rich draws the bar once, at the end.
    """

    def __init__(self, title: str) -> None:
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("epoch {task.fields[epoch]}"),
            TextColumn("{task.fields[figures]}"),
            TextColumn("{task.fields[speed]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self._task = self._bar.add_task(title, total=None, epoch="", figures="", speed="")
        self._peak_flops_per_s = known_peak()

    def __enter__(self) -> "ProgressBar":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def __call__(self, progress: epoch.Progress) -> None:
        """Move the bar; at the first step after an epoch, log that epoch's figures."""
        if progress.step == 1 and progress.last:
            _log.info(
                "epoch %d of %d: %s", progress.last.epoch, progress.epochs, figures(progress.last)
            )
        if progress.step % _EVERY == 0 or progress.step in (1, progress.steps):
            self._bar.update(
                self._task,
                total=progress.epochs * progress.steps,
                completed=(progress.epoch - 1) * progress.steps + progress.step,
                epoch=f"{progress.epoch}/{progress.epochs}",
                figures=figures(progress.last) if progress.last else "",
                speed=speed(progress.flops_per_s, peak_flops_per_s=self._peak_flops_per_s),
            )


def figures(point: epoch.Epoch) -> str:
    """What an epoch is judged by: validation accuracy, or validation loss where there is none."""
    if point.val_accuracy is not None:
        return f"validation accuracy {point.val_accuracy:.2%}"
    return f"validation loss {point.val_loss:.4f}"


def speed(flops_per_s: float, *, peak_flops_per_s: float | None) -> str:
    """Floating-point operations each second, and their share of the machine's peak."""
    share = f", {flops_per_s / peak_flops_per_s:.0%} of peak" if peak_flops_per_s else ""
    return f"{flops_per_s / 1e9:.1f} GFLOP/s{share}"


def known_peak() -> float | None:
    """The measured peak of this machine; None where nobody has measured it yet."""
    try:
        return hardware.read(
            hardware.cache_path(fingerprint.current_fingerprint())
        ).peak_flops_per_s
    except (RidgelineError, OSError):
        return None
