"""`ridgeline loadtest`, from its flags to its JSON, against the fake server."""

import json
import subprocess
import sys
from dataclasses import asdict

import numpy as np
import pytest

from loadtest import command, environment
from loadtest.settings import LoadtestSettings
from ridgeline.__main__ import main
from ridgeline.cost import ModelCost
from ridgeline.errors import InvalidInput
from ridgeline.hardware import Hardware
from ridgeline.model import ModelSpec, TensorSpec, config_of
from ridgeline.repository import ModelCard, publish

SHORT = ["--duration", "0.2", "--warmup", "0.05", "--min-requests", "5"]


def loadtest(*words):
    return main(["loadtest", *map(str, words)])


def json_of(capsys, *words):
    """The JSON that the command prints, which must be all that it prints on standard output."""
    assert loadtest(*words, "--json") == 0
    return json.loads(capsys.readouterr().out)


def test_a_run_tells_latency_throughput_floor_and_verdict(server, capsys):
    result = json_of(capsys, *server.target(), *SHORT, "--seed", 3)
    (run,) = result["runs"]
    assert run["verdict"] == "VALID", run["reasons"]
    assert run["server"] == {"name": "fake", "version": "1.5"}
    assert run["model"]["name"] == "identity"
    assert run["model"]["version"] == "10"
    assert run["model"]["cost"]["flops_per_sample"] == 833_040
    assert run["model"]["cost_source"] == "model configuration"
    assert run["protocol"] == server.protocol
    assert run["settings"]["load"] == {"kind": "closed", "concurrency": 1}
    assert run["settings"]["seed"] == 3
    # 833,040 FLOPs at 1 GFLOP/s; 246,856 bytes at 4 GB/s would be 0.06 ms.
    assert run["floor_ms"] == pytest.approx(0.83304)
    p50, p99 = run["latency_ms"]["p50"], run["latency_ms"]["p99"]
    assert p50["low"] <= p50["value"] <= p50["high"]
    assert run["ratio_to_floor"]["p50"] == pytest.approx(p50["value"] / 0.83304)
    assert run["ratio_to_floor"]["p99"] == pytest.approx(p99["value"] / 0.83304)
    assert list(run["latency_ms_by_percentile"]) == ["50", "90", "95", "99", "99.9", "max"]
    answered = run["requests"]["answered"]
    assert answered == run["requests"]["due"] > 5
    rate = answered / run["requests"]["elapsed_s"]
    assert run["throughput"] == pytest.approx({"requests_per_s": rate, "samples_per_s": rate})
    assert run["achieved_flops_per_s"] == pytest.approx(833_040 * rate)
    assert run["share_of_peak"] == pytest.approx(833_040 * rate / 1e9)
    assert run["client"]["cpu_s_per_request"] > 0
    assert run["failures"] == {}
    assert run["environment"]["packages"]["numpy"] == np.__version__
    assert Hardware.from_table(result["hardware"]).peak_flops_per_s == 1e9
    assert server.behaviour.answers > answered  # the check and the warm-up are not counted


def test_several_batch_sizes_are_one_run_each(server, capsys, tmp_path):
    raw, output = tmp_path / "new" / "raw.npz", tmp_path / "out" / "result.json"
    result = json_of(
        capsys, *server.target(), *SHORT, "--batch-size", 1, 4, "--raw", raw, "--output", output
    )
    assert [run["batch_size"] for run in result["runs"]] == [1, 4]
    small, large = result["runs"]
    assert large["floor_ms"] == pytest.approx(4 * small["floor_ms"])
    assert large["throughput"]["samples_per_s"] == pytest.approx(
        4 * large["throughput"]["requests_per_s"]
    )
    assert json.loads(output.read_text()) == result
    with np.load(raw) as times:
        latencies_ns = times["batch4_done_ns"] - times["batch4_intended_ns"]
        assert len(times["batch1_sent_ns"]) == small["requests"]["answered"]
    assert latencies_ns.max() / 1e6 == pytest.approx(large["latency_ms_by_percentile"]["max"])


def test_the_open_loop_sends_the_arrivals_of_its_schedule(server, capsys):
    words = [*server.target(), "--rate", 100, "--duration", 0.5, "--warmup", 0, "--seed", 5]
    (run,) = json_of(capsys, *words)["runs"]
    assert run["settings"]["load"] == {"kind": "open", "arrivals": "Poisson", "rate_per_s": 100}
    from loadtest.schedule import OpenLoop, poisson_arrivals_ns

    arrivals_ns = poisson_arrivals_ns(OpenLoop(100), duration_s=0.5, seed=5)
    assert run["requests"]["due"] == len(arrivals_ns)


@pytest.mark.parametrize(
    ("words", "scenario", "load"),
    [
        (["single-stream"], "single-stream", {"kind": "closed", "concurrency": 1}),
        (["multi-stream", "--batch-size", 4], "multi-stream", {"kind": "closed", "concurrency": 1}),
        (["offline"], "offline", {"kind": "closed", "concurrency": 64}),
        (["server", "--rate", 50], "server", {"kind": "open", "rate_per_s": 50}),
        (["ramp", "--rate", 20, "--to-rate", 80], "ramp", {"kind": "ramp", "to_per_s": 80}),
        (["bursts", "--rate", 20, "--to-rate", 200], "bursts", {"burst_per_s": 200}),
    ],
)
def test_a_scenario_is_a_load(grpc_server, capsys, words, scenario, load):
    (run,) = json_of(capsys, *grpc_server.target(), *SHORT, "--scenario", *words)["runs"]
    assert run["scenario"] == scenario
    assert run["settings"]["load"] | load == run["settings"]["load"]
    assert run["answers"]["wrong"] == 0
    assert run["answers"]["compared"] == run["requests"]["answered"] > 0


def test_a_trace_is_replayed_with_its_times_and_rows(server, capsys, tmp_path):
    trace = tmp_path / "trace.jsonl"
    lines = [{"time_s": 7 + 0.01 * number, "rows": 1 + number % 3} for number in range(12)]
    trace.write_text("\n".join(map(json.dumps, lines)))
    raw = tmp_path / "raw.npz"
    words = ["--scenario", "replay", "--trace", trace, "--warmup", 0, "--raw", raw]
    (run,) = json_of(capsys, *server.target(), *words)["runs"]
    assert run["scenario"] == "replay"
    assert run["requests"]["answered"] == 12
    with np.load(raw) as times:
        assert times["batch1_rows"].tolist() == [1, 2, 3] * 4
        assert np.diff(times["batch1_intended_ns"]).tolist() == [10_000_000] * 11
    seconds = run["requests"]["elapsed_s"]
    assert run["throughput"]["samples_per_s"] == pytest.approx(24 / seconds)


def test_a_wrong_answer_under_load_makes_the_run_invalid(server, capsys):
    server.behaviour.wrong_after = 12
    (run,) = json_of(capsys, *server.target(), *SHORT)["runs"]
    assert run["verdict"] == "INVALID"
    assert run["answers"]["wrong"] > 0
    assert any("answers under load were wrong" in reason for reason in run["reasons"])
    assert "output 'y': up to 1 away" in run["answers"]["first_wrong"]


def test_no_rate_is_a_capacity_where_answers_are_wrong(grpc_server, capsys):
    grpc_server.behaviour.wrong_after = 20
    found = json_of(capsys, *grpc_server.target(), *SHORT, "--capacity-p99", 10_000)["capacity"]
    assert found["held_per_s"] is None
    answered = [probe for probe in found["probes"] if probe["answered_per_s"]]
    assert answered
    assert all(probe["wrong"] for probe in answered)


def test_accuracy_is_told_where_the_samples_have_labels(server, capsys, samples):
    (run,) = json_of(capsys, *server.target(), *SHORT, "--data", samples)["runs"]
    assert run["answers"]["accuracy_alone"] == pytest.approx(17 / 20)  # three labels are wrong
    assert 0.7 < run["answers"]["accuracy"] < 0.9


def test_a_folder_of_samples_is_sent_and_held_to_the_answers_beside_it(server, capsys, tmp_path):
    for number in range(12):
        x = np.full((4,), number, np.float32)
        np.save(tmp_path / f"{number:02}.npy", x)
        (tmp_path / f"{number:02}.npy.json").write_text(json.dumps({"y": x.tolist()}))
    words = [*server.target(), *SHORT, "--data", tmp_path]
    assert loadtest(*words, "--json") == 0
    out, err = capsys.readouterr()
    (run,) = json.loads(out)["runs"]
    assert "sending 12 of 12 samples in turn" in err
    assert run["answers"]["compared"] > 0
    assert run["answers"]["wrong"] == 0
    (tmp_path / "03.npy.json").write_text('{"y": [3, 3, 3, 4]}')
    (run,) = json_of(capsys, *words)["runs"]
    assert run["verdict"] == "INVALID"
    assert 0 < run["answers"]["wrong"] < run["answers"]["compared"]
    assert run["answers"]["first_wrong"] == "output 'y': up to 1 away from what is right"


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--scenario", "server"], "server needs --rate"),
        (["--scenario", "ramp", "--rate", "5"], "ramp needs --to-rate"),
        (["--scenario", "replay"], "replay needs --trace"),
        (["--scenario", "single-stream", "--concurrency", "2"], "one request at a time"),
        (["--scenario", "single-stream", "--batch-size", "2"], "multi-stream sends several"),
    ],
)
def test_a_scenario_says_what_it_needs(capsys, words, text):
    assert loadtest(*TARGET, *words) == 2
    assert text in capsys.readouterr().err


def test_samples_of_a_file_are_sent(server, capsys, samples):
    (run,) = json_of(capsys, *server.target(), *SHORT, "--data", samples)["runs"]
    assert run["settings"]["data"] == str(samples)


def test_failures_make_a_run_invalid_but_are_no_failure_of_the_command(server, capsys):
    server.behaviour.fail_after = 12
    (run,) = json_of(capsys, *server.target(), "--duration", "0.5", "--warmup", "0")["runs"]
    assert run["verdict"] == "INVALID"
    status = {"grpc": "UNAVAILABLE", "http": "HTTP 503"}[server.protocol]
    assert run["failures"][status] > 0
    assert run["requests"]["answered"] == 4  # before, 8 different requests were asked alone
    assert any("failed" in reason for reason in run["reasons"])


def test_the_table_shows_what_was_measured_and_why_it_is_invalid(grpc_server, capsys):
    words = [*grpc_server.target(), "--duration", "0.1", "--warmup", "0", "--batch-size", "1", "2"]
    assert loadtest(*words, "--min-requests", "1000000") == 0
    out, err = capsys.readouterr()
    assert "identity version 10 on fake 1.5, grpc," in out
    assert "p50/floor" in out
    assert "INVALID, batch size 2: only " in out
    assert "batch size 2: 0 s of warm-up" in err  # progress is no result


@pytest.mark.parametrize(
    ("after", "text"),
    [(0, "does not answer a batch of 1"), (8, "no request of the run was answered")],
)
def test_a_server_that_answers_nothing_fails_the_command(server, capsys, after, text):
    server.behaviour.fail_after = after
    assert loadtest(*server.target(), "--duration", "0.1", "--warmup", "0") == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert text in err
    assert {"grpc": "UNAVAILABLE", "http": "HTTP 503"}[server.protocol] in err


def test_a_silent_warm_up_fails_the_command(grpc_server, capsys):
    grpc_server.behaviour.fail_after = 8
    assert loadtest(*grpc_server.target(), "--duration", "0.1", "--warmup", "0.1") == 1
    assert "no request of the warm-up was answered" in capsys.readouterr().err


def test_an_answer_without_the_outputs_promised_fails_the_command(grpc_server, capsys):
    grpc_server.behaviour.malformed_inference = True
    assert loadtest(*grpc_server.target()) == 1
    assert "lacks output 'y'" in capsys.readouterr().err


def test_a_schedule_without_requests_fails_the_command(grpc_server, capsys):
    words = ["--rate", "0.001", "--duration", "0.01", "--warmup", "0.01"]
    assert loadtest(*grpc_server.target(), *words) == 1
    assert "no request was due" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--model", "other"], "unknown model"),
        (["--batch-size", "9"], "at most 8 rows, received a batch size of 9"),
        (["--data", "none.npz"], "there is no file none.npz"),
        (["--hardware", "none.json"], "cannot read none.json"),
    ],
)
def test_what_cannot_be_measured_fails_with_its_reason(server, capsys, words, text):
    assert loadtest(*server.target(), *words) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert text in err


TARGET = ["--url", "127.0.0.1:1", "--protocol", "grpc", "--model", "m"]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--rate", "10", "--concurrency", "2"], "not allowed with argument"),
        (["--rate", "0"], "rate must be a positive number"),
        (["--concurrency", "0"], "concurrency must be at least 1"),
        (["--duration", "0"], "duration_s must be positive"),
        (["--warmup", "-1"], "warmup_s must not be negative"),
        (["--batch-size", "0"], "batch sizes must be positive"),
        (["--batch-size", "2", "2"], "must be positive and differ"),
        (["--seed", "-1"], "seed must not be negative"),
        (["--url", "http://x:1"], "must be HOST:PORT"),
        (["--protocol", "smtp"], "invalid choice"),
        (["--batch-size", "two"], "invalid int value"),
    ],
)
def test_wrong_usage_exits_with_two(capsys, words, text):
    try:
        code = loadtest(*TARGET, *words)
    except SystemExit as exit:
        code = exit.code
    assert code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert text in err


def test_a_missing_target_is_wrong_usage(capsys):
    with pytest.raises(SystemExit) as caught:
        loadtest()
    assert caught.value.code == 2
    assert "--url, --protocol, --model" in capsys.readouterr().err


def test_a_dead_server_fails_the_command(capsys):
    assert loadtest(*TARGET) == 1
    assert "127.0.0.1:1 over gRPC: UNAVAILABLE" in capsys.readouterr().err


def test_without_a_cost_the_floor_is_unknown_and_said_so(server, capsys):
    server.behaviour.tells_config = False
    (run,) = json_of(capsys, *server.target(), *SHORT)["runs"]
    assert (run["floor_ms"], run["ratio_to_floor"], run["model"]["cost"]) == (None, None, None)
    assert "does not tell what the model costs" in run["floor_note"]


def test_the_cost_may_come_from_the_model_repository(server, capsys, tmp_path):
    server.behaviour.tells_cost = False
    tensor = TensorSpec("x", "FP32", (4,))
    card = ModelCard(cost=ModelCost(1_000_000, 10, 40, 16, 16))
    for _ in range(10):  # the fake server names version 10 as its newest
        publish(
            {"model.onnx": b"graph"},
            config=config_of(ModelSpec("identity", 8, (tensor,), (tensor,))),
            card=card,
            labels={},
            root=tmp_path / "repository",
        )
    words = ["--repository", tmp_path / "repository"]
    (run,) = json_of(capsys, *server.target(), *SHORT, *words)["runs"]
    assert run["floor_ms"] == pytest.approx(2.0)
    assert run["model"]["cost_source"] == "model repository"


def test_the_machine_may_be_described_by_a_file(grpc_server, capsys, tmp_path, machine):
    path = tmp_path / "other.json"
    path.write_text(json.dumps({**asdict(machine), "peak_flops_per_s": 2e9}))
    (run,) = json_of(capsys, *grpc_server.target(), *SHORT, "--hardware", path)["runs"]
    assert run["floor_ms"] == pytest.approx(0.83304 / 2)


def test_settings_refuse_a_protocol_they_do_not_know():
    with pytest.raises(InvalidInput, match="must be grpc or http, received 'smtp'"):
        LoadtestSettings(url="x:1", protocol="smtp", model="m")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "?"),
        (0.00443, "0.00443"),
        (0.9, "0.900"),
        (12.345, "12.3"),
        (210.4, "210"),
        (12345.6, "12,346"),
    ],
)
def test_figures_have_three_digits_and_no_powers_of_ten(value, text):
    assert command._figure(value) == text


def test_outside_a_checkout_there_is_no_commit(tmp_path):
    assert environment.commit(tmp_path) is None


def test_without_git_there_is_no_commit(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert environment.commit(tmp_path) is None


def test_a_commit_with_changes_is_marked(tmp_path):
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@example.org"]
    (tmp_path / "file").write_text("one")
    for words in (["init", "--quiet"], ["add", "file"], ["commit", "--quiet", "-m", "one"]):
        subprocess.run([*git, *words], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    assert environment.commit(tmp_path) == head.stdout.strip()
    (tmp_path / "file").write_text("two")
    assert environment.commit(tmp_path) == head.stdout.strip() + "-dirty"


def test_the_stage_loads_no_framework_and_its_commands_load_nothing_heavy():
    program = (
        "import sys, loadtest.command, loadtest.evaluate, loadtest.report_command\n"
        "heavy = {'scipy', 'grpc', 'aiohttp', 'matplotlib', 'numpy', 'gevent'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "import loadtest.measurement, loadtest.evaluation, loadtest.report\n"
        "import loadtest.grpc_connection, loadtest.http_connection\n"
        "wrong = {'tensorflow', 'keras', 'onnxruntime', 'onnx', 'tf2onnx', 'serving', 'training'}\n"
        "assert not wrong & set(sys.modules), wrong & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
