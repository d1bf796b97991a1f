"""The demo, as a user runs it: the whole life of a model, and what remains when it is killed."""

import functools
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ridgeline.children import gateway
from ridgeline.repository import check_digests, read_card, scan

ROOT = Path(__file__).parents[2]
RECIPE = """
description = "a LeNet-5 that has seen little"
model = "lenet5"
dataset = "mnist"
epochs = 1
batch_size = 128
seed = 1
validation_samples = 1000
training_samples = 5000
required_accuracy = 0.5

[optimizer]
learning_rate = 0.05
"""


def demo_words(folder):
    (folder / "recipe.toml").write_text(RECIPE)
    words = [sys.executable, "-m", "ridgeline", "demo", "--recipe", "recipe.toml"]
    return [*words, "--duration", "0.3", "--json"]


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """The user's, with a cache of hardware figures that the tests share."""
    return {**os.environ, "XDG_CACHE_HOME": str(tmp_path_factory.mktemp("cache"))}


@pytest.fixture(scope="module")
def demo(tmp_path_factory, environment):
    """The folder of a demo that has run, and its summary."""
    folder = tmp_path_factory.mktemp("demo")
    words = demo_words(folder)
    done = subprocess.run(
        words, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout)


def descendants(marker):
    """Processes whose environment holds the marker, but for zombies."""
    found = []
    for path in Path("/proc").iterdir():
        try:
            if path.name.isdecimal() and marker in (path / "environ").read_bytes():
                found.append(int(path.name))
        except OSError:  # it has ended, or is not ours
            continue
    return found


@pytest.mark.timeout(300)
def test_the_demo_answers_as_trained_on_every_way(demo):
    _, summary = demo
    correct = summary["training"]["test_correct"]
    assert summary["training"]["test_samples"] == 10_000
    assert summary["export"]["accuracy"]["exported"]["correct"] == correct
    assert [summary["served"][protocol]["correct"] for protocol in ("grpc", "http")] == [
        correct
    ] * 2


def test_no_latency_of_the_demo_lies_below_its_floor(demo):
    _, summary = demo
    for run in (*summary["loadtest"].values(), *summary["loaded"].values(), *summary["sweep"]):
        assert run["latency_ms"]["p50"]["value"] > run["floor_ms"] > 0


def test_the_demo_writes_a_summary_and_a_page_of_its_own(demo):
    folder, summary = demo
    written = json.loads((folder / "reports/demo/summary.json").read_text())
    assert written["served"] == summary["served"]
    page = (folder / "reports/demo/index.html").read_text()
    assert page.count("<svg") + page.count("data:image/") >= 3
    assert not re.search(r"""(src|href)=["']?https?://""", page)


def test_the_client_in_the_readme_runs_as_printed(demo):
    folder, _ = demo
    readme = (ROOT / "README.md").read_text()
    snippet = re.search(r"<!-- client:begin -->\n```python\n(.*?)```", readme, re.DOTALL)[1]
    assert len(snippet.splitlines()) <= 10
    with gateway(folder / "model_repository") as ready:
        # All that differs from `make serve`: a free port instead of 8001.
        script = snippet.replace("127.0.0.1:8001", f"127.0.0.1:{ready['grpc_port']}")
        done = subprocess.run(
            [sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, check=False
        )
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"the network sees a \d, the label says 7\n", done.stdout)


def test_the_bench_measures_the_gateway_beside_bare_onnx_runtime(demo, environment):
    folder, _ = demo
    words = [
        "-m",
        "loadtest.bench.closed_loop",
        "--models",
        "lenet5",
        "--rounds",
        "1",
        "--duration",
        "0.3",
    ]
    done = subprocess.run(
        [sys.executable, *words, "--repository", str(folder / "model_repository")],
        cwd=folder,
        env={**environment, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    medians = json.loads((folder / "reports/bench.json").read_text())["models"]["lenet5"]["medians"]
    assert 0 < medians["ridgeline"]["share_of_bare"] < 1
    assert medians["ridgeline"]["echo_cpu_us"] > 0
    assert medians["ridgeline"]["server_cpu_us"] > 0
    assert "share of bare ONNX Runtime" in done.stdout


def test_a_bench_without_its_model_says_so(demo, tmp_path):
    folder, _ = demo
    words = ["-m", "loadtest.bench.closed_loop", "--models", "none", "--rounds", "1"]
    done = subprocess.run(
        [sys.executable, *words, "--repository", str(folder / "model_repository")],
        cwd=ROOT,
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.endswith("holds no model 'none'\n")


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("at", "number"),
    [
        ("1/6", signal.SIGKILL),
        ("2/6", signal.SIGKILL),
        ("4/6", signal.SIGKILL),
        ("4/6", signal.SIGTERM),
        ("4/6", signal.SIGINT),
    ],
)
def test_a_demo_that_is_killed_leaves_no_process_and_no_half_published_model(
    tmp_path, environment, at, number
):
    marker = f"RIDGELINE_TEST_MARKER={tmp_path}"
    process = subprocess.Popen(
        demo_words(tmp_path),
        cwd=tmp_path,
        env={**environment, "RIDGELINE_TEST_MARKER": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell that runs the tests in the background has them, and all below, ignore it.
        preexec_fn=functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    for line in process.stderr:
        if line.startswith(at):
            break
    process.send_signal(number)
    # The children hold the pipe of standard error: it ends when the last of them does.
    _, rest = process.communicate()
    assert process.returncode in (-number, 1), rest
    assert descendants(marker.encode()) == []
    root = tmp_path / "model_repository"
    for model in scan(root) if root.exists() else []:
        directory = model.version_directory(model.versions[-1])
        check_digests(directory, card=read_card(directory))


@pytest.mark.timeout(120)
def test_a_step_that_fails_stops_the_demo_with_its_message(tmp_path, environment):
    words = demo_words(tmp_path)
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        recipe.read_text().replace("required_accuracy = 0.5", "required_accuracy = 1.0")
    )
    done = subprocess.run(
        words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "ridgeline train: " in done.stderr
    assert "ridgeline demo: step '1/6 train' failed with exit code 1" in done.stderr
    assert not (tmp_path / "model_repository").exists()
