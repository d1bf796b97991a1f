"""What tells that files of a model repository have changed, without reading the large ones."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from google.protobuf.message import Message
from tritonclient.grpc import model_config_pb2

from ridgeline.errors import InvalidInput
from ridgeline.repository import CONFIG_FILE, RepositoryModel, scan

_MOST_READ_BYTES = 1 << 20  # of a file beside the versions (labels); of a larger one, size and time
_MOST_FILES = 10_000  # of a model: more are not looked at


def glance(root: Path, /) -> dict[str, bytes]:
    """A mark for each model of a repository, which differs after any change of its files.

    Only names, sizes and times are looked at. Raises NotFound where there is no repository.
    """
    return {model.name: _digest(_stats(model.directory)) for model in scan(root)}


def version_mark(model: RepositoryModel, *, version: int) -> bytes:
    """A mark that differs where that version has to be loaded again.

    It covers the files of the version, the configuration but for its version policy (which says
    what to serve, not how), and what else stands beside it, by content: publishing another version
    writes these anew without a change.
    """
    config = model.read_config() or model_config_pb2.ModelConfig()
    config.ClearField("version_policy")
    parts = [_bytes_of(config), *_stats(model.version_directory(version))]
    for path in sorted(model.directory.iterdir()):
        if path.is_file() and path.name != CONFIG_FILE:
            small = path.stat().st_size <= _MOST_READ_BYTES
            parts += [path.name.encode(), path.read_bytes() if small else _stat(path)]
    return _digest(parts)


def _stats(folder: Path) -> Iterator[bytes]:
    """Names, sizes and times of the files below a folder. Raises InvalidInput for too many."""
    count = 0
    for parent, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted(files):
            count += 1
            if count > _MOST_FILES:
                raise InvalidInput(f"{folder} holds more than {_MOST_FILES} files")
            path = Path(parent, name)
            yield os.fsencode(path.relative_to(folder))
            yield _stat(path)
        yield from (os.fsencode(name) for name in folders)


def _stat(path: Path) -> bytes:
    try:
        stat = path.stat()
    except FileNotFoundError:  # it has gone meanwhile, or is a link to nowhere
        return b"gone"
    return f"{stat.st_size} {stat.st_mtime_ns} {stat.st_ino}".encode()


def _bytes_of(message: Message) -> bytes:
    return message.SerializeToString(deterministic=True)


def _digest(parts: Iterator[bytes] | list[bytes]) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.digest()
