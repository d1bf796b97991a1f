"""Versions of the server to compare: a git revision, another checkout, another installation."""

import contextlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ridgeline.errors import NotFound

_ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Version:
    """What to start a server with: an interpreter, and the checkout that it is to run."""

    name: str
    python: str
    checkout: Path


def this_version() -> Version:
    """The code that runs now."""
    return Version("candidate", sys.executable, _ROOT)


@contextlib.contextmanager
def version_of(text: str) -> Iterator[Version]:
    """The version that `text` names, there as long as the block runs.

    A folder is a checkout, run with this interpreter, or an environment (it holds bin/python) in
    which Ridgeline is installed. Anything else is a git revision of this checkout. Raises NotFound.
    """
    folder = Path(text)
    if folder.is_dir():
        python = folder / "bin" / "python"
        if python.exists():
            yield Version(text, str(python), folder)
        elif (folder / "serving").is_dir():
            yield Version(text, sys.executable, folder.resolve())
        else:
            raise NotFound(f"{text} is neither a checkout of Ridgeline nor an environment")
        return
    with tempfile.TemporaryDirectory(prefix="ridgeline-version-") as name:
        checkout = Path(name) / "checkout"
        _check_out(text, checkout)
        yield Version(text, sys.executable, checkout)


def _check_out(revision: str, folder: Path) -> None:
    """The files of a revision, without touching this checkout."""
    git = shutil.which("git")
    if git is None:
        raise NotFound(f"{revision!r} is no folder, and there is no git to look it up with")
    archive = subprocess.run(  # noqa: S603 - fixed words and a revision
        [git, "-C", str(_ROOT), "archive", "--format=tar", revision, "--"],
        capture_output=True,
    )
    if archive.returncode:
        reason = archive.stderr.decode(errors="replace").strip()
        raise NotFound(f"{revision!r} is neither a folder nor a git revision: {reason}")
    folder.mkdir()
    tar = shutil.which("tar") or "tar"
    subprocess.run([tar, "-x", "-C", str(folder)], input=archive.stdout, check=True)  # noqa: S603
