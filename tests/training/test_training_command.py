"""`ridgeline train` as it is typed: real processes, real files, exit codes."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ridgeline.__main__ import main

ROOT = Path(__file__).parents[2]
RECIPE = """
description = "a quick run"
model = "mlp"
dataset = "mnist"
epochs = {epochs}
batch_size = 50
seed = 3
validation_samples = 500
training_samples = 2000
required_accuracy = {required}

[optimizer]
learning_rate = 0.05
"""


def written(folder: Path, *, epochs: int = 1, required: float = 0.5) -> Path:
    path = folder / "quick.toml"
    path.write_text(RECIPE.format(epochs=epochs, required=required), encoding="utf-8")
    return path


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "ridgeline", "train", *map(str, words)]


def test_a_run_prints_clean_json_and_leaves_an_artifact(tmp_path: Path) -> None:
    output = tmp_path / "artifacts"
    words = command(written(tmp_path), "--epochs", 2, "--seed", 9, "--output", output, "--json")
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    folder = output / "mlp"
    assert Path(result.pop("artifact")) == folder
    assert result == json.loads((folder / "training.json").read_text(encoding="utf-8"))
    assert (result["seed"], len(result["curve"]), result["test_samples"]) == (9, 2, 10_000)
    assert result["test_accuracy"] > 0.5
    assert (folder / "saved_model" / "saved_model.pb").is_file()
    assert "oneDNN" not in done.stderr
    assert "InitializeLog" not in done.stderr


def test_sigterm_in_the_middle_of_a_run_leaves_only_its_checkpoint(
    tmp_path: Path,
) -> None:
    output = tmp_path / "artifacts"
    words = command(written(tmp_path, epochs=10_000), "--output", output, "--log-level", "info")
    with subprocess.Popen(words, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        lines = []
        for line in process.stderr:
            lines.append(line)
            if "epoch 2 of 10000" in line:
                process.send_signal(signal.SIGTERM)
        assert process.wait() == 1, "".join(lines)
    assert "ridgeline train: interrupted" in lines[-1]
    assert not (output / "mlp").exists()
    [kept] = output.iterdir()
    assert kept.suffix == ".checkpoint"


def test_a_missed_target_fails_and_says_what_was_required(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = written(tmp_path, required=0.999)
    assert main(["train", str(recipe), "--output", str(tmp_path / "out")]) == 1
    captured = capsys.readouterr()
    assert "on 10,000 test samples, its recipe requires accuracy at least 99.9%" in captured.err
    assert captured.out == ""
    report = json.loads((tmp_path / "out/mlp/training.json").read_text(encoding="utf-8"))
    assert report["reached"] is False


def test_the_summary_for_people_gives_accuracy_size_and_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", str(written(tmp_path)), "--output", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr().out
    assert "on the test set (10,000 samples), required" in shown
    assert "296,586 parameters, 1 epochs" in shown
    assert str(tmp_path / "out" / "mlp") in shown.replace("\n", "")


def test_help_lists_the_shipped_recipes_with_their_targets_and_sizes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["train", "--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert re.search(r"lenet5 .*accuracy at least 99.0%\n +LeNet-5 on MNIST: 62 k", shown)
    assert re.search(r"lstm_language .*excess entropy at most 2.0%\n +LSTM language", shown)


@pytest.mark.parametrize(
    ("words", "code", "complaint"),
    [
        (["lenet6"], 1, "shipped are "),
        (["lenet5", "--epochs", "0"], 2, "--epochs: must be a whole number from 1, received '0'"),
        (["lenet5", "--epochs", "two"], 2, "received 'two'"),
        (["lenet5", "--seed", "-1"], 2, "--seed: must be a whole number from 0 to 4294967295"),
        (["lenet5", "--seed", "4294967296"], 2, "received '4294967296'"),
        ([], 2, "RECIPE|MODEL"),
    ],
)
def test_wrong_words_end_with_their_exit_code_and_a_reason(
    words: list[str], code: int, complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        ended = main(["train", *words])
    except SystemExit as exit_:
        ended = int(exit_.code or 0)
    assert ended == code
    assert complaint in capsys.readouterr().err


def test_the_help_of_train_loads_no_framework() -> None:
    code = (
        "import sys\n"
        "from ridgeline.__main__ import main\n"
        "try:\n    main(['train', '--help'])\n"
        "except SystemExit:\n    pass\n"
        "print(sorted({'tensorflow', 'keras', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_an_environment_that_the_user_has_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    from training import framework

    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    framework.load()
    assert os.environ["TF_ENABLE_ONEDNN_OPTS"] == "0"
