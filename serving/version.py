"""A version of a model, loaded and then ready: what every kind of model comes down to.

A backend (`serving/backends/`, one file a kind) loads a folder into a subclass of LoadedVersion;
the registry starts that, and whoever serves requests meets a ReadyVersion.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from tritonclient.grpc import model_config_pb2

from ridgeline.cost import ModelCost
from ridgeline.model import ModelSpec
from ridgeline.repository import RepositoryModel
from serving.batcher import Batcher
from serving.scheduler import Scheduler
from serving.settings import ServeSettings
from serving.statistics import ModelStatistics
from serving.workers import EngineBudget


class Stoppable(Protocol):
    """What may run for long while a model loads, and can be cut short from any thread."""

    def stop(self) -> None:
        """Make what runs fail soon."""


class Find(Protocol):
    """How a model finds another one that it uses; see `Registry.find`."""

    def __call__(self, name: str, /, *, version: str = "") -> "ReadyVersion":
        """The version asked for, or the newest. Raises NotFound, Unavailable."""


@dataclass(frozen=True)
class Loading:
    """One version to load: where it is, its configuration (None: the folder has none), settings.

    `on_engine` receives what runs the model before its first run, so that a long one can be cut
    short.
    """

    model: RepositoryModel
    version: int
    given: model_config_pb2.ModelConfig | None
    settings: ServeSettings
    on_engine: Callable[[Stoppable], None]


@dataclass(frozen=True)
class Surroundings:
    """What a version shares with the others of its server."""

    settings: ServeSettings
    budget: EngineBudget
    find: Find


@dataclass(frozen=True)
class Started:
    """What answers the requests of a version; usual ones may go straight to the `batcher`."""

    scheduler: Scheduler
    batcher: Batcher | None = None


@dataclass(frozen=True, kw_only=True)
class LoadedVersion(ABC):
    """A version that can be started: its complete configuration and contract, cost and labels.

    `depends_on` are the names of the models that it sends requests to.
    """

    config: model_config_pb2.ModelConfig
    spec: ModelSpec
    cost: ModelCost | None = None
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    depends_on: tuple[str, ...] = ()

    @property
    @abstractmethod
    def platform(self) -> str:
        """What the metadata calls the kind of model."""

    @abstractmethod
    def start(self, *, version: str, statistics: ModelStatistics, within: Surroundings) -> Started:
        """Begin to answer requests; called once, in the event loop.

        Raises a RidgelineError where it cannot, because of the models it depends on, say.
        """


@dataclass(frozen=True, eq=False)
class ReadyVersion:
    """A version that can answer.

    Usual requests go straight to the `batcher`, where there is one; all others to the `scheduler`.
    """

    name: str
    version: str
    loaded: LoadedVersion
    scheduler: Scheduler
    statistics: ModelStatistics
    batcher: Batcher | None = None


def in_closing_order(versions: Iterable[ReadyVersion]) -> Iterator[list[ReadyVersion]]:
    """Those that nobody in the list depends on; then those that now nobody does; and so on.

    So an ensemble can still answer what it has accepted.
    """
    left = list(versions)
    while left:
        needed = {name for version in left for name in version.loaded.depends_on}
        free = [version for version in left if version.name not in needed] or left
        yield free
        left = [version for version in left if version not in free]
