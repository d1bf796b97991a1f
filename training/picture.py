"""The learning curve as a picture: loss and accuracy, in training and in validation."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from training.fit import Epoch

# Okabe and Ito's palette, which colour-blind readers can tell apart; markers differ as well.
_TRAINING = {"color": "#0072B2", "marker": "o", "markersize": 4}
_VALIDATION = {"color": "#D55E00", "marker": "s", "markersize": 4, "label": "validation"}
_REQUIRED = {"color": "#444444", "linestyle": "--", "linewidth": 1.2}
_TEST = {
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
    required_accuracy: float,
    test_accuracy: float,
) -> None:
    """Write the learning curve to `path` as PNG. `augmented`: training images were changed."""
    figure = Figure(figsize=(11, 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    left, right = figure.subplots(1, 2)
    epochs = [point.epoch for point in curve]
    training = {**_TRAINING, "label": "training (augmented)" if augmented else "training"}

    left.plot(epochs, [point.loss for point in curve], **training)
    left.plot(epochs, [point.val_loss for point in curve], **_VALIDATION)
    _dress(left, title="loss (cross-entropy)", epochs=len(curve))

    right.plot(epochs, [point.accuracy for point in curve], **training)
    right.plot(epochs, [point.val_accuracy for point in curve], **_VALIDATION)
    right.axhline(
        required_accuracy, **_REQUIRED, label=f"required on the test set: {required_accuracy:.2%}"
    )
    right.plot(epochs[-1:], [test_accuracy], **_TEST, label=f"test set: {test_accuracy:.2%}")
    _dress(right, title="accuracy", epochs=len(curve))
    right.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g}%"))

    figure.savefig(path, dpi=120)


def _dress(axes: Axes, *, title: str, epochs: int) -> None:
    axes.set_title(title, fontsize=10)
    axes.set_xlabel("epoch")
    axes.set_xlim(0.7, epochs + 0.3)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(visible=True, alpha=0.3)
    axes.legend()
    axes.spines[["top", "right"]].set_visible(False)
