"""The learning curve as a picture: loss and accuracy, in training and in validation."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from training.epoch import Epoch

# Okabe and Ito's palette, which colour-blind readers can tell apart; markers differ as well.
_TRAINING: dict[str, Any] = {"color": "#0072B2", "marker": "o", "markersize": 4}
_VALIDATION: dict[str, Any] = {
    "color": "#D55E00",
    "marker": "s",
    "markersize": 4,
    "label": "validation",
}
_REQUIRED: dict[str, Any] = {"color": "#444444", "linestyle": "--", "linewidth": 1.2}
_TEST: dict[str, Any] = {
    "color": "#009E73",
    "marker": "D",
    "markersize": 10,
    "fillstyle": "none",
    "mew": 2,
    "ls": "",
}


def draw_curve(
    path: Path,
    *,
    curve: Sequence[Epoch],
    title: str,
    augmented: bool,
    required_accuracy: float | None,
    test_accuracy: float | None,
) -> None:
    """Write the learning curve to `path` as PNG. `augmented`: training images were changed.

    Where the task has no accuracy, the learning rate stands in its place.
    """
    figure = Figure(figsize=(11, 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    left, right = figure.subplots(1, 2)
    epochs = [point.epoch for point in curve]
    training = {**_TRAINING, "label": "training (augmented)" if augmented else "training"}

    left.plot(epochs, [point.loss for point in curve], **training)
    left.plot(epochs, [point.val_loss for point in curve], **_VALIDATION)
    _dress(left, title="loss", epochs=len(curve))

    if any(point.val_accuracy is not None for point in curve):
        right.plot(epochs, [point.accuracy for point in curve], **training)
        right.plot(epochs, [point.val_accuracy for point in curve], **_VALIDATION)
        _draw_accuracy(right, epochs=epochs, required=required_accuracy, test=test_accuracy)
        _dress(right, title="accuracy", epochs=len(curve))
    else:
        rates = [point.learning_rate for point in curve]
        right.plot(epochs, rates, **{**_TRAINING, "label": "at the epoch's end"})
        _dress(right, title="learning rate", epochs=len(curve))

    figure.savefig(path, dpi=120)


def _draw_accuracy(
    axes: Axes, *, epochs: Sequence[int], required: float | None, test: float | None
) -> None:
    if required is not None:
        axes.axhline(required, **_REQUIRED, label=f"required on the test set: {required:.2%}")
    if test is not None:
        axes.plot(epochs[-1:], [test], **_TEST, label=f"test set: {test:.2%}")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g}%"))


def _dress(axes: Axes, *, title: str, epochs: int) -> None:
    axes.set_title(title, fontsize=10)
    axes.set_xlabel("epoch")
    axes.set_xlim(0.7, epochs + 0.3)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(visible=True, alpha=0.3)
    axes.legend()
    axes.spines[["top", "right"]].set_visible(False)
