"""Recipes: one training run each, in TOML, with the accuracy that it must reach."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ridgeline.errors import InvalidInput, NotFound
from ridgeline.settings import from_table, read_toml
from training import datasets, tasks, zoo
from training.datasets import DataSet, ImageSettings
from training.recipe_tables import (
    Augmentation,
    Optimizer,
    Required,
    Stage,
    Transfer,
    one_of,
    require,
)

__all__ = [
    "LARGEST_SEED",
    "Augmentation",
    "Optimizer",
    "Recipe",
    "Required",
    "Stage",
    "Transfer",
    "find",
    "read",
    "shipped",
]

FOLDER = Path(__file__).parent / "recipes"
WEIGHTS = ("imagenet",)
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
LARGEST_SEED = 2**32 - 1  # numpy's legacy generator, which keras seeds too, takes no more


@dataclass(frozen=True)
class Recipe:
    """One run: everything that decides what comes out of it.

    `required_accuracy` and `required` bound the figures on the test set; where one is missed,
    nothing can be exported. `validation_samples` are taken out of the training set and steer no
    step, except that with `patience` the run ends after that many epochs without a lower validation
    loss, with the weights of the best one. `training_samples` caps what is left of the training
    set, for quick trials. With `redrawn`, each epoch after the first trains on as many other
    samples, of a data set that draws them. `data` is the folder with the files of a data set that
    does not come with the project, `images` says how those of the data set "images" are taken.
    `weights` "imagenet" begins with those that others have published for the network (see
    `training.pretrained`) instead of random ones. `training_per_class` keeps that many samples of
    each class, for learning from few labels. `minutes` is how long the run took when it was last
    measured.
    """

    description: str
    model: str
    dataset: str
    epochs: int
    batch_size: int
    seed: int
    validation_samples: int
    optimizer: Optimizer
    task: str = "classification"
    name: str | None = None  # of the artifact, where it is not the model's
    required_accuracy: float | None = None
    required: Required = field(default_factory=Required)
    augmentation: Augmentation | None = None
    training_samples: int | None = None
    redrawn: bool = False
    patience: int | None = None
    precision: str = "float32"
    weights: str | None = None
    data: str | None = None
    images: ImageSettings | None = None
    transfer: Transfer | None = None
    training_per_class: int | None = None
    minutes: float | None = None
    variant_accuracy: float = 0.99  # share of its accuracy that int8 and fp16 must keep

    def __post_init__(self) -> None:
        if not zoo.knows(self.model):
            one_of(zoo.names(), key="model", received=self.model)
        one_of(datasets.names(), key="dataset", received=self.dataset)
        one_of(tasks.names(), key="task", received=self.task)
        one_of(PRECISIONS, key="precision", received=self.precision)
        if self.weights is not None:
            one_of(WEIGHTS, key="weights", received=self.weights)
        require(
            0 <= self.seed <= LARGEST_SEED,
            key="seed",
            expected=f"in [0, {LARGEST_SEED}]",
            received=self.seed,
        )
        accuracy = self.required_accuracy
        require(
            accuracy is None or 0 < accuracy <= 1,
            key="required_accuracy",
            expected="in (0, 1]",
            received=accuracy,
        )
        require(
            0 < self.variant_accuracy <= 1,
            key="variant_accuracy",
            expected="in (0, 1]",
            received=self.variant_accuracy,
        )
        self._check_counts()
        require(
            bool(self.bounds),
            key="required_accuracy or [required]",
            expected="given: a recipe promises something",
            received=None,
        )

    def _check_counts(self) -> None:
        counts = ("batch_size", "validation_samples", "training_samples", "training_per_class")
        for key in (*counts, "patience"):
            value = getattr(self, key)
            require(value is None or value >= 1, key=key, expected="at least 1", received=value)
        for key in ("patience", "weights"):
            value = getattr(self, key) if self.transfer else None
            require(value is None, key=key, expected="none with [transfer]", received=value)
        both = self.training_samples and self.training_per_class
        require(
            not both, key="training_samples", expected="none with training_per_class", received=both
        )
        least = 0 if self.task == "filtering" or self.weights else 1  # nothing to be learned there
        require(
            self.epochs >= least, key="epochs", expected=f"at least {least}", received=self.epochs
        )

    def load(self) -> DataSet:
        """The data set. Raises CorruptData, NotFound, or InvalidInput."""
        files: dict[str, Any] = {} if self.data is None else {"folder": Path(self.data)}
        how: dict[str, Any] = {} if self.images is None else {"images": self.images}
        return datasets.load(self.dataset, **files, **how)

    def validation_of(self, samples: int) -> int:
        """How many of so many training samples are for validation: of a user's own, a fifth."""
        if self.dataset != "images":
            return self.validation_samples
        return max(1, min(self.validation_samples, samples // 5))

    @property
    def bounds(self) -> dict[str, float]:
        """What the test set must show, by the name of the measure."""
        accuracy = {} if self.required_accuracy is None else {"accuracy": self.required_accuracy}
        return {**accuracy, **self.required.bounds()}

    @property
    def artifact(self) -> str:
        """The name of the artifact's folder, under which the model is published."""
        return self.name or self.model


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
