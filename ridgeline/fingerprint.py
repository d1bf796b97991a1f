"""What measured figures depend on: the machine, and the libraries that were measured."""

import contextlib
import hashlib
import importlib.metadata
import json
import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ridgeline.gpu import installed

_ENGINES = ("onnxruntime", "onnxruntime-gpu")


@dataclass(frozen=True)
class Fingerprint:
    """What the figures depend on; another fingerprint means measuring again."""

    cpu: str
    cores: int
    memory_bytes: int
    platform: str
    numpy: str
    blas: str
    engine: str = ""
    gpus: str = ""

    @property
    def digest(self) -> str:
        """A short name for this machine, fit for a file name."""
        table = asdict(self)
        if not self.gpus:  # machines without one keep the names of their files
            del table["gpus"]
        return hashlib.sha256(json.dumps(table).encode()).hexdigest()[:16]


def current_fingerprint() -> Fingerprint:
    """The fingerprint of this machine, this process's cores, and the numpy installed here."""
    build: Any = np.show_config(mode="dicts")
    blas = build["Build Dependencies"]["blas"]
    return Fingerprint(
        cpu=_cpu_model(),
        cores=len(os.sched_getaffinity(0)),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        platform=platform.platform(),
        numpy=np.__version__,
        blas=f"{blas['name']} {blas['version']}",
        engine=_engine(),
        gpus=", ".join(f"{gpu.name} (driver {gpu.driver})" for gpu in installed()),
    )


def _engine() -> str:
    for name in _ENGINES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return f"{name} {importlib.metadata.version(name)}"
    return ""


def _cpu_model() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
