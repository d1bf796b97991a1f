"""`python -m serving.compile`: compile the modules on the way of every request, with mypyc and gcc.

What they are, and when they are used, stands in `compiled.py`.
"""

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

from serving.compiled import FOLDER, GROUP, MANIFEST, MODULES, ROOT, SUFFIX, digests, source


def main() -> int:
    """Compile; the old modules stay until the new ones are complete. Returns the exit code."""
    from mypyc.build import mypycify
    from setuptools import Distribution
    from setuptools.command.build_ext import build_ext

    FOLDER.parent.mkdir(exist_ok=True)
    compiled = digests()  # before: what changes meanwhile is not what was compiled
    with tempfile.TemporaryDirectory(dir=FOLDER.parent) as work:
        os.chdir(ROOT)  # mypyc names modules by their paths
        sources = [str(source(name).relative_to(ROOT)) for name in MODULES]
        extensions = mypycify(sources, group_name=GROUP, opt_level="3", target_dir=f"{work}/c")
        command = build_ext(Distribution({"name": "ridgeline", "ext_modules": extensions}))
        command.build_lib, command.build_temp = f"{work}/lib", f"{work}/objects"
        command.parallel = os.cpu_count()
        command.ensure_finalized()
        command.run()
        _take_over(Path(work) / "lib", compiled)
    print(f"{len(MODULES)} modules compiled into {FOLDER.relative_to(ROOT)}")
    return 0


def _take_over(made: Path, compiled: dict[str, str]) -> None:
    manifest = {"suffix": SUFFIX, "digests": compiled}
    (made / MANIFEST.name).write_text(json.dumps(manifest, indent=2), encoding="utf-8")
    if FOLDER.exists():
        shutil.rmtree(FOLDER)
    made.replace(FOLDER)


if __name__ == "__main__":
    sys.exit(main())
