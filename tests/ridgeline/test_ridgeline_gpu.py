"""GPUs as a driver tells them. None is here: what it answers is written down, nothing is timed."""

import dataclasses
import json
import logging

import onnxruntime
import pytest

from ridgeline import gpu, hardware_command
from ridgeline.datasheets import datasheet
from ridgeline.gpu import Gpu
from ridgeline.hardware_probe import Kernel, Rate

ANSWER = """\
GPU-aaaa, 81559, 550.54.15, NVIDIA H100 80GB HBM3
GPU-bbbb, [N/A], 550.54.15, Tesla T4
"""
H100 = Gpu("NVIDIA H100 80GB HBM3", "GPU-aaaa", "550.54.15", 81559 * 2**20)
T4 = Gpu("Tesla T4", "GPU-bbbb", "550.54.15", 0)
TERA = 1e12

without_cuda = pytest.mark.skipif(
    "CUDAExecutionProvider" in onnxruntime.get_available_providers(),
    reason="this ONNX Runtime has CUDA: what it tells without cannot be seen",
)


def kernel(precision, rate):
    return dataclasses.asdict(Kernel("it", "product", precision, 0, Rate(0.9 * rate, 0.1, 5, rate)))


RATES = {
    "kernels": [kernel("fp32", 50 * TERA), kernel("tf32", 400 * TERA), kernel("fp16", 800 * TERA)],
    "bandwidth": [[2**20, 5e12], [2**30, 3e12]],
    "unsupported": {"bf16 product": "not there"},
}


@pytest.fixture
def driver(tmp_path, monkeypatch):
    """Puts an nvidia-smi that answers so in front of all programs."""

    def answers(text, *, code=0):
        program = tmp_path / "nvidia-smi"
        program.write_text(f"#!/bin/sh\ncat <<'END'\n{text}END\nexit {code}\n")
        program.chmod(0o755)

    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return answers


def test_gpus_are_those_that_the_driver_tells(driver):
    driver(ANSWER)
    assert gpu.installed() == (H100, T4)


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        ("1", (T4,)),
        ("GPU-bb,0", (T4, H100)),
        ("", ()),
        ("0,7,1", (H100,)),  # as CUDA does: what follows a wrong number is invisible
    ],
)
def test_only_gpus_that_the_process_may_use_are_measured(driver, monkeypatch, visible, expected):
    driver(ANSWER)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert gpu.installed() == expected


def test_without_a_driver_there_are_no_gpus(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpu.installed() == ()


def test_a_driver_that_fails_is_told_and_means_no_gpus(driver, caplog):
    driver("Failed to initialize NVML: Driver/library version mismatch\n", code=18)
    with caplog.at_level(logging.WARNING):
        assert gpu.installed() == ()
    assert "nvidia-smi is here, but tells no GPUs" in caplog.text


def test_the_peak_is_that_of_fp32_with_tf32_and_others_have_their_own():
    found = gpu.with_rates(H100, RATES)
    assert found.roof.peak_flops_per_s == 400 * TERA
    assert found.roof.peak_of("fp16") == 800 * TERA
    assert found.roof.peak_of("bf16") == 800 * TERA  # was not measured: as many bits as fp16
    assert found.roof.peak_of("int8") == 1600 * TERA
    assert found.roof.memory_bandwidth_bytes_per_s == 3e12
    assert found.roof.bandwidth_bytes_per_s(working_set_bytes=2**22) == 5e12
    assert found.problem is None


def test_a_gpu_without_a_rate_has_no_roof_but_a_reason():
    found = gpu.with_rates(T4, {"kernels": [], "bandwidth": [], "unsupported": {"x": "no CUDA"}})
    assert (found.roof, found.problem) == (None, "no CUDA")


def test_a_gpu_survives_json_with_its_datasheet_or_without():
    found = gpu.with_rates(H100, RATES)
    table = json.loads(json.dumps(dataclasses.asdict(found)))
    assert Gpu.from_table(table) == found
    assert Gpu.from_table({**table, "datasheet": None}) == found


@without_cuda
def test_without_a_gpu_build_of_the_engine_a_gpu_tells_why_it_was_not_measured(monkeypatch):
    found = gpu.measured(T4)  # really asks ONNX Runtime for CUDA, in a process of its own
    assert found.roof is None
    assert "CUDAExecutionProvider" in found.problem
    monkeypatch.setattr(gpu.importlib.util, "find_spec", lambda _: None)
    assert "not installed" in gpu.measured(T4).problem


def test_a_measurement_that_dies_is_the_problem(monkeypatch):
    monkeypatch.setenv("PYTHONHOME", "/nowhere")
    assert "measuring the GPU Tesla T4 failed" in gpu.measured(T4).problem


def test_measuring_again_keeps_the_better_figure_of_each_gpu():
    first = gpu.with_rates(H100, RATES)
    slower = {
        "kernels": [kernel("fp32", 300 * TERA)],
        "bandwidth": [[2**20, 4e12], [2**30, 3.5e12]],
        "unsupported": {},
    }
    (found,) = gpu.better((first,), (gpu.with_rates(H100, slower),))
    assert found.roof.peak_flops_per_s == 400 * TERA
    assert found.roof.memory_bandwidth_bytes_per_s == 3.5e12
    assert found.kernels == first.kernels
    unmeasured = dataclasses.replace(H100, problem="busy")
    assert gpu.better((first,), (unmeasured,)) == (first,)
    assert gpu.better((unmeasured,), (first,)) == (first,)
    assert gpu.better((), (first,)) == (first,)
    other = gpu.with_rates(H100, {**RATES, "bandwidth": [[2**20, 1e12]]})
    assert gpu.better((first,), (other,)) == (other,)


def test_a_datasheet_is_found_by_the_name_that_the_driver_gives():
    sheet = datasheet(H100.name)
    assert (sheet.peaks["fp32"], sheet.peaks["bf16"]) == (67 * TERA, 989.5 * TERA)
    assert sheet.memory_bandwidth_bytes_per_s == 3350e9
    assert "H100" in sheet.source
    assert datasheet("Tesla T4").peaks == {"fp32": 8.1e12, "fp16": 65e12, "int8": 130e12}
    assert datasheet("NVIDIA GeForce RTX 9999") is None


def test_the_table_of_a_gpu_has_the_datasheet_beside_what_was_measured(capsys):
    from rich.console import Console

    for number, each in enumerate(
        (
            gpu.with_rates(H100, RATES),
            dataclasses.replace(
                Gpu("Some card", "GPU-c", "1", 2**34),
                problem="no CUDA",
                unsupported={"fp32": "nothing"},
            ),
        )
    ):
        hardware_command._show_gpu(each, number=number, console=Console(width=160))
    out = capsys.readouterr().out
    assert "gpu:0: NVIDIA H100 80GB HBM3, 80 GiB, driver 550.54.15" in out
    (tf32,) = (line for line in out.splitlines() if "TF32 on" in line)
    assert "400.0 T/s" in tf32
    assert "360.0 T/s" in tf32
    assert "494.5 T/s" in tf32
    assert "datasheet: NVIDIA H100 datasheet, dense" in out
    assert "3350.0 GB/s" in out
    assert "not supported there: bf16 product (not there)" in out
    assert "no datasheet is known here" in out
    assert "not measured: no CUDA" in out
