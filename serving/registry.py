"""The models that this server knows, by name and version, and the state of each."""

import asyncio
import logging
import os
import time
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor

from ridgeline.errors import InvalidInput, NotFound, RidgelineError, Unavailable
from ridgeline.repository import RepositoryModel, scan
from serving.engine import yield_to_event_loop
from serving.loading import in_load_order, load_version, versions_to_serve
from serving.marks import version_mark
from serving.override import OverrideFolder
from serving.served import LoadFault, ServedVersion, State, of_number, ready_of
from serving.settings import ServeSettings
from serving.statistics import ModelStatistics
from serving.version import LoadedVersion, ReadyVersion, Stoppable, Surroundings, in_closing_order
from serving.workers import EngineBudget

logger = logging.getLogger(__name__)

_NS_PER_S = 1_000_000_000


_PATIENT_S = 10 * 365 * 24 * 3600  # a version that is replaced may answer all it has accepted
_UNREADABLE = (RidgelineError, OSError, UnicodeDecodeError)


class Registry:
    """Loads the models of a repository and finds them by name and version.

    Used in the event loop only; the loading itself happens in a thread. Whoever changes what is
    served (`load`, `serve`, `withdraw`) does so one after the other.
    """

    def __init__(self, settings: ServeSettings) -> None:
        self._settings = settings
        self._models: dict[str, dict[int, ServedVersion]] = {}
        self._broken: dict[str, str] = {}
        self._warming: Stoppable | None = None
        self._failure = ""  # of the version that was loaded last
        budget = EngineBudget(len(os.sched_getaffinity(0)))
        self._surroundings = Surroundings(settings=settings, budget=budget, find=self.find)
        self._closing = False
        self._loader = ThreadPoolExecutor(
            max_workers=1, thread_name_prefix="load", initializer=yield_to_event_loop
        )
        self._draining: dict[asyncio.Task[None], ReadyVersion] = {}
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

    @property
    def settings(self) -> ServeSettings:
        """What the server was started with."""
        return self._settings

    @property
    def closing(self) -> bool:
        """Whether the server is stopping: nothing is loaded any more."""
        return self._closing

    async def load(self, names: Collection[str] | None = None) -> None:
        """Load every model of the repository, or those named; one that cannot be loaded does not
        stop the others.

        Raises NotFound where the repository itself is not there.
        """
        models = in_load_order(scan(self._settings.repository))
        for model in models:
            if names is None or model.name in names:
                try:
                    await self.serve(model)
                except RidgelineError:  # logged, and the state tells
                    continue
        found = {model.name for model in models}
        for name in set(names or ()) - found:
            self._unreadable(name, "the model repository has no such folder")
        self._loaded.set()

    def find(self, name: str, /, *, version: str = "") -> ReadyVersion:
        """The version asked for, or the newest that is ready.

        Raises NotFound for an unknown model or version, Unavailable with the reason otherwise.
        """
        if name in self._broken:
            raise NotFound(f"model {name!r} has no available versions: {self._broken[name]}")
        if name not in self._models:
            if not self.loaded:
                raise Unavailable(f"model {name!r} is unavailable: the server is still loading")
            raise NotFound(f"Request for unknown model: {name!r} is not found")
        versions = self._models[name]
        if version:
            return ready_of(of_number(versions, name=name, version=version))
        ready = [number for number, served in versions.items() if served.state is State.READY]
        if ready:
            return ready_of(versions[max(ready)])
        newest = versions[max(versions)]
        if newest.state is State.LOADING or self._closing:
            return ready_of(newest)
        raise NotFound(
            f"model {name!r} has no available versions: version {newest.version} "
            f"is unavailable: {newest.reason}"
        )

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
        ready += self._draining.values()
        until_ns = time.monotonic_ns() + int(drain_seconds * _NS_PER_S)
        for together in in_closing_order(ready):
            left_s = max(0, until_ns - time.monotonic_ns()) / _NS_PER_S
            await asyncio.gather(
                *(version.scheduler.close(drain_seconds=left_s) for version in together)
            )
        await asyncio.gather(*self._draining)
        for served in self:
            if served.folder:
                served.folder.release()
                served.folder = None
        for served in self:
            served.state, served.reason = State.UNAVAILABLE, "the server is stopping"
            served.ready = None
        self.generation += 1
        self._loader.shutdown(wait=False)

    async def serve(self, model: RepositoryModel, *, folder: OverrideFolder | None = None) -> None:
        """Load what of a model is new or has changed, and let go what is no longer to be served.

        What is replaced answers until then, and then what it has accepted. `folder` holds the
        model's files where they are temporary. Raises LoadFault where the model cannot be looked
        at, InvalidInput where a version cannot be loaded: what was served before still is.
        """
        try:
            marks = await asyncio.to_thread(_marks_of, model)
        except _UNREADABLE as error:
            self._unreadable(model.name, str(error))
            raise LoadFault(f"failed to load {model.name!r}: {error}") from error
        self._broken.pop(model.name, None)
        versions = self._models.setdefault(model.name, {})
        for number in marks:
            if number not in versions:
                versions[number] = ServedVersion(name=model.name, version=str(number))
        failed = ""
        for number, mark in marks.items():
            served = versions[number]
            if served.ready and served.mark == mark:
                continue
            if served.ready is None:
                served.state, served.reason = State.LOADING, "it is still loading"
            if await self._load_version(model, served, folder=folder):
                served.mark = mark
            else:
                failed = f"version {number} is at UNAVAILABLE state: {self._failure}"
        if failed:
            raise InvalidInput(f"load failed for model {model.name!r}: {failed}")
        for number in versions.keys() - marks.keys():
            self._unload(versions[number], reason="unloaded")

    def knows(self, name: str) -> bool:
        """Whether that model is served, or was to be."""
        return name in self._models or name in self._broken

    def withdraw(self, name: str, *, reason: str = "unloaded") -> None:
        """Take no new requests for a model; what it has accepted is answered."""
        self._broken.pop(name, None)
        for served in self._models.get(name, {}).values():
            self._unload(served, reason=reason)

    async def drained(self, name: str) -> None:
        """Return when what was let go of a model has answered what it had accepted."""
        tasks = [task for task, version in self._draining.items() if version.name == name]
        await asyncio.gather(*tasks)

    def forget(self, name: str) -> None:
        """Let a model that has gone from the repository go from the index, too."""
        self._broken.pop(name, None)
        versions = self._models.get(name, {})
        if all(served.state is State.UNAVAILABLE for served in versions.values()):
            self._models.pop(name, None)

    def _unload(self, served: ServedVersion, *, reason: str) -> None:
        served.reason = reason
        if served.ready:
            self._let_go(served)
        elif served.state is not State.UNLOADING:
            served.state = State.UNAVAILABLE

    def _unreadable(self, name: str, reason: str) -> None:
        logger.error("model %r is unavailable: %s", name, reason)
        if not any(served.ready for served in self._models.get(name, {}).values()):
            self._broken[name] = reason

    def _warm_up(self, engine: Stoppable) -> None:
        """Keep the engine that runs for the first time in reach of `close`; called in a thread."""
        self._warming = engine
        if self._closing:
            engine.stop()

    async def _load_version(
        self, model: RepositoryModel, served: ServedVersion, *, folder: OverrideFolder | None
    ) -> bool:
        """Load one version and switch to it; returns whether that went well."""
        begin_ns = time.monotonic_ns()
        try:
            if self._closing:
                raise Unavailable("the server is stopping")
            loaded = await asyncio.get_running_loop().run_in_executor(
                self._loader, self._load_blocking, model, int(served.version)
            )
            if self._closing:
                raise Unavailable("the server is stopping")
            ready = self._started(loaded, version=served.version)
        except Exception as error:
            reason = str(error) or type(error).__name__
            if served.ready is None:
                served.state, served.reason = State.UNAVAILABLE, reason
            kept = "; it answers as before" if served.ready else ""
            logger.error(
                "model %r version %s cannot be loaded: %s%s",
                served.name,
                served.version,
                reason,
                kept,
                exc_info=None if isinstance(error, (RidgelineError, OSError)) else error,
            )
            self._failure = reason
            return False
        finally:
            self._warming = None
        self._let_go(served)
        served.ready, served.load_ns = ready, time.monotonic_ns() - begin_ns
        served.state, served.reason = State.READY, ""
        if folder:
            folder.hold()
            served.folder = folder
        self.generation += 1
        logger.info("model %r version %s is ready", served.name, served.version)
        return True

    def _load_blocking(self, model: RepositoryModel, version: int) -> LoadedVersion:
        return load_version(
            model, version=version, settings=self._settings, on_engine=self._warm_up
        )

    def _let_go(self, served: ServedVersion) -> None:
        """Let what answers for a version finish what it has accepted; nothing more comes to it."""
        ready, folder = served.ready, served.folder
        served.ready = served.folder = None
        if ready is None:
            return
        served.state = State.UNLOADING
        self.generation += 1
        task = asyncio.get_running_loop().create_task(self._drain(served, ready, folder))
        self._draining[task] = ready
        task.add_done_callback(self._draining.pop)

    async def _drain(
        self, served: ServedVersion, ready: ReadyVersion, folder: OverrideFolder | None
    ) -> None:
        try:
            await ready.scheduler.close(drain_seconds=_PATIENT_S)
        except Exception:
            logger.exception("model %r version %s ended badly", ready.name, ready.version)
        if folder:
            folder.release()
        if served.state is State.UNLOADING:
            served.state = State.UNAVAILABLE
        logger.info("model %r version %s is unloaded", ready.name, ready.version)

    def _started(self, loaded: LoadedVersion, *, version: str) -> ReadyVersion:
        """Put a scheduler before the engine of a model."""
        statistics = ModelStatistics()
        started = loaded.start(version=version, statistics=statistics, within=self._surroundings)
        return ReadyVersion(
            loaded.spec.name, version, loaded, started.scheduler, statistics, started.batcher
        )


def _marks_of(model: RepositoryModel) -> dict[int, bytes]:
    """The versions to serve, and what tells whether their files have changed. Blocks."""
    return {number: version_mark(model, version=number) for number in versions_to_serve(model)}
