"""Recipes: one training run each, in TOML, with the accuracy that it must reach."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ridgeline.errors import InvalidInput, NotFound
from ridgeline.settings import from_table, read_toml
from training import datasets, tasks, zoo
from training.datasets import DataSet, ImageSettings

FOLDER = Path(__file__).parent / "recipes"
OPTIMIZERS = ("sgd", "adam")
SCHEDULES = ("cosine", "steps", "constant")
WEIGHTS = ("imagenet",)
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
_MOMENTUM = 0.9  # of SGD where the recipe gives none
LARGEST_SEED = 2**32 - 1  # numpy's legacy generator, which keras seeds too, takes no more


@dataclass(frozen=True)
class Optimizer:
    """`[optimizer]`: mini-batch SGD with momentum, or Adam.

    The learning rate rises in a straight line over the first `warm_up_epochs`, then follows its
    `schedule`, step by step over the rest of the run: `cosine` falls to `final_learning_rate` along
    half a cosine (Loshchilov, Hutter: SGDR, 2017, without restarts), `steps` divides it by ten
    after half and after three quarters, `constant` leaves it. `weight_decay` shrinks kernels, not
    biases, by that share of the learning rate in each step (Loshchilov, Hutter: Decoupled Weight
    Decay Regularization, 2019). `clip_norm` bounds the length of the whole gradient.
    """

    learning_rate: float
    name: str = "sgd"
    final_learning_rate: float = 0.0
    momentum: float | None = None
    schedule: str = "cosine"
    warm_up_epochs: float = 0.0
    weight_decay: float = 0.0
    clip_norm: float | None = None

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
        self._check_extras()
        _require(
            fits,
            key="optimizer.momentum",
            expected="in [0, 1) for sgd and left out for adam, which has its own",
            received=self.momentum,
        )

    def _check_extras(self) -> None:
        _one_of(SCHEDULES, key="optimizer.schedule", received=self.schedule)
        _require(
            self.final_learning_rate == 0 or self.schedule == "cosine",
            key="optimizer.final_learning_rate",
            expected=f"left out for the schedule {self.schedule!r}",
            received=self.final_learning_rate,
        )
        for key in ("warm_up_epochs", "weight_decay"):
            value = getattr(self, key)
            _require(
                0 <= value < 1000, key=f"optimizer.{key}", expected="0 or more", received=value
            )
        _require(
            self.clip_norm is None or 0 < self.clip_norm < 1e6,
            key="optimizer.clip_norm",
            expected="positive",
            received=self.clip_norm,
        )


@dataclass(frozen=True)
class Augmentation:
    """`[augmentation]`: each training image is drawn anew, within these bounds, in each epoch."""

    shift: float = 0.0  # share of the image's side, up or down and left or right
    rotation_degrees: float = 0.0  # either way
    zoom: float = 0.0  # share of the image's side, in or out
    flip: bool = False  # left to right, half of the images; not for digits
    cut_out: float = 0.0  # share of the image's side: a square of that side becomes background
    mix_up: float = 0.0  # each image takes up to this share of another one, and of its label

    def __post_init__(self) -> None:
        bounds = {"shift": 0.5, "rotation_degrees": 180, "zoom": 0.5, "cut_out": 0.9, "mix_up": 0.5}
        for key, most in bounds.items():
            value = getattr(self, key)
            _require(
                0 <= value <= most,
                key=f"augmentation.{key}",
                expected=f"in [0, {most}]",
                received=value,
            )


@dataclass(frozen=True)
class Required:
    """`[required]`: bounds on the test set for what is not accuracy; see `training.tasks`."""

    mean_iou: float | None = None  # at least: overlap of boxes or masks
    mean_average_precision: float | None = None  # at least, at an overlap of one half
    exact: float | None = None  # at least: share of sequences without any fault
    excess_entropy: float | None = None  # at most: cross-entropy over the least possible, less one
    word_error: float | None = None  # at most: faults for each word

    def __post_init__(self) -> None:
        for key, value in asdict(self).items():
            _require(
                value is None or 0 < value <= 1,
                key=f"required.{key}",
                expected="in (0, 1]",
                received=value,
            )

    def bounds(self) -> dict[str, float]:
        """Those that were given, by name."""
        return {key: value for key, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class Stage:
    """`[[transfer.stages]]`: from which epoch on which layers learn (none named: all), how fast."""

    learning_rate: float
    after_epochs: int = 0
    train: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _require(
            0 < self.learning_rate <= 10,
            key="transfer.stages.learning_rate",
            expected="in (0, 10]",
            received=self.learning_rate,
        )


@dataclass(frozen=True)
class Transfer:
    """`[transfer]`: begin with the weights of the artifact in the folder `source`.

    The layers named in `head` are made anew. Each stage has a schedule of its own, with the
    recipe's optimizer at the stage's learning rate.
    """

    source: str
    head: tuple[str, ...]
    stages: tuple[Stage, ...]

    def __post_init__(self) -> None:
        starts = [stage.after_epochs for stage in self.stages]
        _require(
            bool(starts) and starts[0] == 0 and starts == sorted(set(starts)),
            key="transfer.stages.after_epochs",
            expected="0 for the first stage and more for each later one",
            received=starts,
        )


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
            _one_of(zoo.names(), key="model", received=self.model)
        _one_of(datasets.names(), key="dataset", received=self.dataset)
        _one_of(tasks.names(), key="task", received=self.task)
        _one_of(PRECISIONS, key="precision", received=self.precision)
        if self.weights is not None:
            _one_of(WEIGHTS, key="weights", received=self.weights)
        _require(
            0 <= self.seed <= LARGEST_SEED,
            key="seed",
            expected=f"in [0, {LARGEST_SEED}]",
            received=self.seed,
        )
        accuracy = self.required_accuracy
        _require(
            accuracy is None or 0 < accuracy <= 1,
            key="required_accuracy",
            expected="in (0, 1]",
            received=accuracy,
        )
        _require(
            0 < self.variant_accuracy <= 1,
            key="variant_accuracy",
            expected="in (0, 1]",
            received=self.variant_accuracy,
        )
        self._check_counts()
        _require(
            bool(self.bounds),
            key="required_accuracy or [required]",
            expected="given: a recipe promises something",
            received=None,
        )

    def _check_counts(self) -> None:
        counts = ("batch_size", "validation_samples", "training_samples", "training_per_class")
        for key in (*counts, "patience"):
            value = getattr(self, key)
            _require(value is None or value >= 1, key=key, expected="at least 1", received=value)
        for key in ("patience", "weights"):
            value = getattr(self, key) if self.transfer else None
            _require(value is None, key=key, expected="none with [transfer]", received=value)
        both = self.training_samples and self.training_per_class
        _require(
            not both, key="training_samples", expected="none with training_per_class", received=both
        )
        least = 0 if self.task == "filtering" or self.weights else 1  # nothing to be learned there
        _require(
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


def _require(holds: bool, *, key: str, expected: str, received: object) -> None:
    """Refuse nonsense. Conditions name what is allowed, so that nan, which never is, fails them."""
    if not holds:
        raise InvalidInput(f"{key} must be {expected}, received {received!r}")


def _one_of(choices: Sequence[str], *, key: str, received: str) -> None:
    expected = f"one of {', '.join(choices)}"
    _require(received in choices, key=key, expected=expected, received=received)
