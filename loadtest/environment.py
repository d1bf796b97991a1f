"""Where a measurement was taken: machine, versions, commit. It travels with every result."""

import datetime
import importlib.metadata
import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

from ridgeline import __version__
from ridgeline.fingerprint import current_fingerprint

_PACKAGES = ("numpy", "scipy", "grpcio", "aiohttp", "tritonclient")


def describe() -> dict[str, Any]:
    """The client's machine, software and commit (None outside a checkout), and the time."""
    fingerprint = current_fingerprint()
    return {
        "cpu": fingerprint.cpu,
        "cores": fingerprint.cores,
        "memory_bytes": fingerprint.memory_bytes,
        "platform": fingerprint.platform,
        "load_average": os.getloadavg()[0],
        "python": platform.python_version(),
        "ridgeline": __version__,
        "packages": {name: importlib.metadata.version(name) for name in _PACKAGES},
        "commit": commit(Path(__file__).parent),
        "measured_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def commit(folder: Path) -> str | None:
    """The commit checked out in `folder`, with "-dirty" for changed files; None without git."""
    git = shutil.which("git")
    if git is None:
        return None
    done = subprocess.run(  # noqa: S603 - fixed arguments
        [git, "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    return done.stdout.strip() or None
