"""The house keeps its rules: who loads what, and what the documents promise."""

import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ridgeline.__main__ import COMMANDS
from serving.settings import ServeSettings

ROOT = Path(__file__).parents[1]
FRAMEWORKS = ("tensorflow", "keras", "tf2onnx")


@pytest.mark.parametrize(
    ("stage", "forbidden"),
    [
        ("ridgeline", (*FRAMEWORKS, "onnxruntime", "onnx", "training", "export", "serving")),
        ("training", ("onnxruntime", "onnx", "tf2onnx", "export", "serving", "loadtest")),
        ("export", ("training", "serving", "loadtest")),
        ("serving", (*FRAMEWORKS, "training", "export", "loadtest")),
        ("loadtest", (*FRAMEWORKS, "training", "export", "serving")),
        ("conformance", (*FRAMEWORKS, "onnxruntime", "training", "export", "serving", "loadtest")),
    ],
)
def test_a_stage_loads_no_other_stage_and_not_their_frameworks(stage, forbidden):
    script = f"""
import importlib, pkgutil, sys, {stage}
for module in pkgutil.walk_packages({stage}.__path__, "{stage}."):
    if not module.name.endswith("__main__") and ".graph" not in module.name:
        importlib.import_module(module.name)
loaded = sorted(set({forbidden!r}) & set(sys.modules))
assert not loaded, loaded
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr


def test_every_setting_of_the_gateway_is_documented_with_its_default():
    text = (ROOT / "docs/serving.md").read_text()
    for spec in dataclasses.fields(ServeSettings):
        shown = str(spec.default).removesuffix(".0").replace("None", "none").replace("()", "none")
        assert re.search(rf"^\| `{spec.name}` \| `?{re.escape(shown)}`? \|", text, re.MULTILINE), (
            f"{spec.name} with its default {shown}"
        )


def test_every_command_is_in_the_readme():
    text = (ROOT / "README.md").read_text()
    assert [name for name in COMMANDS if f"| `{name}" not in text] == []


def test_the_lock_files_name_no_registry():
    for path in (ROOT / "requirements").iterdir():
        lines = path.read_text().splitlines()
        assert [line for line in lines if "://" in line or line.startswith("-")] == [], path


def test_every_locked_package_has_a_hash():
    for path in (ROOT / "requirements").iterdir():
        pinned = re.findall(r"^\S+==.*?(?=^\S|\Z)", path.read_text(), re.MULTILINE | re.DOTALL)
        assert pinned
        assert [text.split()[0] for text in pinned if "--hash=sha256:" not in text] == []


def test_no_lock_file_has_two_builds_of_one_package():
    for path in (ROOT / "requirements").iterdir():
        for package in ("onnxruntime", "tensorflow"):
            builds = re.findall(rf"^{package}(?:-cpu|-gpu)?==", path.read_text(), re.MULTILINE)
            assert len(builds) <= 1, path  # they would overwrite each other


def test_serving_alone_is_locked_without_a_training_framework():
    for name in ("serve-cpu", "serve-gpu", "loadtest", "conformance"):
        text = (ROOT / f"requirements/{name}.txt").read_text()
        assert not re.search(r"^(tensorflow|keras|tf2onnx)", text, re.MULTILINE), name
