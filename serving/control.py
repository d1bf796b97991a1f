"""Which models are served: all at the start, those that the repository holds, or as clients ask.

Triton's model control modes. In mode `poll` the repository is looked at from time to time; a change
is acted on when two looks in a row have seen it alike, so that a file that is being copied is not
loaded half. In mode `explicit` clients load and unload models.
"""

import asyncio
import contextlib
import logging
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ridgeline.errors import InvalidInput, NotFound, RidgelineError, Unavailable
from ridgeline.repository import RepositoryModel, look_up, scan
from serving.loading import dependencies_of
from serving.marks import glance
from serving.override import Override, OverrideFolder, overridden
from serving.registry import Registry
from serving.served import LoadFault, State

logger = logging.getLogger(__name__)

EVERY_MODEL = "*"
_SETTLING_S = 1.0  # to the second look at what has changed


@dataclass(frozen=True)
class IndexEntry:
    """One line of the repository index; a model that was never loaded has no version, no state."""

    name: str
    version: str = ""
    state: str = ""
    reason: str = ""


class ModelControl:
    """Decides what a registry serves, by its settings; used in the event loop only."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._settings = registry.settings
        self._seen: dict[str, bytes] = {}
        self._changing: dict[str, bytes | None] = {}
        self._dependencies: dict[str, frozenset[str]] = {}
        self._unloaded: set[str] = set()  # by request
        self._lock = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._polling: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Load what is to be served from the start; from then on poll, where that is the mode.

        Raises NotFound where there is no repository.
        """
        root, names = self._settings.repository, self._settings.load_model
        self._seen = await asyncio.to_thread(glance, root)
        models = {model.name: model for model in await asyncio.to_thread(scan, root)}
        self._dependencies = {name: dependencies_of(model) for name, model in models.items()}
        wanted: set[str] | None = None
        if self._settings.model_control_mode == "explicit" and names != (EVERY_MODEL,):
            wanted = self._with_dependencies(names)
        await self._finish(self._registry.load(wanted))
        if self._settings.model_control_mode == "poll":
            self._polling = asyncio.create_task(self._poll())

    async def close(self) -> None:
        """Look no more."""
        if self._polling:
            self._polling.cancel()
            await asyncio.gather(self._polling, return_exceptions=True)

    async def index(self, *, ready: bool = False) -> list[IndexEntry]:
        """Every model of the repository and every version that is or was served, with its state."""
        entries = [
            IndexEntry(served.name, served.version, served.state.value, served.reason)
            for served in self._registry
            if served.state is State.READY or not ready
        ]
        if not ready:
            entries += [
                IndexEntry(name, state=State.UNAVAILABLE.value, reason=reason)
                for name, reason in self._registry.broken.items()
            ]
            known = {entry.name for entry in entries}
            models = await asyncio.to_thread(_names_of, self._settings.repository)
            entries += [IndexEntry(name) for name in models if name not in known]
        number = {entry: int(entry.version or 0) for entry in entries}
        return sorted(entries, key=lambda entry: (entry.name, number[entry]))

    async def load(self, name: str, *, override: Override | None = None) -> None:
        """Load a model, or load anew what of it has changed, and what it depends on.

        Raises Unavailable in another mode than `explicit`, LoadFault where there is no such model
        or nothing that can be read as one, InvalidInput where a version cannot be loaded or the
        name leads out of the repository.
        """
        self._check_explicit()
        if name in (".", ".."):  # folders, unlike other names that lead out of it
            raise InvalidInput(f"a model is a folder of the repository, received {name[:200]!r}")
        await self._finish(self._load_by_request(name, override))

    async def unload(self, name: str, *, dependents: bool = False) -> None:
        """Unload a model and those that depend on it; with `dependents` those it depends on, too.

        What they have accepted is answered. Raises Unavailable in another mode than `explicit`.
        """
        self._check_explicit()
        await self._finish(self._unload_by_request(name, dependents=dependents))

    async def look(self) -> bool:
        """Look at the repository once, and follow what has changed and settled.

        Returns whether something is still changing.
        """
        try:
            found: dict[str, bytes] = await asyncio.to_thread(glance, self._settings.repository)
        except (RidgelineError, OSError) as error:
            logger.error("the model repository cannot be looked at: %s", error)
            return False
        names = self._seen.keys() | found.keys()
        changed = {
            name: found.get(name) for name in names if found.get(name) != self._seen.get(name)
        }
        settled = [
            name
            for name, mark in changed.items()
            if name in self._changing and self._changing[name] == mark
        ]
        self._changing = {name: mark for name, mark in changed.items() if name not in settled}
        if settled:
            await self._finish(self._follow(settled, found))
        return bool(self._changing)

    async def _poll(self) -> None:
        pause_s = self._settings.repository_poll_secs
        while True:
            try:
                changing = await self.look()
            except Exception:
                logger.exception("looking at the model repository failed")
                changing = False
            await asyncio.sleep(min(pause_s, _SETTLING_S) if changing else pause_s)

    async def _follow(self, settled: list[str], found: dict[str, bytes]) -> None:
        for name in settled:
            if name in found:
                self._seen[name] = found[name]
                with contextlib.suppress(RidgelineError):  # logged, and the state tells
                    await self._load(name)
            else:
                self._seen.pop(name, None)
                await self._withdraw(name)
                self._registry.forget(name)

    async def _load_by_request(self, name: str, override: Override | None) -> None:
        self._unloaded.discard(name)
        await self._load(name, override=override)

    async def _load(
        self, name: str, *, override: Override | None = None, above: frozenset[str] = frozenset()
    ) -> None:
        """Load a model after what it depends on, and then what waited for it."""
        model, folder = await asyncio.to_thread(self._described, name, override)
        try:
            self._dependencies[name] = needed = await asyncio.to_thread(dependencies_of, model)
            for other in sorted(needed - above - {name}):
                if not self._is_ready(other):
                    with contextlib.suppress(RidgelineError):  # what needs it will say so
                        await self._load(other, above=above | {name})
            await self._registry.serve(model, folder=folder)
        finally:
            if folder:
                folder.release()
        for other, names in list(self._dependencies.items()):
            waits = name in names and other not in self._unloaded and other not in above
            if waits and self._registry.knows(other) and not self._is_ready(other):
                with contextlib.suppress(RidgelineError):
                    await self._load(other, above=above | {name})

    async def _unload_by_request(self, name: str, *, dependents: bool) -> None:
        names = self._with_dependencies((name,)) if dependents else {name}
        self._unloaded |= names
        for each in sorted(names, key=lambda each: (each != name, each)):
            await self._withdraw(each)

    async def _withdraw(self, name: str, *, above: frozenset[str] = frozenset()) -> None:
        """Unload a model after those that depend on it: they answer what they have accepted."""
        for other, names in self._dependencies.items():
            if name in names and other != name and other not in above:
                if self._is_ready(other):
                    logger.info("model %r depends on %r, and goes with it", other, name)
                    await self._withdraw(other, above=above | {name})
                await self._registry.drained(other)
        self._registry.withdraw(name)

    def _described(
        self, name: str, override: Override | None
    ) -> tuple[RepositoryModel, OverrideFolder | None]:
        try:
            if override is None:
                return look_up(self._settings.repository, name=name), None
            return overridden(name, override, root=self._settings.repository)
        except (NotFound, InvalidInput, OSError) as error:
            raise LoadFault(f"failed to load {name!r}: {error}") from error

    def _with_dependencies(self, names: tuple[str, ...]) -> set[str]:
        """The models, and all that they need."""
        found: set[str] = set()
        left = list(names)
        while left:
            name = left.pop()
            if name not in found:
                found.add(name)
                left += self._dependencies.get(name, ())
        return found

    def _is_ready(self, name: str) -> bool:
        return any(served.ready for served in self._registry if served.name == name)

    def _check_explicit(self) -> None:
        if self._registry.closing:
            raise Unavailable("the server is stopping")
        mode = self._settings.model_control_mode
        if mode != "explicit":
            raise Unavailable(
                "explicit model load / unload is not allowed: the server runs with "
                f"model_control_mode {mode!r}, expected 'explicit'"
            )

    async def _finish(self, change: Coroutine[Any, Any, None]) -> None:
        """Make a change, one after the other, to its end, even where who asked for it has gone."""

        async def make() -> None:
            async with self._lock:
                await change

        task = asyncio.get_running_loop().create_task(make())
        self._tasks.add(task)
        task.add_done_callback(self._done)
        await asyncio.shield(task)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # who asked for it may have gone


def _names_of(root: Path) -> list[str]:
    try:
        return [model.name for model in scan(root)]
    except (NotFound, OSError):
        return []
