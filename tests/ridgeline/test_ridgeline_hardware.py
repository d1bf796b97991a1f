import argparse
import dataclasses
import json
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ridgeline import hardware, hardware_probe
from ridgeline.__main__ import main
from ridgeline.cost import ModelCost
from ridgeline.errors import CorruptData, InvalidInput, NotFound, StepFailed
from ridgeline.hardware import Fingerprint, Hardware
from ridgeline.hardware_probe import Gemm, Rate

KIB, MIB = 2**10, 2**20
MACHINE = Hardware(
    fingerprint=Fingerprint(
        cpu="a processor", cores=2, memory_bytes=2**34, platform="here", numpy="2", blas="some"
    ),
    peak_flops_per_s=100e9,
    memory_bandwidth_bytes_per_s=10e9,
    bandwidth_by_working_set=((256 * KIB, 80e9), (MIB, 40e9), (64 * MIB, 20e9)),
    measured_at="2026-01-02T03:04:05+00:00",
    gemm=(Gemm(size=512, threads=2, rate=Rate(per_s=100e9, spread=0.02, runs=5)),),
)
LENET = ModelCost(
    multiply_adds_per_sample=416_520,
    parameters=61_706,
    weight_bytes=246_824,
    input_bytes_per_sample=4096,
    output_bytes_per_sample=40,
)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


@pytest.fixture
def measured(monkeypatch):
    """Stands in for the measurement; holds how often it was asked for."""
    calls = []

    def measure(fingerprint):
        calls.append(fingerprint)
        return dataclasses.replace(MACHINE, fingerprint=fingerprint)

    monkeypatch.setattr(hardware, "measure", measure)
    return calls


def test_the_floor_of_lenet_5_is_that_worked_out_by_hand():
    # 833,040 FLOPs / 100 GFLOP/s = 8.3304 us; 250,960 bytes / 80 GB/s = 3.137 us: FLOPs decide.
    floor_ns = MACHINE.floor_ns(
        flops=LENET.flops(batch_size=1), bytes_moved=LENET.bytes_moved(batch_size=1)
    )
    assert floor_ns == pytest.approx(8330.4)


def test_bytes_decide_where_there_are_many_for_each_operation():
    # 1 GB at the 20 GB/s of 64 MiB and more are 50 ms; 1 GFLOP at 100 GFLOP/s is 10 ms.
    assert MACHINE.floor_ns(flops=10**9, bytes_moved=10**9) == pytest.approx(50e6)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (0, 80e9),
        (256 * KIB, 80e9),
        (MIB - 1, 80e9),
        (MIB, 40e9),
        (2 * MIB, 40e9),
        (64 * MIB, 20e9),
        (256 * MIB, 20e9),
    ],
)
def test_the_bandwidth_is_that_of_the_largest_working_set_within_the_bytes(size, expected):
    assert MACHINE.bandwidth_bytes_per_s(working_set_bytes=size) == expected


@given(flops=st.integers(0, 10**15), bytes_moved=st.integers(0, 10**12))
def test_the_floor_is_below_neither_of_its_two_bounds(flops, bytes_moved):
    floor_ns = MACHINE.floor_ns(flops=flops, bytes_moved=bytes_moved)
    above, below = 1 + 1e-12, 1 - 1e-12  # rounding
    assert floor_ns >= below * 1e9 * flops / MACHINE.peak_flops_per_s
    assert floor_ns >= below * 1e9 * bytes_moved / 80e9
    assert floor_ns <= above * 1e9 * max(flops / 100e9, bytes_moved / 10e9)


def test_negative_counts_have_no_floor():
    with pytest.raises(InvalidInput, match="flops=-1, bytes_moved=0"):
        MACHINE.floor_ns(flops=-1, bytes_moved=0)


@pytest.mark.parametrize(
    "change",
    [
        {"peak_flops_per_s": 0.0},
        {"memory_bandwidth_bytes_per_s": float("nan")},
        {"bandwidth_by_working_set": ((MIB, 1e9), (MIB, 2e9))},
        {"bandwidth_by_working_set": ((MIB, -1e9),)},
    ],
)
def test_a_machine_with_impossible_figures_is_refused(change):
    with pytest.raises(InvalidInput, match="must be positive"):
        dataclasses.replace(MACHINE, **change)


def test_a_machine_survives_json():
    text = json.dumps(dataclasses.asdict(MACHINE))
    assert Hardware.from_table(json.loads(text)) == MACHINE


def test_the_second_look_is_answered_by_the_cache(measured):
    announced = []
    first = hardware.load(announce=announced.append)
    again = hardware.load(announce=announced.append)
    assert first == again
    assert len(measured) == 1
    assert len(announced) == 1
    path = hardware.cache_path(first.fingerprint)
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    assert path.name == f"hardware-{first.fingerprint.digest}.json"


def test_refreshing_measures_again(measured):
    hardware.load()
    hardware.load(refresh=True)
    assert len(measured) == 2


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"fingerprint": 3}', "\ufffe"])
def test_a_damaged_cache_is_measured_again_and_replaced(measured, text):
    path = hardware.cache_path(hardware.current_fingerprint())
    path.parent.mkdir(parents=True)
    path.write_text(text)
    assert hardware.load() == hardware.read(path)
    assert len(measured) == 1


def test_the_figures_of_another_machine_are_not_taken_for_ours(measured):
    path = hardware.cache_path(hardware.current_fingerprint())
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(dataclasses.asdict(MACHINE)))
    assert hardware.load().fingerprint == hardware.current_fingerprint()
    assert len(measured) == 1


def test_a_cache_that_cannot_be_written_is_only_a_warning(measured, tmp_path, monkeypatch, caplog):
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    assert hardware.load().peak_flops_per_s == MACHINE.peak_flops_per_s
    assert "could not be kept" in caplog.text
    assert len(measured) == 1


def test_another_fingerprint_has_another_file():
    ours = MACHINE.fingerprint
    other = dataclasses.replace(ours, cores=4)
    assert hardware.cache_path(ours) != hardware.cache_path(other)


def test_without_xdg_the_cache_lies_in_the_home_folder(monkeypatch, tmp_path):
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    path = hardware.cache_path(MACHINE.fingerprint)
    assert path.parent == tmp_path / ".cache" / "ridgeline"


def test_reading_names_the_file_that_is_missing_or_wrong(tmp_path):
    with pytest.raises(NotFound, match="No such file"):
        hardware.read(tmp_path / "none.json")
    path = tmp_path / "wrong.json"
    path.write_text('{"gemm": []}')
    with pytest.raises(CorruptData, match=r"wrong\.json: .*bandwidth_by_working_set"):
        hardware.read(path)


def test_the_fingerprint_counts_the_cores_that_this_process_may_use():
    fingerprint = hardware.current_fingerprint()
    assert fingerprint.cores == len(os.sched_getaffinity(0))
    assert fingerprint.numpy == np.__version__
    assert fingerprint.cpu


def test_the_peak_is_the_best_size_of_one_thread_and_of_all(monkeypatch):
    def gemm_rates(*, cores):
        rates = {(512, 1): 50e9, (1024, 1): 60e9, (512, cores): 90e9, (1024, cores): 110e9}
        return [
            Gemm(size=size, threads=threads, rate=Rate(per_s=rate, spread=rate / 1e12, runs=5))
            for (size, threads), rate in rates.items()
        ]

    monkeypatch.setattr(hardware_probe, "gemm_rates", gemm_rates)
    monkeypatch.setattr(hardware_probe, "memory_rate", lambda **_: Rate(20e9, 0.1, 15))
    monkeypatch.setattr(
        hardware_probe, "read_rate", lambda size, **_: Rate(100e9 - size / MIB, 0.1, 15)
    )
    machine = hardware.measure(MACHINE.fingerprint)
    assert machine.peak_flops_per_s == 110e9
    assert machine.peak_spread == pytest.approx(0.11)
    assert machine.memory_bandwidth_bytes_per_s == 20e9
    sizes = [size for size, _ in machine.bandwidth_by_working_set]
    assert sizes == list(hardware_probe.WORKING_SETS_BYTES)
    assert (sizes[0], sizes[-1]) == (64 * KIB, 256 * MIB)


def test_a_busy_machine_is_warned_about(monkeypatch, caplog):
    monkeypatch.setattr(os, "getloadavg", lambda: (1.5, 1.0, 1.0))
    rate = Rate(1e9, 0.0, 5)
    monkeypatch.setattr(hardware_probe, "gemm_rates", lambda **_: [Gemm(512, 1, rate)])
    monkeypatch.setattr(hardware_probe, "memory_rate", lambda **_: rate)
    monkeypatch.setattr(hardware_probe, "read_rate", lambda *_, **__: rate)
    assert hardware.measure(MACHINE.fingerprint).load_average == 1.5
    assert "load average 1.5 on 2 cores" in caplog.text


def test_a_median_rate_and_its_spread_are_those_worked_out_by_hand():
    # 1000 units in 10, 20 and 50 us are 100, 50 and 20 M/s: median 50, spread (100 - 20) / 50.
    rate = hardware_probe._rate(1000, [10_000, 50_000, 20_000])
    assert rate.per_s == pytest.approx(50e6)
    assert rate.spread == pytest.approx(1.6)
    assert rate.runs == 3


def test_matrix_products_are_measured_in_a_process_of_their_own(monkeypatch):
    monkeypatch.setattr(hardware_probe, "_GEMM_SIZES", (64, 128))
    rows = hardware_probe.gemm_rates(cores=2)
    assert [(row.size, row.threads) for row in rows] == [(64, 1), (128, 1), (64, 2), (128, 2)]
    assert all(row.rate.per_s > 0 and row.rate.runs >= 5 for row in rows)


def test_a_measurement_that_fails_says_why(monkeypatch):
    monkeypatch.setenv("PYTHONHOME", "/nowhere")
    with pytest.raises(StepFailed, match="measuring the peak FLOP/s failed"):
        hardware_probe._gemm_in_a_process(1)


def test_reading_and_copying_are_measured_over_every_piece(monkeypatch):
    monkeypatch.setattr(hardware_probe, "_TRAFFIC_BYTES", MIB)
    amounts = []

    def together(calls, *, amount):
        for call in calls:
            call()
        amounts.append((len(calls), amount))
        return Rate(per_s=float(amount), spread=0.0, runs=1)

    monkeypatch.setattr(hardware_probe, "_together", together)
    hardware_probe.read_rate(256 * KIB, cores=2)
    hardware_probe.read_rate(32 * KIB, cores=2)  # too little for two threads
    hardware_probe.memory_rate(cores=2, memory_bytes=8 * MIB)
    # Two threads read 128 KiB eight times each; one reads 32 KiB 32 times; reading and copying
    # an eighth of the memory moves as many bytes.
    assert amounts == [(2, 2 * MIB), (1, MIB), (2, MIB), (2, MIB)]


def test_rates_of_real_runs_are_positive(monkeypatch):
    monkeypatch.setattr(hardware_probe, "_TRAFFIC_BYTES", 4 * MIB)
    assert hardware_probe.read_rate(MIB, cores=2).per_s > 0


def test_the_command_prints_json_or_a_table(measured, capsys):
    assert main(["hardware", "--json"]) == 0
    table = json.loads(capsys.readouterr().out)
    assert Hardware.from_table(table).peak_flops_per_s == 100e9
    assert main(["hardware", "--refresh"]) == 0
    out = capsys.readouterr().out
    assert "100.0 GFLOP/s" in out
    assert "256 KiB" in out
    assert "64 MiB" in out
    assert len(measured) == 2


def test_the_flags_are_those_of_the_command():
    parser = argparse.ArgumentParser()
    hardware.add_arguments(parser)
    assert parser.parse_args(["--refresh"]).refresh
