"""The overload as a user runs it, over the gateway alone and as briefly as can be."""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from rich.console import Console

from loadtest.bench import overload, overload_runs, overload_show
from ridgeline.errors import StepFailed

ROOT = Path(__file__).parents[2]


def run(*flags):
    words = [sys.executable, "-m", "loadtest.bench.overload", *flags]
    return subprocess.run(words, capture_output=True, text=True, cwd=ROOT, timeout=110, check=False)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    output = tmp_path_factory.mktemp("overload") / "reports" / "overload.json"
    flags = ("--models=lenet5", "--servers=ridgeline", "--rounds=1", "--duration=0.3")
    return run(*flags, f"--output={output}"), output


def test_it_measures_and_writes_figures_and_a_plot(done):
    process, output = done
    assert process.returncode == 0, process.stderr
    assert "ridgeline" in process.stdout
    assert "on time / capacity" in process.stdout
    found = json.loads(output.read_text())["models"]["lenet5"]["ridgeline"]
    figures = found["medians"]
    assert figures["capacity_per_s"] > 0
    assert figures["echo_cpu_us"] > 0
    assert list(figures["rates"]) == ["1", "1.5", "2", "3"]
    assert set(figures["mixed"]["classes"]) == {"20", "100", "500"}
    assert len(found["rounds"][0]["capacity"]) == 6  # before the first load, and after each
    for rate in found["rounds"][0]["rates"].values():
        assert rate["reference_per_s"] > 0
        ends = (rate["answered"], *rate["refused"].values(), *rate["failed"].values())
        assert sum(ends) == rate["requests"] > 0
    svg = ElementTree.fromstring(output.with_suffix(".svg").read_text())
    assert svg.tag.endswith("svg")


def test_a_plot_has_a_line_for_each_server_and_a_plot_for_each_model(done):
    _, output = done
    result = json.loads(output.read_text())
    (servers,) = result["models"].values()
    servers |= {"other": servers["ridgeline"]}
    result["models"] = {"one": servers, "two": servers}
    both = overload_show.on_time_plot(result)
    result["models"] = {"one": servers}
    assert len(both) > len(overload_show.on_time_plot(result))
    table = overload_show.table(servers, model="one", settings=result["settings"])
    assert len(table.columns) == 3
    Console().print(table)


def _over_model(monkeypatch, measure, *servers):
    """Rounds over servers that need not run."""
    monkeypatch.setattr(overload, "_bench", lambda name, **_: contextlib.nullcontext(name))
    monkeypatch.setattr(overload, "measure", measure)
    arguments = argparse.Namespace(servers=servers, rounds=2, duration=1.0, client_core=None)
    return overload._over_model("lenet5", arguments=arguments, repository=Path())


def test_a_server_that_dies_of_a_round_leaves_the_others_their_figures(done, monkeypatch):
    _, output = done
    raw = json.loads(output.read_text())["models"]["lenet5"]["ridgeline"]["rounds"][0]

    def measure(name, *, seed, **_):
        if name == "mosec" or (name == "triton" and seed == 1):
            raise StepFailed(f"{name} has gone")
        return raw

    found = _over_model(monkeypatch, measure, "ridgeline", "triton", "mosec")

    assert {name: len(server["rounds"]) for name, server in found.items()} == {
        "ridgeline": 2,
        "triton": 1,
    }
    assert found["triton"]["invalid"][0] == "round 1: triton has gone"
    assert found["ridgeline"]["medians"] == found["triton"]["medians"]
    with pytest.raises(StepFailed, match="no server lived through a round"):
        _over_model(monkeypatch, measure, "mosec")


def test_a_server_that_dies_of_being_tuned_leaves_the_others_their_figures(done, monkeypatch):
    _, output = done
    raw = json.loads(output.read_text())["models"]["lenet5"]["ridgeline"]["rounds"][0]

    def capacity_per_s(_bench):
        raise StepFailed("mosec has gone")

    monkeypatch.setattr(overload, "brief_capacity_per_s", capacity_per_s)

    found = _over_model(monkeypatch, lambda *_, **__: raw, "ridgeline", "mosec-tuned")

    assert list(found) == ["ridgeline"]


def test_an_unknown_server_or_model_is_told(tmp_path):
    process = run("--servers=apache", "--models=lenet5", f"--output={tmp_path / 'x.json'}")
    assert process.returncode == 1
    assert "there is no server 'apache'" in process.stderr
    process = run("--servers=ridgeline", "--models=alexnot", f"--output={tmp_path / 'x.json'}")
    assert process.returncode == 1
    assert "alexnot" in process.stderr


def test_cpu_time_is_that_of_all_processes_and_those_that_ended_do_not_matter():
    own = overload_runs.cpu_s((os.getpid(),))
    assert own > 0
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert overload_runs.cpu_s((os.getpid(), ended.pid)) >= own
