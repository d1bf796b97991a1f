"""The models that this server knows, by name and version, and the state of each."""

import asyncio
import logging
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from ridgeline.errors import NotFound, RidgelineError, Unavailable
from ridgeline.repository import RepositoryModel, scan
from serving.loading import in_load_order, load_version, versions_to_serve
from serving.settings import ServeSettings
from serving.statistics import ModelStatistics
from serving.version import LoadedVersion, ReadyVersion, Stoppable, Surroundings, in_closing_order
from serving.workers import EngineBudget

logger = logging.getLogger(__name__)

_NS_PER_S = 1_000_000_000


class State(Enum):
    """The state of a model version, in the words of Triton's repository index."""

    LOADING = "LOADING"
    READY = "READY"
    UNAVAILABLE = "UNAVAILABLE"


@dataclass
class ServedVersion:
    """One version of a model and its state; `ready` is there exactly while it is READY."""

    name: str
    version: str
    state: State = State.LOADING
    reason: str = "it is still loading"
    ready: ReadyVersion | None = None
    load_ns: int = 0


class Registry:
    """Loads the models of a repository and finds them by name and version.

    Used in the event loop only; the loading itself happens in a thread.
    """

    def __init__(self, settings: ServeSettings) -> None:
        self._settings = settings
        self._models: dict[str, dict[int, ServedVersion]] = {}
        self._broken: dict[str, str] = {}
        self._warming: Stoppable | None = None
        budget = EngineBudget(len(os.sched_getaffinity(0)))
        self._surroundings = Surroundings(settings=settings, budget=budget, find=self.find)
        self._closing = False
        self._loaded = asyncio.Event()
        self.generation = 0

    def __iter__(self) -> Iterator[ServedVersion]:
        for versions in self._models.values():
            yield from versions.values()

    @property
    def broken(self) -> dict[str, str]:
        """Models of which no version could even be looked at, with the reason."""
        return dict(self._broken)

    @property
    def loaded(self) -> bool:
        """Whether every model has been looked at."""
        return self._loaded.is_set()

    async def until_loaded(self) -> None:
        """Return when every model has been looked at."""
        await self._loaded.wait()

    async def load(self) -> None:
        """Load every model of the repository; one that cannot be loaded does not stop the others.

        Raises NotFound where the repository itself is not there.
        """
        models = in_load_order(scan(self._settings.repository))
        chosen = [(model, self._choose(model)) for model in models]
        for model, versions in chosen:
            for version in versions:
                await self._load_version(model, version=version)
        self._loaded.set()

    def find(self, name: str, /, *, version: str = "") -> ReadyVersion:
        """The version asked for, or the newest that is ready.

        Raises NotFound for an unknown model or version, Unavailable with the reason otherwise.
        """
        if name in self._broken:
            raise Unavailable(f"model {name!r} is unavailable: {self._broken[name]}")
        if name not in self._models:
            if not self.loaded:
                raise Unavailable(f"model {name!r} is unavailable: the server is still loading")
            raise NotFound(f"Request for unknown model: {name!r} is not found")
        versions = self._models[name]
        if version:
            return _ready(_of_number(versions, name=name, version=version))
        newest = max(versions)
        ready = [number for number, served in versions.items() if served.state is State.READY]
        return _ready(versions[max(ready, default=newest)])

    def versions(self, name: str) -> list[str]:
        """The versions of a model that are ready, oldest first."""
        return [
            served.version for served in self._models[name].values() if served.state is State.READY
        ]

    async def close(self, *, drain_seconds: float) -> None:
        """Answer what was accepted, within `drain_seconds`, and release the engines.

        A model that still loads is given up: its warm-up is cut short.
        """
        self._closing = True
        if self._warming:
            self._warming.stop()
        ready = [served.ready for served in self if served.ready]
        until_ns = time.monotonic_ns() + int(drain_seconds * _NS_PER_S)
        for together in in_closing_order(ready):
            left_s = max(0, until_ns - time.monotonic_ns()) / _NS_PER_S
            await asyncio.gather(
                *(version.scheduler.close(drain_seconds=left_s) for version in together)
            )
        for served in self:
            served.state, served.reason = State.UNAVAILABLE, "the server is stopping"
            served.ready = None
        self.generation += 1

    def _warm_up(self, engine: Stoppable) -> None:
        """Keep the engine that runs for the first time in reach of `close`; called in a thread."""
        self._warming = engine
        if self._closing:
            engine.stop()

    def _choose(self, model: RepositoryModel) -> tuple[int, ...]:
        try:
            numbers = versions_to_serve(model)
        except (RidgelineError, OSError, UnicodeDecodeError) as error:
            self._broken[model.name] = str(error)
            logger.error("model %r is unavailable: %s", model.name, error)
            return ()
        self._models[model.name] = {
            number: ServedVersion(name=model.name, version=str(number)) for number in numbers
        }
        return numbers

    async def _load_version(self, model: RepositoryModel, *, version: int) -> None:
        served = self._models[model.name][version]
        begin_ns = time.monotonic_ns()
        try:
            loaded = await asyncio.to_thread(
                load_version,
                model,
                version=version,
                settings=self._settings,
                on_engine=self._warm_up,
            )
            served.ready = self._started(loaded, version=served.version)
        except Exception as error:  # one bad model must not stop the others
            served.state, served.reason = State.UNAVAILABLE, _reason(error)
            expected = isinstance(error, (RidgelineError, OSError))
            logger.error(
                "model %r version %s is unavailable: %s",
                served.name,
                served.version,
                served.reason,
                exc_info=None if expected else error,
            )
            return
        self._warming = None
        served.load_ns = time.monotonic_ns() - begin_ns
        served.state, served.reason = State.READY, ""
        self.generation += 1
        logger.info("model %r version %s is ready", served.name, served.version)

    def _started(self, loaded: LoadedVersion, *, version: str) -> ReadyVersion:
        """Put a scheduler before the engine of a model."""
        statistics = ModelStatistics()
        started = loaded.start(version=version, statistics=statistics, within=self._surroundings)
        return ReadyVersion(
            loaded.spec.name, version, loaded, started.scheduler, statistics, started.batcher
        )


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__


def _of_number(versions: dict[int, ServedVersion], *, name: str, version: str) -> ServedVersion:
    for served in versions.values():
        if served.version == version:
            return served
    raise NotFound(
        f"Request for unknown model: {name!r} version {version!r} is not found; "
        f"served versions are {', '.join(map(str, sorted(versions)))}"
    )


def _ready(served: ServedVersion) -> ReadyVersion:
    if served.ready is None:
        raise Unavailable(
            f"model {served.name!r} version {served.version} is unavailable: {served.reason}"
        )
    return served.ready
