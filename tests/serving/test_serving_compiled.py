"""When compiled modules run, and when their sources do."""

import json
import subprocess
import sys

import pytest

from serving import compiled


@pytest.fixture
def manifest(tmp_path, monkeypatch):
    """Writes what was compiled, as it would stand beside the compiled modules."""
    monkeypatch.setattr(compiled, "MANIFEST", tmp_path / "manifest.json")

    def write(**what) -> None:
        table = {"suffix": compiled.SUFFIX, "digests": compiled.digests(), **what}
        compiled.MANIFEST.write_text(json.dumps(table))

    return write


def test_modules_of_the_same_sources_run(manifest):
    manifest()

    assert compiled.why_not() is None


@pytest.mark.usefixtures("manifest")
def test_without_compiled_modules_the_sources_run():
    assert compiled.why_not() == "`make compile` has not been run"


def test_after_a_change_to_a_source_the_sources_run(manifest):
    manifest(digests={**compiled.digests(), "serving.batcher": "another"})

    assert "sources have changed" in compiled.why_not()


def test_modules_of_another_python_do_not_run(manifest):
    manifest(suffix=".cpython-310.so")

    assert "they were compiled for .cpython-310.so" in compiled.why_not()


def test_the_environment_may_ask_for_the_sources(manifest, monkeypatch):
    manifest()
    monkeypatch.setenv("RIDGELINE_COMPILED", "0")

    assert compiled.why_not() == "RIDGELINE_COMPILED is 0"


def test_every_module_that_is_compiled_has_a_source():
    assert all(compiled.source(name).is_file() for name in compiled.MODULES)


def test_a_package_without_compiled_modules_keeps_its_path(monkeypatch):
    monkeypatch.setattr(compiled, "INTERPRETED_BECAUSE", "a test asks for it")
    path = ["here"]

    compiled.put_first("serving", path)

    assert path == ["here"]


@pytest.mark.skipif(compiled.why_not() is not None, reason=str(compiled.why_not()))
def test_another_process_runs_the_compiled_modules():
    code = "import serving.batcher, serving.protocol.http2 as h; print(h.__file__)"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip().endswith(compiled.SUFFIX)
