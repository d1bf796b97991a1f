import argparse
import dataclasses
import hashlib
import json
import os

import numpy as np
import pytest

from ridgeline import echo_probe, engine_probe, gpu, hardware, hardware_command, hardware_probe
from ridgeline.__main__ import main
from ridgeline.errors import CorruptData, InvalidInput, NotFound, StepFailed
from ridgeline.fingerprint import Fingerprint
from ridgeline.gpu import Gpu
from ridgeline.hardware import Hardware, Latency
from ridgeline.hardware_probe import Engine, Gemm, Kernel, Rate
from ridgeline.roof import Roof, falling

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


def test_figures_of_an_older_format_are_measured_again_and_not_forgotten(measured):
    path = hardware.cache_path(hardware.current_fingerprint())
    path.parent.mkdir(parents=True)
    faster = dataclasses.replace(
        MACHINE, fingerprint=hardware.current_fingerprint(), peak_flops_per_s=120e9
    )
    table = dataclasses.asdict(faster)
    for name in ("format", "gpus"):  # as the first format had it
        del table[name]
    del table["fingerprint"]["gpus"]
    path.write_text(json.dumps(table))
    assert hardware.read(path).format == 1
    found = hardware.load()
    assert len(measured) == 1
    assert (found.format, found.peak_flops_per_s) == (hardware.FORMAT, 120e9)
    assert hardware.load() == found
    assert len(measured) == 1


def test_a_gpu_changes_the_fingerprint_and_its_absence_keeps_the_old_name_of_the_file():
    ours = MACHINE.fingerprint
    table = dataclasses.asdict(ours)
    del table["gpus"]
    digest = hashlib.sha256(json.dumps(table).encode()).hexdigest()[:16]
    assert ours.digest == digest
    assert dataclasses.replace(ours, gpus="some card").digest != digest


def test_each_device_has_a_roof_of_its_own():
    roof = Roof(
        peak_flops_per_s=60e12,
        memory_bandwidth_bytes_per_s=3e12,
        bandwidth_by_working_set=((MIB, 3e12),),
    )
    cards = (
        Gpu("card", "GPU-a", "1", 2**34, roof=roof),
        Gpu("other card", "GPU-b", "1", 2**34, problem="no CUDA"),
    )
    machine = dataclasses.replace(MACHINE, gpus=cards)
    assert machine.roof_of("cpu") is machine
    assert machine.roof_of("gpu:0") == roof
    with pytest.raises(NotFound, match=r"gpu:1 \(other card\) was not measured: no CUDA"):
        machine.roof_of("gpu:1")
    with pytest.raises(NotFound, match="has 2 GPUs that are known, no 'gpu:2'"):
        machine.roof_of("gpu:2")
    assert Hardware.from_table(json.loads(json.dumps(dataclasses.asdict(machine)))) == machine


def test_gpus_are_measured_with_the_machine_and_shown_with_their_datasheets(
    probes, monkeypatch, capsys
):
    card = Gpu("NVIDIA L4", "GPU-a", "1", 2**34)
    monkeypatch.setattr(gpu, "installed", lambda: (card,))
    monkeypatch.setattr(gpu, "measured", lambda each: dataclasses.replace(each, problem="no CUDA"))
    assert main(["hardware", "--json"]) == 0
    table = json.loads(capsys.readouterr().out)
    assert table["gpus"][0]["problem"] == "no CUDA"
    assert table["gpus"][0]["datasheet"]["peaks"]["tf32"] == 60e12
    assert Hardware.from_table(table).gpus[0].name == "NVIDIA L4"
    assert main(["hardware"]) == 0
    assert "gpu:0: NVIDIA L4" in capsys.readouterr().out
    assert probes


def test_refreshing_measures_again(measured):
    hardware.load()
    hardware.load(refresh=True)
    assert len(measured) == 2


def test_measuring_again_forgets_no_better_figure(measured, monkeypatch):
    first = hardware.load()
    slower = dataclasses.replace(
        MACHINE, fingerprint=first.fingerprint, peak_flops_per_s=50e9, load_average=3.0
    )
    monkeypatch.setattr(hardware, "measure", lambda _: slower)
    assert hardware.load(refresh=True).peak_flops_per_s == 100e9
    faster = dataclasses.replace(slower, peak_flops_per_s=150e9)
    monkeypatch.setattr(hardware, "measure", lambda _: faster)
    assert hardware.load(refresh=True).peak_flops_per_s == 150e9
    assert len(measured) == 1


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


@pytest.fixture
def probes(monkeypatch):
    """Stands in for the probes; each round takes the next of `peaks` as the rate of a product."""
    peaks = [100e9]

    def gemm_rates(*, cores):
        rate = peaks.pop(0) if len(peaks) > 1 else peaks[0]
        return [
            Gemm(size=512, threads=1, rate=Rate(rate / 2, 0.1, 5, best_per_s=rate / 2)),
            Gemm(size=512, threads=cores, rate=Rate(rate / 2, 0.2, 5, best_per_s=rate)),
        ]

    engine = Engine(
        kernels=(
            Kernel("ONNX Runtime", "convolution", "fp32", 2, Rate(90e9, 0.1, 5, best_per_s=95e9)),
            Kernel("ONNX Runtime", "product", "int8", 2, Rate(300e9, 0.1, 5, best_per_s=310e9)),
        ),
        unsupported={"bf16 product": "not implemented"},
        call_ns=tuple(range(1000, 1101)),
    )
    monkeypatch.setattr(hardware_probe, "gemm_rates", gemm_rates)
    monkeypatch.setattr(hardware_probe, "engine_rates", lambda **_: engine)
    monkeypatch.setattr(hardware_probe, "memory_rate", lambda **_: Rate(20e9, 0.1, 15))
    monkeypatch.setattr(
        hardware_probe, "read_rate", lambda size, **_: Rate(100e9 - size / MIB, 0.1, 15)
    )
    monkeypatch.setattr(echo_probe, "tcp_ns", lambda: [2000] * 10)
    monkeypatch.setattr(echo_probe, "grpc_ns", lambda: [3000] * 10)
    monkeypatch.setattr(os, "getloadavg", lambda: (0.0, 0.0, 0.0))
    return peaks


@pytest.mark.usefixtures("probes")
def test_the_peak_is_the_fastest_run_of_any_kernel():
    machine = hardware.measure(MACHINE.fingerprint)
    assert machine.peak_flops_per_s == 100e9
    assert machine.peak_spread == 0.2
    assert machine.peak_of("fp32") == 100e9
    assert machine.peak_of("int8") == 310e9
    assert machine.memory_bandwidth_bytes_per_s == 20e9
    sizes = [size for size, _ in machine.bandwidth_by_working_set]
    assert sizes == list(hardware_probe.WORKING_SETS_BYTES)
    assert (sizes[0], sizes[-1]) == (64 * KIB, 256 * MIB)
    assert machine.engine_call == Latency(p50_ns=1050, p5_ns=1005, p95_ns=1095, count=101)
    assert (machine.loopback.p50_ns, machine.grpc.p50_ns) == (2000, 3000)
    assert json.loads(json.dumps(dataclasses.asdict(machine)))["unsupported"]
    assert Hardware.from_table(json.loads(json.dumps(dataclasses.asdict(machine)))) == machine


def test_a_convolution_that_beats_the_products_is_the_peak(probes):
    probes[:] = [80e9]
    assert hardware.measure(MACHINE.fingerprint).peak_flops_per_s == 95e9


def test_it_is_repeated_until_the_peak_rises_no_more(probes):
    probes[:] = [100e9, 110e9, 111e9]
    machine = hardware.measure(MACHINE.fingerprint)
    assert (machine.peak_flops_per_s, machine.rounds, machine.stable) == (111e9, 3, True)


def test_a_machine_that_does_not_come_to_rest_is_told_to_be_unstable(probes):
    probes[:] = [100e9 * 1.1**power for power in range(9)]
    machine = hardware.measure(MACHINE.fingerprint)
    assert (machine.rounds, machine.stable) == (5, False)
    assert machine.peak_flops_per_s == pytest.approx(100e9 * 1.1**4)


def test_a_disturbed_bandwidth_is_never_below_that_of_a_larger_working_set():
    rates = ((1, 50.0), (2, 80.0), (4, 20.0), (8, 30.0))
    assert falling(rates) == ((1, 80.0), (2, 80.0), (4, 30.0), (8, 30.0))


def test_a_precision_without_kernels_is_bounded_by_what_a_register_holds():
    assert MACHINE.peak_of("int8") == 400e9
    assert MACHINE.peak_of("bf16") == 200e9


@pytest.mark.usefixtures("probes")
def test_a_busy_machine_is_warned_about(monkeypatch, caplog):
    monkeypatch.setattr(os, "getloadavg", lambda: (1.5, 1.0, 1.0))
    assert hardware.measure(MACHINE.fingerprint).load_average == 1.5
    assert "load average 1.5 on 2 cores" in caplog.text


def test_a_median_rate_and_its_spread_are_those_worked_out_by_hand():
    # 1000 units in 10, 20 and 50 us are 100, 50 and 20 M/s: median 50, spread (100 - 20) / 50.
    rate = hardware_probe.rate_of(1000, [10_000, 50_000, 20_000])
    assert rate.per_s == pytest.approx(50e6)
    assert rate.spread == pytest.approx(1.6)
    assert rate.runs == 3
    assert rate.bound_per_s == pytest.approx(100e6)


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
    assert "100.0 G/s" in out
    assert "256 KiB" in out
    assert "64 MiB" in out
    assert len(measured) == 2


def test_the_flags_are_those_of_the_command():
    parser = argparse.ArgumentParser()
    hardware_command.add_arguments(parser)
    assert parser.parse_args(["--again"]).again
    assert parser.parse_args(["--refresh"]).again  # as it was called before


@pytest.mark.usefixtures("probes")
def test_the_table_shows_every_kernel_and_what_is_not_supported(capsys):
    machine = hardware.measure(MACHINE.fingerprint)
    hardware_command.show(json.loads(json.dumps(dataclasses.asdict(machine))))
    out = capsys.readouterr().out
    assert "peak int8" in out
    assert "310.0 G/s" in out
    assert "not supported here: bf16 product (not implemented)" in out
    assert "2 rounds, stable" in out


def test_the_engine_is_measured_in_a_process_of_its_own(monkeypatch):
    monkeypatch.setattr(hardware_probe, "_ENGINE_SECONDS", 0.05)
    monkeypatch.setattr(engine_probe, "_CALLS", 10)
    engine = hardware_probe.engine_rates(cores=1)
    known = {(row.precision, row.kernel.split()[0]) for row in engine.kernels}
    assert ("fp32", "product") in known
    assert ("fp32", "convolution") in known
    assert all(row.rate.bound_per_s >= row.rate.per_s > 0 for row in engine.kernels)
    assert engine.call_ns


def test_without_the_engine_there_are_no_kernels(monkeypatch):
    monkeypatch.setattr(hardware_probe.importlib.util, "find_spec", lambda _: None)
    assert hardware_probe.engine_rates(cores=2) == Engine()


def test_round_trips_are_made_to_another_process():
    assert len(echo_probe.tcp_ns(round_trips=20, size_bytes=100)) == 18
    assert min(echo_probe.grpc_ns(calls=10, size_bytes=100)) > 0
