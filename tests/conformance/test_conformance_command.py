"""The command `ridgeline conformance`."""

import json
import socket

import pytest

from conformance import repository
from conformance.command import failed, show
from ridgeline.__main__ import main
from ridgeline.errors import InvalidInput


def _run(capsys, *words):
    code = main(["conformance", *map(str, words)])
    return code, capsys.readouterr()


def test_it_prints_a_table_and_keeps_the_result(served, capsys, tmp_path):
    kept = tmp_path / "deep" / "result.json"
    code, printed = _run(
        capsys, "--grpc", served.grpc_url, "--http", served.http_url, "--filter", "health/live",
        "--output", kept,
    )  # fmt: skip

    assert code == 0
    assert "http/health/live " in printed.out
    assert "5 cases: 5 pass, 0 fail, 0 not run" in printed.out
    assert json.loads(kept.read_text())["counts"] == {"pass": 5, "fail": 0, "not run": 0}


def test_json_holds_every_answer(served, capsys):
    code, printed = _run(
        capsys, "--json", "--grpc", served.grpc_url, "--http", served.http_url,
        "--filter", "grpc/infer/one-output",
    )  # fmt: skip

    [outcome] = json.loads(printed.out)["outcomes"]
    assert code == 0
    assert outcome["answer"]["status"] == "OK"
    assert outcome["answer"]["body"]["outputs"][0]["name"] == "OUTPUT1"


def test_cases_are_listed_without_a_server(capsys):
    code, printed = _run(capsys, "--list", "--filter", "bf16")

    assert code == 0
    assert "grpc/infer/raw/identity/bf16" in printed.out.splitlines()


def test_the_repository_is_written_into_an_empty_folder_only(capsys, tmp_path):
    code, printed = _run(capsys, "--write-repository", tmp_path / "models")

    assert code == 0
    assert "simple" in printed.out.splitlines()
    assert (tmp_path / "models/simple/1/model.onnx").is_file()
    assert (tmp_path / "models/sum_of_sums/1").is_dir()
    with pytest.raises(InvalidInput, match="expected an empty folder"):
        repository.write(tmp_path / "models")


def test_both_addresses_are_needed(capsys):
    code, printed = _run(capsys, "--grpc", "127.0.0.1:1")

    assert code == 2
    assert "must both be given" in printed.err


def test_a_server_that_is_not_there_ends_the_command(capsys):
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{nobody.getsockname()[1]}"
        code, printed = _run(capsys, "--grpc", address, "--http", address, "--timeout", "1")

    assert code == 1
    assert "no server of the protocol over gRPC" in printed.err


def test_a_failed_case_is_told_by_the_exit_code(capsys):
    row = {"case": "http/x", "verdict": "fail", "reason": "expected [1]", "answer": None}
    result = {"counts": {"pass": 0, "fail": 1}, "outcomes": [row]}

    show(result)

    assert failed(result)
    assert "expected [1]" in capsys.readouterr().out
    assert not failed({"cases": []})
