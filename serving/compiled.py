"""The modules on the way of every request, compiled to machine code where that has been done.

`make compile` (part of `make install`) runs `python -m serving.compile`, which turns them into
extension modules with mypyc, outside of the sources. They are used as long as every source is the
one that was compiled; RIDGELINE_COMPILED=0 asks for the sources themselves, to debug or to test.
"""

import hashlib
import importlib.machinery
import importlib.util
import json
import os
import sys
import sysconfig
from collections.abc import MutableSequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "build" / "compiled"
MANIFEST = FOLDER / "manifest.json"
GROUP = "ridgeline_request_path"  # the library that holds the code of all of them
SUFFIX: str = sysconfig.get_config_var("EXT_SUFFIX")

MODULES = (
    "serving.admission",
    "serving.alarm",
    "serving.batcher",
    "serving.callers",
    "serving.completions",
    "serving.dispatching",
    "serving.door",
    "serving.execution",
    "serving.job",
    "serving.lone_runs",
    "serving.pace",
    "serving.packing",
    "serving.policy",
    "serving.service_time",
    "serving.statistics",
    "serving.urgency",
    "serving.waiting",
    "serving.workers",
    "serving.protocol.grpc_http2",
    "serving.protocol.grpc_known",
    "serving.protocol.grpc_wire",
    "serving.protocol.http2",
    "serving.protocol.http2_frames",
    "serving.protocol.http2_headers",
    "serving.protocol.http2_receiving",
    "serving.protocol.http2_sending",
    "serving.protocol.http_job",
    "serving.protocol.http_known",
    "serving.protocol.uploads",
)


def source(module: str) -> Path:
    """Where the source of a module is."""
    return ROOT.joinpath(*module.split(".")).with_suffix(".py")


def digests() -> dict[str, str]:
    """The digests of the sources as they are now, by module."""
    return {name: hashlib.sha256(source(name).read_bytes()).hexdigest() for name in MODULES}


def why_not() -> str | None:
    """Why the sources are run instead of compiled modules; None where these are run."""
    if os.environ.get("RIDGELINE_COMPILED", "1") == "0":
        return "RIDGELINE_COMPILED is 0"
    try:
        manifest = json.loads(MANIFEST.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return "`make compile` has not been run"
    if manifest.get("suffix") != SUFFIX:
        return f"they were compiled for {manifest.get('suffix')}, this Python needs {SUFFIX}"
    if manifest.get("digests") != digests():
        return "sources have changed since `make compile`"
    return None


INTERPRETED_BECAUSE = why_not()  # asked once: modules of both kinds do not mix


def put_first(package: str, path: MutableSequence[str]) -> None:
    """Let a package look for its modules among the compiled ones first, where they are to be used.

    `path` is the package's `__path__`.
    """
    if INTERPRETED_BECAUSE is not None:
        return
    library = f"{GROUP}__mypyc"
    if library not in sys.modules:
        spec = importlib.util.spec_from_file_location(library, FOLDER / f"{library}{SUFFIX}")
        if spec is None or spec.loader is None:
            raise ImportError(f"{FOLDER} holds no {library}{SUFFIX}; run `make compile` again")
        sys.modules[library] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[library])
    path.insert(0, str(FOLDER.joinpath(*package.split("."))))
