"""Optimised graphs on disk, so that a restart need not optimise again.

    <root>/<key>/model.onnx, weights.bin   as ONNX Runtime wrote them
    <root>/<key>/entry.json                what they were made of, their sizes and checksums

The key is a digest of all that decides what the optimised graph is: the model's files, ONNX
Runtime's version, the processor. An entry appears by one rename; one that is cut short, altered or
made of something else is as good as none, and written anew. Beyond `max_bytes` the entries that
have not been used for the longest go.
"""

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnxruntime

from ridgeline.repository import CARD_FILE, MODEL_FILE

logger = logging.getLogger(__name__)

_FORMAT = 1  # of an entry: raise it where the way of writing one changes
_ENTRY_FILE = "entry.json"
_LOCK_FILE, _STAGING = ".lock", ".writing"
_CHUNK_BYTES = 1 << 20
_CPU_LINES = ("model name", "flags", "Features", "CPU part")  # x86-64 and ARM


@dataclass(frozen=True)
class GraphCache:
    """A folder of optimised graphs, which several servers may share."""

    root: Path
    max_bytes: int

    def graph_of(self, path: Path, *, digests: Mapping[str, str]) -> "CachedGraph":
        """The place of the graph of a model file; `digests` are those known of its folder's files.

        Raises OSError where one of them cannot be read.
        """
        made_of = {
            "format": _FORMAT,
            "model": path.name,
            "files": _digests(path.parent, known=digests),
            "onnxruntime": onnxruntime.__version__,
            "provider": "cpu",
            "processor": _processor(),
        }
        return CachedGraph(self, made_of)

    def make_room(self, *, beside: Path) -> None:
        """Remove what has not been used for the longest, until the rest fits; never `beside`."""
        entries = [folder for folder in self.root.iterdir() if (folder / _ENTRY_FILE).is_file()]
        sizes = {entry: _size_bytes(entry) for entry in entries}
        total = sum(sizes.values())
        for entry in sorted(entries, key=lambda entry: entry.stat().st_mtime_ns):
            if total > self.max_bytes and entry != beside:
                shutil.rmtree(entry)
                total -= sizes[entry]


@dataclass
class CachedGraph:
    """The optimised graph of one model: where it is, if it is there and sound."""

    cache: GraphCache
    made_of: Mapping[str, Any]
    _found: Path | None = field(default=None, init=False)

    @property
    def directory(self) -> Path:
        """The folder of the entry."""
        made_of = json.dumps(self.made_of, sort_keys=True).encode()
        return self.cache.root / hashlib.sha256(made_of).hexdigest()[:32]

    def find(self) -> Path | None:
        """The graph, every byte of it checked; None where there is none that can be used."""
        if self._found:
            return self._found
        try:
            entry = json.loads((self.directory / _ENTRY_FILE).read_text(encoding="utf-8"))
            sound = entry["made_of"] == self.made_of and all(
                _state(self.directory / name) == expected
                for name, expected in entry["files"].items()
            )
            os.utime(self.directory)  # it is in use
        except FileNotFoundError:
            return None
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            logger.warning("%s is no entry of a graph cache: %s", self.directory, error)
            return None
        if not sound:
            logger.warning("%s has been altered and is not used", self.directory)
            return None
        self._found = self.directory / MODEL_FILE
        return self._found

    def write(self, save: Callable[[Path], None]) -> Path | None:
        """Let `save` write the graph to the path it is given; None, and a reason, where it fails.

        Where another process is writing, this one does without: nobody waits.
        """
        try:
            with _only_writer(self.cache.root) as staging:
                if staging is None:
                    logger.info("%s is being written to: no graph is cached now", self.cache.root)
                    return None
                save(staging / MODEL_FILE)
                self._publish(staging)
                self.cache.make_room(beside=self.directory)
        except Exception as error:  # noqa: BLE001 - a cache is a help, not a need
            logger.warning("the optimised graph could not be cached: %s", error)
            return None
        return self.find()

    def discard(self) -> None:
        """Remove the entry, which turned out to be of no use."""
        self._found = None
        shutil.rmtree(self.directory, ignore_errors=True)

    def _publish(self, staging: Path) -> None:
        files = {path.name: _state(path) for path in staging.iterdir()}
        entry = {"made_of": self.made_of, "files": files}
        (staging / _ENTRY_FILE).write_text(json.dumps(entry, indent=2), encoding="utf-8")
        for path in (*staging.iterdir(), staging):
            _flush(path)
        shutil.rmtree(self.directory, ignore_errors=True)
        staging.rename(self.directory)


@contextlib.contextmanager
def _only_writer(root: Path) -> Iterator[Path | None]:
    """An empty folder to write into; None where another process has it.

    Whatever a writer that was killed left there is cleared first. Only its owner may write into the
    cache: what is in there decides about answers.
    """
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (root / _LOCK_FILE).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
            return
        staging = root / _STAGING
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir()
        try:
            yield staging
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def _digests(directory: Path, *, known: Mapping[str, str]) -> dict[str, str]:
    """SHA-256 of all files of a version but its card: weights may lie beside the graph."""
    found = {}
    for path in sorted(directory.rglob("*")):
        name = str(path.relative_to(directory))
        if not path.is_file() or name == CARD_FILE:
            continue
        if name not in known:
            with path.open("rb") as stream:
                found[name] = hashlib.file_digest(stream, "sha256").hexdigest()
        else:
            found[name] = known[name]
    return found


def _processor() -> str:
    """What the kernels that ONNX Runtime picks depend on, as a digest."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return ""
    lines = {line for line in text.splitlines() if line.partition("\t")[0].strip() in _CPU_LINES}
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


def _state(path: Path) -> dict[str, int]:
    """Size and CRC-32: against accidents, and fast (SHA-256 takes three times as long)."""
    checksum = size = 0
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            checksum = zlib.crc32(chunk, checksum)
            size += len(chunk)
    return {"bytes": size, "crc32": checksum}


def _flush(path: Path) -> None:
    """Have it on the disk before its name is: a power cut leaves no entry of zeros."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _size_bytes(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.iterdir())
