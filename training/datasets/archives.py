"""Files of data sets that do not come with the project: found, or fetched, and checked.

They are looked for in the folder that the user names, else in the cache,
`$XDG_CACHE_HOME/ridgeline/datasets` (`~/.cache` where that is not set), into which they are
downloaded where there is a network. A file counts once its digest is the published one.
"""

import hashlib
import os
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ridgeline.errors import CorruptData, MissingData

_TIMEOUT_S = 30  # without a byte
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Archive:
    """A published file: its name, where it is to be had, the MD5 published with it.

    That guards against damage, not malice: nothing in a file may be trusted for it.
    """

    name: str
    url: str
    md5: str


def cache_folder(data_set: str) -> Path:
    """Where downloaded files of that data set are kept."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "ridgeline" / "datasets" / data_set


def find(
    wanted: Sequence[Archive],
    *,
    data_set: str,
    folder: Path | None,
    instead: Sequence[Archive] = (),
) -> list[Path]:
    """The files, checked: from `folder`, or from the cache, which a download fills.

    All of `instead` will do as well where they are there already. Raises MissingData, which says
    what to put where; CorruptData for a file that is not the published one.
    """
    place = cache_folder(data_set) if folder is None else folder
    for choice in (wanted, instead):
        if choice and all((place / archive.name).is_file() for archive in choice):
            return [_checked(place / archive.name, md5=archive.md5) for archive in choice]
    if folder is not None:
        raise MissingData(
            f"{folder} must hold {_names(wanted, instead)}, of the data set {data_set}"
        )
    try:
        return [_fetched(archive, place) for archive in wanted]
    except (OSError, urllib.error.URLError) as error:
        sources = ", ".join(archive.url for archive in wanted)
        raise MissingData(
            f"the data set {data_set} is not here and cannot be downloaded ({error}); "
            f"put {_names(wanted, instead)} (from {sources}) into {place}, "
            "or into a folder of your choice that --data names"
        ) from error


def _names(wanted: Sequence[Archive], instead: Sequence[Archive]) -> str:
    choices = [", ".join(archive.name for archive in choice) for choice in (wanted, instead)]
    return " or ".join(choice for choice in choices if choice)


def _fetched(archive: Archive, place: Path) -> Path:
    """The file in the cache, downloaded beside its place and renamed into it once it is whole."""
    path = place / archive.name
    if path.is_file():
        return _checked(path, md5=archive.md5)
    place.mkdir(parents=True, exist_ok=True)
    new = place / f".{archive.name}.{os.getpid()}"
    try:
        with (
            urllib.request.urlopen(archive.url, timeout=_TIMEOUT_S) as source,  # noqa: S310 - ours
            new.open("wb") as target,
        ):
            while chunk := source.read(_CHUNK_BYTES):
                target.write(chunk)
        _checked(new, md5=archive.md5)
        return new.replace(path)
    finally:
        new.unlink(missing_ok=True)


def _checked(path: Path, *, md5: str) -> Path:
    with path.open("rb") as stream:
        found = hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if found != md5:
        raise CorruptData(
            f"{path} must have the MD5 {md5}, received {path.stat().st_size} bytes with {found}; "
            "remove it to have it downloaded anew"
        )
    return path
