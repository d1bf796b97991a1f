"""The measurement of a device, as it runs on a GPU: here really on the CPU, with small tensors."""

import json
import sys

import numpy as np
import onnxruntime
import pytest

from ridgeline import device_probe
from ridgeline.device_probe import CPU, CUDA, Case, Plan

SMALL = Plan(
    products=(16,),
    convolutions=((4, 6, 3, 2), (4, 6, 1, 2)),
    working_sets_bytes=(2**12, 2**14),
    precisions=("fp32", "fp16"),
)

without_cuda = pytest.mark.skipif(
    "CUDAExecutionProvider" in onnxruntime.get_available_providers(),
    reason="this ONNX Runtime has CUDA: what it tells without cannot be seen",
)


def test_every_case_is_measured_on_the_device_and_what_is_lacking_is_told():
    found = device_probe.measure(CPU, seconds=0.05, plan=SMALL)
    known = {(row["precision"], row["kernel"]) for row in found["kernels"]}
    assert ("fp32", "product 16 x 16") in known
    assert ("fp32", "convolution 3 x 3, 4 channels, 6 x 6") in known
    assert len(found["kernels"]) + len(found["unsupported"]) == 6
    assert all(row["rate"]["best_per_s"] >= row["rate"]["per_s"] > 0 for row in found["kernels"])
    assert [size for size, _ in found["bandwidth"]] == [2**12, 2**14]
    assert found["bandwidth"][0][1] >= found["bandwidth"][1][1] > 0
    json.dumps(found)


@without_cuda
def test_a_provider_that_is_not_there_is_told_for_every_case_instead_of_timing_the_cpu():
    found = device_probe.measure(CUDA, seconds=0.05, plan=SMALL)
    assert found["kernels"] == found["bandwidth"] == []
    assert set(found["unsupported"]) >= {"fp32 product 16 x 16", "fp32 reading 4096"}
    assert all("CUDA" in reason for reason in found["unsupported"].values())


def test_operations_and_bytes_are_those_worked_out_by_hand():
    product, three, one = list(device_probe._computing(SMALL))[:3]
    assert product.amount == 2 * 16 * 16 * 16
    assert three.amount == 2 * (2 * 6 * 6 * 4) * (4 * 3 * 3)  # outputs x what each sums over
    assert one.amount == 2 * (2 * 6 * 6 * 4) * 4
    (size, reading), (_, copying) = list(device_probe._reading(SMALL))[:2]
    assert (size, reading.amount, reading.w) == (4096, 4096, (32, 32))
    assert (copying.amount, copying.x) == (4096, (512,))  # 512 numbers read, and written


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_graph_applies_its_operator_to_its_own_result(precision):
    case = Case("product", precision, "MatMul", 1, 3, (4, 4), (4, 4))
    session = device_probe._session(device_probe._graph(case), provider=CPU, precision=precision)
    kind = np.float16 if precision == "fp16" else np.float32
    x, w = np.eye(4, dtype=kind), 2 * np.eye(4, dtype=kind)
    (y,) = session.run(None, {"x": x, "w": w})
    assert y.dtype == kind
    assert (y == 8 * np.eye(4)).all()


def test_tensors_are_random_and_of_the_precision_asked_for():
    value = device_probe._on_device((3, 5), 2.0, provider=CPU, precision="fp16")
    array = value.numpy()
    assert (array.shape, array.dtype) == ((3, 5), np.float16)
    assert 0.5 < array.std() < 4


def test_the_program_prints_what_it_measured(monkeypatch, capsys):
    plans = []

    def measure(provider, *, seconds, plan):
        plans.append((provider, seconds, plan))
        return {"kernels": []}

    monkeypatch.setattr(device_probe, "measure", measure)
    monkeypatch.setattr(sys, "argv", ["device_probe", CUDA, "2"])
    device_probe.main()
    assert json.loads(capsys.readouterr().out) == {"kernels": []}
    assert plans == [(CUDA, 2.0, Plan())]
