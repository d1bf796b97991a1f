"""What ONNX Runtime makes of this machine: rates of its kernels, and the price of a call.

Usage: python -m ridgeline.engine_probe CORES SECONDS; prints JSON. Run by `ridgeline.hardware` in a
process of its own. A model cannot be faster than the best kernel that any library has; convolutions
are counted as direct ones are, so that one by Winograd's method, were there one, would raise the
peak instead of beating it.
"""

import functools
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

_NS_PER_S = 1_000_000_000
_LEAST_RUNS, _CALLS = 5, 2000
_OPSET, _IR_VERSION = 18, 8


@dataclass(frozen=True)
class Case:
    """A graph of one operator, and how many operations it takes."""

    kernel: str
    precision: str
    operations: int
    shape: tuple[int, ...]
    build: Callable[[], bytes]


def main() -> None:
    """Time each case for an equal share of the given seconds, with one thread and with all."""
    cores, seconds = int(sys.argv[1]), float(sys.argv[2])
    cases = list(_cases())
    threads = sorted({1, cores})
    share_ns = int(seconds * _NS_PER_S / len(cases) / len(threads))
    kernels, unsupported = [], {}
    for case in cases:
        for count in threads:
            try:
                times_ns = _times_ns(case, threads=count, for_ns=share_ns)
            except Exception as error:  # noqa: BLE001 - whatever a library says of what it lacks
                unsupported[f"{case.precision} {case.kernel}"] = str(error).splitlines()[0][:200]
                break
            kernels.append(_row(case, threads=count, times_ns=times_ns))
    found = {"kernels": kernels, "unsupported": unsupported, "call_ns": _call_ns()}
    print(json.dumps(found))


def _row(case: Case, *, threads: int, times_ns: list[int]) -> dict[str, Any]:
    rates = [_NS_PER_S * case.operations / each for each in times_ns]
    median = statistics.median(rates)
    rate = {
        "per_s": median,
        "spread": (max(rates) - min(rates)) / median,
        "runs": len(rates),
        "best_per_s": max(rates),
    }
    return {
        "library": "ONNX Runtime",
        "kernel": case.kernel,
        "precision": case.precision,
        "threads": threads,
        "rate": rate,
    }


def _cases() -> Iterator[Case]:
    for size in (512, 1024, 2048):
        yield _product(size, precision="fp32")
    yield _convolution(64, side=56, kernel=3, rows=4)
    yield _convolution(256, side=14, kernel=3, rows=16)
    yield _convolution(256, side=28, kernel=1, rows=8)
    for precision in ("int8", "bf16", "fp16"):
        yield _product(1024, precision=precision)


def _product(size: int, *, precision: str) -> Case:
    operator = "MatMulInteger" if precision == "int8" else "MatMul"
    return Case(
        f"product {size} x {size}",
        precision,
        2 * size**3,
        (size, size),
        functools.partial(_graph, operator, precision=precision, x=(size, size), w=(size, size)),
    )


def _convolution(channels: int, *, side: int, kernel: int, rows: int) -> Case:
    x, w = (rows, channels, side, side), (channels, channels, kernel, kernel)
    build = functools.partial(
        _graph,
        "Conv",
        precision="fp32",
        x=x,
        w=w,
        pads=[kernel // 2] * 4,
        kernel_shape=[kernel] * 2,
    )
    operations = 2 * rows * side * side * channels * channels * kernel * kernel
    name = f"convolution {kernel} x {kernel}, {channels} channels, {side} x {side}"
    return Case(name, "fp32", operations, x, build)


def _graph(
    operator: str, *, precision: str, x: tuple[int, ...], w: tuple[int, ...], **attributes: Any
) -> bytes:
    from onnx import TensorProto, helper, numpy_helper

    kinds = {
        "fp32": TensorProto.FLOAT,
        "fp16": TensorProto.FLOAT16,
        "bf16": TensorProto.BFLOAT16,
        "int8": TensorProto.UINT8,
    }
    kind = kinds[precision]
    values = np.random.default_rng(0).integers(0, 4, size=w)
    weights = numpy_helper.from_array(values.astype(helper.tensor_dtype_to_np_dtype(kind)), "w")
    result = TensorProto.INT32 if precision == "int8" else kind
    graph = helper.make_graph(
        [helper.make_node(operator, ["x", "w"], ["y"], **attributes)],
        operator,
        [helper.make_tensor_value_info("x", kind, x)],
        [helper.make_tensor_value_info("y", result, None)],
        [weights],
    )
    opsets = [helper.make_opsetid("", _OPSET)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION)
    return bytes(model.SerializeToString())


def _session(graph: bytes, *, threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def _times_ns(case: Case, *, threads: int, for_ns: int) -> list[int]:
    session = _session(case.build(), threads=threads)
    (tensor,) = session.get_inputs()
    kinds = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(uint8)": np.uint8}
    if tensor.type not in kinds:
        raise TypeError(f"inputs of {tensor.type} cannot be given")
    feed = {"x": np.ones(case.shape, dtype=kinds[tensor.type])}
    session.run(None, feed)  # allocates
    times: list[int] = []
    end_ns = time.perf_counter_ns() + for_ns
    while len(times) < _LEAST_RUNS or time.perf_counter_ns() < end_ns:
        begin_ns = time.perf_counter_ns()
        session.run(None, feed)
        times.append(time.perf_counter_ns() - begin_ns)
    return times


def _call_ns() -> list[int]:
    """How long calls take that compute nothing: one number through one operator."""
    graph = _graph("Add", precision="fp32", x=(1,), w=(1,))
    session, feed = _session(graph, threads=1), {"x": np.ones(1, dtype=np.float32)}
    times = []
    for _ in range(_CALLS):
        begin_ns = time.perf_counter_ns()
        session.run(None, feed)
        times.append(time.perf_counter_ns() - begin_ns)
    return times[_CALLS // 2 :]


if __name__ == "__main__":
    main()
