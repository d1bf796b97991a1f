"""Recipes: one training run each, in TOML, with the accuracy that it must reach."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ridgeline.errors import InvalidInput, NotFound
from ridgeline.settings import from_table, read_toml
from training import datasets, zoo

FOLDER = Path(__file__).parent / "recipes"
OPTIMIZERS = ("sgd", "adam")
_MOMENTUM = 0.9  # of SGD where the recipe gives none
LARGEST_SEED = 2**32 - 1  # numpy's legacy generator, which keras seeds too, takes no more


@dataclass(frozen=True)
class Optimizer:
    """`[optimizer]`: mini-batch SGD with momentum, or Adam.

    The learning rate falls from `learning_rate` to `final_learning_rate` along half a cosine, step
    by step over the whole run (Loshchilov, Hutter: SGDR, 2017, without restarts).
    """

    learning_rate: float
    name: str = "sgd"
    final_learning_rate: float = 0.0
    momentum: float | None = None

    def __post_init__(self) -> None:
        rate, last = self.learning_rate, self.final_learning_rate
        _one_of(OPTIMIZERS, key="optimizer.name", received=self.name)
        _require(
            0 < rate <= 10, key="optimizer.learning_rate", expected="in (0, 10]", received=rate
        )
        _require(
            0 <= last <= rate,
            key="optimizer.final_learning_rate",
            expected=f"in [0, {rate}], from zero to the learning rate at the start",
            received=last,
        )
        if self.name == "sgd" and self.momentum is None:
            object.__setattr__(self, "momentum", _MOMENTUM)  # so that training.json records it
        fits = self.momentum is None if self.name == "adam" else 0 <= (self.momentum or 0.0) < 1
        _require(
            fits,
            key="optimizer.momentum",
            expected="in [0, 1) for sgd and left out for adam, which has its own",
            received=self.momentum,
        )


@dataclass(frozen=True)
class Augmentation:
    """`[augmentation]`: each training image is drawn anew, within these bounds, in each epoch."""

    shift: float = 0.0  # share of the image's side, up or down and left or right
    rotation_degrees: float = 0.0  # either way
    zoom: float = 0.0  # share of the image's side, in or out

    def __post_init__(self) -> None:
        bounds = {"shift": 0.5, "rotation_degrees": 180, "zoom": 0.5}
        for key, most in bounds.items():
            value = getattr(self, key)
            _require(
                0 <= value <= most,
                key=f"augmentation.{key}",
                expected=f"in [0, {most}]",
                received=value,
            )


@dataclass(frozen=True)
class Recipe:
    """One run: everything that decides what comes out of it.

    `required_accuracy` is that on the test set, in (0, 1]; below it nothing can be exported.
    `validation_samples` are taken out of the training set and steer no step; `training_samples`
    caps what is left of it, for quick trials.
    """

    description: str
    model: str
    dataset: str
    epochs: int
    batch_size: int
    seed: int
    validation_samples: int
    required_accuracy: float
    optimizer: Optimizer
    augmentation: Augmentation | None = None
    training_samples: int | None = None

    def __post_init__(self) -> None:
        _one_of(zoo.names(), key="model", received=self.model)
        _one_of(datasets.names(), key="dataset", received=self.dataset)
        _require(
            0 <= self.seed <= LARGEST_SEED,
            key="seed",
            expected=f"in [0, {LARGEST_SEED}]",
            received=self.seed,
        )
        _require(
            0 < self.required_accuracy <= 1,
            key="required_accuracy",
            expected="in (0, 1]",
            received=self.required_accuracy,
        )
        for key in ("epochs", "batch_size", "validation_samples", "training_samples"):
            value = getattr(self, key)
            _require(value is None or value >= 1, key=key, expected="at least 1", received=value)


def shipped() -> dict[str, Path]:
    """The recipes that come with the project: name -> file, sorted."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.toml"))}


def find(recipe: str) -> Path:
    """The file of a recipe given by path, or by the name of a shipped one. Raises NotFound."""
    path = Path(recipe)
    if path.is_file():
        return path
    try:
        return shipped()[recipe]
    except KeyError:
        raise NotFound(
            f"there is no file {recipe} and no shipped recipe of that name; "
            f"shipped are {', '.join(shipped())}"
        ) from None


def read(path: Path) -> Recipe:
    """Read a recipe. Raises NotFound, or InvalidInput naming the file and the key."""
    try:
        return from_table(Recipe, read_toml(path), source=str(path))
    except InvalidInput as error:
        if str(error).startswith(str(path)):
            raise
        # A dataclass that refuses a value knows its key, but not the file that it stood in.
        raise InvalidInput(f"{path}: {error}") from error


def _require(holds: bool, *, key: str, expected: str, received: object) -> None:
    """Refuse nonsense. Conditions name what is allowed, so that nan, which never is, fails them."""
    if not holds:
        raise InvalidInput(f"{key} must be {expected}, received {received!r}")


def _one_of(choices: Sequence[str], *, key: str, received: str) -> None:
    expected = f"one of {', '.join(choices)}"
    _require(received in choices, key=key, expected=expected, received=received)
