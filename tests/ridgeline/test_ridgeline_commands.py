"""The command line: exit codes, JSON, and which packages a command loads."""

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ridgeline import __main__, __version__, models
from ridgeline.__main__ import COMMANDS
from ridgeline.cost import ModelCost
from ridgeline.model import ModelSpec, TensorSpec, config_of
from ridgeline.repository import ModelCard, publish

ROOT = Path(__file__).parents[2]


def ridgeline(*words, **options):
    command = [sys.executable, "-m", "ridgeline", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


@pytest.fixture
def repository(tmp_path):
    root = tmp_path / "repository"
    tensor, classes = TensorSpec("image", "FP32", (32, 32, 1)), TensorSpec("p", "FP32", (10,))
    accuracy = {"accuracy": {"exported": {"accuracy": 0.9912, "correct": 9912, "samples": 10000}}}
    publish(
        {"model.onnx": b"graph"},
        config=config_of(ModelSpec("digits", 8, (tensor,), (classes,))),
        card=ModelCard(
            cost=ModelCost(416_520, 61_706, 246_824, 4096, 40),
            parity={"max_relative_error": 3e-7},
            training=accuracy,
        ),
        labels={},
        root=root,
    )
    return root


@pytest.mark.parametrize(
    ("training", "told"),
    [
        ({"measures": {"mean_iou": 0.8512}}, "mean IoU 85.12 %"),
        ({"measures": {"word_error": 0.006, "exact": None}}, "word error 0.60 %"),
        ({"untrained": True}, "untrained"),
    ],
)
def test_models_tells_what_the_test_set_showed_of_any_task(training, told, tmp_path, capsys):
    tensor = TensorSpec("x", "FP32", (2,))
    publish(
        {"model.onnx": b"graph"},
        config=config_of(ModelSpec("other", 8, (tensor,), (TensorSpec("y", "FP32", (2,)),))),
        card=ModelCard(training=training),
        labels={},
        root=tmp_path / "repository",
    )
    assert __main__.main(["models", "--repository", str(tmp_path / "repository")]) == 0
    assert told in capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_helps_without_loading_a_framework(command):
    script = (
        "import sys; from ridgeline.__main__ import main\n"
        f"try: main([{command!r}, '--help'])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "heavy = {'tensorflow', 'keras', 'onnxruntime', 'tf2onnx', 'scipy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert f"usage: ridgeline {command}" in done.stdout
    assert "--json" in done.stdout


def test_the_help_lists_every_command_and_the_exit_codes():
    done = ridgeline("--help")
    assert done.returncode == 0
    assert all(re.search(rf"^    {command}\s", done.stdout, re.MULTILINE) for command in COMMANDS)
    assert "0 done, 1 failed, 2" in done.stdout


def test_the_version_is_told():
    assert ridgeline("--version").stdout == f"ridgeline {__version__}\n"


@pytest.mark.parametrize(
    "words", [(), ("fly",), ("models", "--wings", "2"), ("serve", "--http-port", "high")]
)
def test_wrong_usage_exits_with_2(words):
    done = ridgeline(*words)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""


def test_a_failure_exits_with_1_and_one_line(tmp_path):
    done = ridgeline("models", "--repository", tmp_path / "none")
    assert done.returncode == 1
    assert done.stderr == (
        f"ridgeline models: there is no model repository at {tmp_path / 'none'}\n"
    )


def test_a_folder_that_cannot_be_written_is_told_in_one_line(tmp_path):
    (tmp_path / "summary.json").write_text("{}")
    done = ridgeline("models", "--repository", tmp_path / ("x" * 300))
    assert done.returncode == 1
    assert done.stderr.startswith("ridgeline models: ")
    assert "File name too long" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_reader_that_stops_early_sees_no_traceback(repository):
    words = [sys.executable, "-m", "ridgeline", "models", "--repository", str(repository)]
    process = subprocess.Popen(
        [*words, "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    process.stdout.close()  # before it writes: that takes as long as its start
    errors = process.stderr.read()
    process.stderr.close()
    assert process.wait() == 1
    assert errors == ""


def test_models_as_json_tell_all_that_is_known(repository):
    done = ridgeline("models", "--repository", repository, "--json")
    (model,) = json.loads(done.stdout)["models"]
    assert model["name"] == "digits"
    assert model["versions"] == [1]
    assert model["inputs"] == [{"name": "image", "datatype": "FP32", "shape": [-1, 32, 32, 1]}]
    assert model["card"]["cost"]["flops_per_sample"] == 833_040
    assert model["card"]["sha256"].keys() == {"model.onnx"}
    assert model["problem"] is None


def test_models_for_people_fit_into_80_columns(repository):
    done = ridgeline("models", "--repository", repository)
    for word in ("digits", "image FP32[-1,32,32,1]", "833,040 FLOPs", "61,706", "3e-07", "99.12 %"):
        assert word in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_broken_models_are_listed_with_their_reason_beside_the_others(repository):
    (repository / "dropped" / "1").mkdir(parents=True)
    (repository / "dropped" / "1" / "model.onnx").write_bytes(b"graph")
    (repository / "half" / "1").mkdir(parents=True)
    (repository / "empty").mkdir()
    (repository / "odd" / "1").mkdir(parents=True)
    (repository / "odd" / "config.pbtxt").write_text("nonsense")
    (repository / "digits" / "1" / "model.onnx").write_bytes(b"changed")
    done = ridgeline("models", "--repository", repository)
    assert done.returncode == 0
    assert "digits: " in done.stdout
    assert "has the SHA-256" in " ".join(done.stdout.split())
    assert "empty: no version; expected" in done.stdout
    assert f"half: {repository / 'half' / '1' / 'model.onnx'} is missing" in done.stdout
    assert "odd: " in done.stdout
    assert "from the graph" in done.stdout


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("training", None),
        ("training", {"accuracy": 3}),
        ("parity", [1]),
        ("parity", {"max_relative_error": "small"}),
        ("parity", {"max_relative_error": float("nan")}),
        ("sha256", None),
        ("cost", {"parameters": 3}),
    ],
)
@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_a_strange_model_card_stops_no_list(repository, capsys, flags, key, value):
    card = repository / "digits" / "1" / "model_card.json"
    card.write_text(json.dumps({**json.loads(card.read_text()), key: value}))
    assert __main__.main(["models", "--repository", str(repository), *flags]) == 0
    assert "digits" in capsys.readouterr().out


def test_names_are_shown_as_they_are_written(repository, capsys):
    """Brackets are markup to the library that draws the table."""
    config = repository / "digits" / "config.pbtxt"
    config.write_text(config.read_text().replace('"image"', '"image[/b]"'))
    (repository / "tiny[bold]").mkdir()
    assert __main__.main(["models", "--repository", str(repository)]) == 0
    shown = capsys.readouterr().out
    assert "image[/b] FP32[-1,32,32,1]" in shown
    assert "tiny[bold]" in shown


def test_the_files_of_other_backends_are_left_to_them(repository):
    (repository / "plan" / "1").mkdir(parents=True)
    (repository / "plan" / "1" / "model.plan").write_bytes(b"engine")
    (repository / "plan" / "config.pbtxt").write_text('backend: "tensorrt"')
    found = models.run(argparse.Namespace(repository=repository))["models"]
    assert [model["problem"] for model in found] == [None, None]


def test_an_empty_repository_says_how_to_fill_it(tmp_path, capsys):
    models.show({"repository": str(tmp_path), "models": []})
    assert "holds no model; `ridgeline export` publishes one" in capsys.readouterr().out


def test_a_module_that_is_no_command_is_a_fault_of_ours(monkeypatch):
    monkeypatch.setitem(__main__.COMMANDS, "models", ("ridgeline.errors", "not a command"))
    with pytest.raises(TypeError, match="does not define add_arguments, run, show"):
        __main__.main(["models"])


def test_an_interrupted_command_exits_with_1(monkeypatch, capsys, tmp_path):
    def interrupted(_arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(models, "run", interrupted)
    assert __main__.main(["models", "--repository", str(tmp_path)]) == 1
    assert capsys.readouterr().err == "ridgeline models: interrupted\n"


def test_a_command_ends_with_its_parent_where_asked():
    """A parent that is killed with a command running leaves no command behind."""
    child = "import os, sys; from ridgeline.__main__ import _stop_with_parent, _raise_interrupt;"
    child += "import signal; _stop_with_parent(); print(os.getpid(), flush=True); signal.pause()"
    parent = (
        "import os, signal, subprocess, sys;"
        f"process = subprocess.Popen([sys.executable, '-c', {child!r}], stdout=subprocess.PIPE);"
        "print(int(process.stdout.readline()), flush=True);"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run(
        [sys.executable, "-c", parent],
        capture_output=True,
        text=True,
        check=False,
        env={"RIDGELINE_STOP_WITH_PARENT": "1", "PATH": "", "PYTHONPATH": str(ROOT)},
    )
    pid = int(done.stdout)
    for _ in range(2_000_000):  # the kernel signals at once; reaping it is up to init
        if not Path(f"/proc/{pid}").exists() or " Z " in Path(f"/proc/{pid}/stat").read_text():
            return
    pytest.fail(f"process {pid} is still running")
