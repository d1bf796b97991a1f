"""`ridgeline evaluate`, through the official clients, against the fake server."""

import json

import numpy as np
import pytest

from ridgeline.__main__ import main


def evaluate(*words):
    return main(["evaluate", *map(str, words)])


@pytest.mark.parametrize("concurrency", [1, 3])
@pytest.mark.parametrize("batch_size", [None, 1, 7, 8])
def test_right_answers_are_counted(server, samples, capsys, concurrency, batch_size):
    words = [*server.target(), "--data", samples, "--concurrency", concurrency, "--json"]
    words += [] if batch_size is None else ["--batch-size", batch_size]
    assert evaluate(*words) == 0
    result = json.loads(capsys.readouterr().out)
    assert result.pop("seconds") > 0
    assert result == {
        "accuracy": 0.85,  # 17 of 20
        "correct": 17,
        "samples": 20,
        "protocol": server.protocol,
        "output": "y",
    }
    # Without a wish, batches are as large as the model takes: 8, hence 3 requests for 20 samples.
    assert server.behaviour.answers == {None: 3, 1: 20, 7: 3, 8: 3}[batch_size]


def test_the_line_for_a_person_goes_to_standard_output_and_the_bar_does_not(
    grpc_server, samples, capsys
):
    assert evaluate(*grpc_server.target(), "--data", samples) == 0
    out, err = capsys.readouterr()
    assert out.startswith("accuracy 85.00 %: 17 of 20 samples right by 'y', over grpc, in ")
    assert len(out.splitlines()) == 1
    assert "classifying over grpc" in err


def test_a_refused_request_fails_the_command(server, samples, capsys):
    server.behaviour.fail_after = 1
    assert evaluate(*server.target(), "--data", samples, "--concurrency", 2) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "were not classified" in err
    assert "the queue is full" in err


def test_an_answer_without_scores_fails_the_command(grpc_server, samples, capsys):
    grpc_server.behaviour.malformed_inference = True
    assert evaluate(*grpc_server.target(), "--data", samples) == 1
    assert "expected 8 rows of scores in 'y', received none" in capsys.readouterr().err


def test_an_answer_that_is_none_of_the_protocol_fails_the_command(http_server, samples, capsys):
    http_server.behaviour.malformed_inference = True
    assert evaluate(*http_server.target(), "--data", samples) == 1
    assert "samples 0 to 7 were not classified" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arrays", "text"),
    [
        ({"x": np.zeros((3, 4), np.float32)}, "holds no 'label'"),
        ({"z": np.zeros((3, 4), np.float32), "label": np.zeros(3, int)}, "inputs of model"),
        ({"x": np.zeros((3, 5), np.float32), "label": np.zeros(3, int)}, r"shape [5]"),
        ({"x": np.zeros((3, 4)), "label": np.zeros(3, int)}, "expected FP32"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(server, tmp_path, capsys, arrays, text):
    path = tmp_path / "data.npz"
    np.savez(path, **arrays)
    assert evaluate(*server.target(), "--data", path) == 1
    assert text in capsys.readouterr().err
    assert server.behaviour.answers == 0


def test_missing_file_and_unknown_model_are_named(server, samples, tmp_path, capsys):
    assert evaluate(*server.target(), "--data", tmp_path / "none.npz") == 1
    assert "none.npz" in capsys.readouterr().err
    assert evaluate(*server.target(model="other"), "--data", samples) == 1
    assert "unknown model" in capsys.readouterr().err


def test_a_batch_beyond_the_model_is_refused(server, samples, capsys):
    assert evaluate(*server.target(), "--data", samples, "--batch-size", 9) == 1
    assert "at most 8 rows" in capsys.readouterr().err


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_an_unreachable_server_fails_the_command(samples, capsys, protocol):
    target = ["--url", "127.0.0.1:1", "--protocol", protocol, "--model", "m"]
    assert evaluate(*target, "--data", samples) == 1
    assert "127.0.0.1:1 over" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", [["--batch-size", "0"], ["--concurrency", "-1"], ["--url", "nowhere"]]
)
def test_wrong_usage_exits_with_two(samples, capsys, words):
    target = ["--url", "127.0.0.1:1", "--protocol", "grpc", "--model", "m"]
    assert evaluate(*target, "--data", samples, *words) == 2
    assert "must be" in capsys.readouterr().err
