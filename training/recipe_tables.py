"""The tables of a recipe: optimizer, augmentation, what is required, transfer.

Each refuses nonsense, naming its key, what was expected and what was received.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from ridgeline.errors import InvalidInput

OPTIMIZERS = ("sgd", "adam")
SCHEDULES = ("cosine", "steps", "constant")
_MOMENTUM = 0.9  # of SGD where the recipe gives none


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
        one_of(OPTIMIZERS, key="optimizer.name", received=self.name)
        require(0 < rate <= 10, key="optimizer.learning_rate", expected="in (0, 10]", received=rate)
        require(
            0 <= last <= rate,
            key="optimizer.final_learning_rate",
            expected=f"in [0, {rate}], from zero to the learning rate at the start",
            received=last,
        )
        if self.name == "sgd" and self.momentum is None:
            object.__setattr__(self, "momentum", _MOMENTUM)  # so that training.json records it
        fits = self.momentum is None if self.name == "adam" else 0 <= (self.momentum or 0.0) < 1
        self._check_extras()
        require(
            fits,
            key="optimizer.momentum",
            expected="in [0, 1) for sgd and left out for adam, which has its own",
            received=self.momentum,
        )

    def _check_extras(self) -> None:
        one_of(SCHEDULES, key="optimizer.schedule", received=self.schedule)
        require(
            self.final_learning_rate == 0 or self.schedule == "cosine",
            key="optimizer.final_learning_rate",
            expected=f"left out for the schedule {self.schedule!r}",
            received=self.final_learning_rate,
        )
        for key in ("warm_up_epochs", "weight_decay"):
            value = getattr(self, key)
            require(0 <= value < 1000, key=f"optimizer.{key}", expected="0 or more", received=value)
        require(
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
            require(
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
            require(
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
        require(
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
        require(
            bool(starts) and starts[0] == 0 and starts == sorted(set(starts)),
            key="transfer.stages.after_epochs",
            expected="0 for the first stage and more for each later one",
            received=starts,
        )


def require(holds: bool, *, key: str, expected: str, received: object) -> None:
    """Refuse nonsense. Conditions name what is allowed, so that nan, which never is, fails them.

    Raises InvalidInput.
    """
    if not holds:
        raise InvalidInput(f"{key} must be {expected}, received {received!r}")


def one_of(choices: Sequence[str], *, key: str, received: str) -> None:
    """Refuse what is none of the choices. Raises InvalidInput."""
    expected = f"one of {', '.join(choices)}"
    require(received in choices, key=key, expected=expected, received=received)
