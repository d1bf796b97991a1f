"""What ONNX Runtime makes of one device: rates of its kernels, and of its memory.

Usage: python -m ridgeline.device_probe PROVIDER SECONDS; prints JSON. `ridgeline.gpu` runs it in a
process of its own for each GPU, with CUDAExecutionProvider. Nothing in it knows CUDA but the
provider's options: its tests run it on CPUExecutionProvider.

Tensors are made on the device and stay there (IO binding), and a graph applies its operator many
times to its own result, so that neither copies nor the start of a call are timed. Data are random,
since zeros let a GPU keep a higher clock than any model does.
"""

import functools
import itertools
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from ridgeline.hardware_probe import Kernel, rate_of
from ridgeline.roof import falling

CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
_DEVICES = {CUDA: "cuda", CPU: "cpu"}  # as ONNX Runtime's values call them
_NS_PER_S, _MIB, _FP32_BYTES = 1_000_000_000, 2**20, 4
_LEAST_RUNS, _OPSET, _IR_VERSION = 5, 18, 8
_PRODUCTS, _READS = 8, 64  # how often a graph applies its operator
_RANDOM_NUMBERS = 2**20  # repeated where a tensor has more
_TF32 = {"fp32": "0", "tf32": "1"}  # CUDA's option `use_tf32`; on it is the default


@dataclass(frozen=True)
class Case:
    """An operator that gives what it takes: applied `times` times, it does `amount` each time."""

    kernel: str
    precision: str
    operator: str
    amount: int
    times: int
    x: tuple[int, ...]
    w: tuple[int, ...] | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """Sides of products, (channels, side, kernel, rows) of convolutions, bytes to be read."""

    products: Sequence[int] = (2048, 4096, 8192)
    convolutions: Sequence[tuple[int, int, int, int]] = ((256, 56, 3, 32), (512, 28, 1, 64))
    working_sets_bytes: Sequence[int] = tuple(_MIB * 2**power for power in range(11))
    precisions: Sequence[str] = ("fp32", "tf32", "fp16", "bf16")


def main() -> None:
    """Measure, and print what `measure` returns as JSON."""
    provider, seconds = sys.argv[1], float(sys.argv[2])
    if provider == CUDA:
        _load_libraries()
    print(json.dumps(measure(provider, seconds=seconds, plan=Plan())))


def measure(provider: str, *, seconds: float, plan: Plan) -> dict[str, Any]:
    """The rates of every case, each timed for an equal share of the seconds.

    `kernels` as `Kernel`, with 0 threads; `bandwidth` pairs of working set and bytes per second,
    the better of two ways; `unsupported` what the provider does not have, and in its own words why.
    """
    computing, reading = list(_computing(plan)), list(_reading(plan))
    for_ns = int(seconds * _NS_PER_S / max(1, len(computing) + len(reading)))
    kernels: list[dict[str, Any]] = []
    bandwidth: dict[int, float] = dict.fromkeys(sorted({size for size, _ in reading}), 0.0)
    unsupported: dict[str, str] = {}
    for size, case in [*((0, case) for case in computing), *reading]:
        try:
            times_ns = _times_ns(case, provider=provider, for_ns=for_ns)
        except Exception as error:  # noqa: BLE001 - whatever a library says of what it lacks
            reason = next(iter(str(error).splitlines()), repr(error))
            unsupported[f"{case.precision} {case.kernel}"] = reason[:200]
            continue
        rate = rate_of(case.times * case.amount, times_ns)
        if size:
            bandwidth[size] = max(bandwidth[size], rate.bound_per_s)
        else:
            kernel = Kernel("ONNX Runtime", case.kernel, case.precision, 0, rate)
            kernels.append(asdict(kernel))
    measured = falling((size, rate) for size, rate in bandwidth.items() if rate)
    return {"kernels": kernels, "bandwidth": list(measured), "unsupported": unsupported}


def _computing(plan: Plan) -> Iterator[Case]:
    for precision in plan.precisions:
        case = functools.partial(Case, precision=precision, times=_PRODUCTS)
        for size in plan.products:
            name, square = f"product {size} x {size}", (size, size)
            yield case(name, operator="MatMul", amount=2 * size**3, x=square, w=square)
        for channels, side, kernel, rows in plan.convolutions:
            yield case(
                f"convolution {kernel} x {kernel}, {channels} channels, {side} x {side}",
                operator="Conv",
                amount=2 * rows * side**2 * channels**2 * kernel**2,
                x=(rows, channels, side, side),
                w=(channels, channels, kernel, kernel),
                attributes={"pads": [kernel // 2] * 4, "kernel_shape": [kernel] * 2},
            )


def _reading(plan: Plan) -> Iterator[tuple[int, Case]]:
    """Two ways to read so many bytes over and over, as fp32 without TF32.

    A vector times one matrix, as a dense layer reads its weights; and a copy of half as many bytes,
    which are read and written: its working set is at most what it moves, so that the rate is never
    told for less than it was measured with.
    """
    for size in plan.working_sets_bytes:
        side, half = math.isqrt(size // _FP32_BYTES), size // 2 // _FP32_BYTES
        case = functools.partial(Case, precision="fp32", times=_READS)
        read = side * side * _FP32_BYTES
        yield (
            size,
            case(f"reading {size}", operator="MatMul", amount=read, x=(1, side), w=(side, side)),
        )
        yield (
            size,
            case(f"copying {size}", operator="Neg", amount=2 * half * _FP32_BYTES, x=(half,)),
        )


def _times_ns(case: Case, *, provider: str, for_ns: int) -> list[int]:
    run = _bound(case, provider=provider)
    run()  # allocates, and lets a library choose its kernel
    times: list[int] = []
    end_ns = time.perf_counter_ns() + for_ns
    while len(times) < _LEAST_RUNS or time.perf_counter_ns() < end_ns:
        begin_ns = time.perf_counter_ns()
        run()
        times.append(time.perf_counter_ns() - begin_ns)
    return times


def _bound(case: Case, *, provider: str) -> Callable[[], None]:
    """A call that runs the case from tensors on the device to one there, and waits for it."""
    session = _session(_graph(case), provider=provider, precision=case.precision)
    binding, device = session.io_binding(), _DEVICES[provider]
    for name, shape in (("x", case.x), ("w", case.w)):
        if shape:  # weights are scaled so that results stay as large as what they are made of
            scale = 1 / math.sqrt(math.prod(shape[1:]) if len(shape) > 2 else shape[0])
            value = _on_device(
                shape, 1.0 if name == "x" else scale, provider=provider, precision=case.precision
            )
            binding.bind_ortvalue_input(name, value)
    binding.bind_output("y", device, 0)

    def run() -> None:
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()

    return run


def _on_device(shape: tuple[int, ...], scale: float, *, provider: str, precision: str) -> Any:
    """Random normal numbers of that scale and precision, made fp32 here and cast on the device."""
    import onnxruntime

    numbers = np.random.default_rng(0).standard_normal(_RANDOM_NUMBERS, dtype=np.float32)
    given = np.resize(scale * numbers, shape)
    device = _DEVICES[provider]
    # Not the session's own output: that lives no longer than the session.
    made = onnxruntime.OrtValue.ortvalue_from_shape_and_type(shape, _kind(precision), device, 0)
    session = _session(_cast(shape, precision=precision), provider=provider, precision="fp32")
    binding = session.io_binding()
    binding.bind_cpu_input("x", given)
    binding.bind_ortvalue_output("y", made)
    binding.synchronize_inputs()
    session.run_with_iobinding(binding)
    binding.synchronize_outputs()
    return made


def _session(graph: bytes, *, provider: str, precision: str) -> Any:
    """The graph on that provider and no other. Raises RuntimeError where it is not there."""
    import onnxruntime

    available = onnxruntime.get_available_providers()
    if provider not in available:
        raise RuntimeError(f"ONNX Runtime has {', '.join(available)} here, and no {provider}")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    # What repeats an operator must not be simplified.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    given: dict[str, str] = {}
    if provider != CPU:
        # Else it falls back without an exception, and a processor would be timed.
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        given = {"device_id": "0", "use_tf32": _TF32.get(precision, "1")}
    return onnxruntime.InferenceSession(graph, options, providers=[(provider, given)])


def _graph(case: Case) -> bytes:
    from onnx import helper

    names = ["x", *(f"y{place}" for place in range(1, case.times)), "y"]
    weights = ["w"] if case.w else []
    nodes = [
        helper.make_node(case.operator, [before, *weights], [after], **case.attributes)
        for before, after in itertools.pairwise(names)
    ]
    kind = _kind(case.precision)
    inputs = {"x": case.x} | ({"w": case.w} if case.w else {})
    return _model(nodes, inputs={name: (kind, shape) for name, shape in inputs.items()}, y=kind)


def _cast(shape: tuple[int, ...], *, precision: str) -> bytes:
    from onnx import TensorProto, helper

    kind = _kind(precision)
    nodes = [helper.make_node("Cast", ["x"], ["y"], to=kind)]
    return _model(nodes, inputs={"x": (TensorProto.FLOAT, shape)}, y=kind)


def _model(nodes: Sequence[Any], *, inputs: Mapping[str, Any], y: int) -> bytes:
    from onnx import helper

    graph = helper.make_graph(
        nodes,
        "probe",
        [helper.make_tensor_value_info(name, *of) for name, of in inputs.items()],
        [helper.make_tensor_value_info("y", y, None)],
    )
    opsets = [helper.make_opsetid("", _OPSET)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION)
    return bytes(model.SerializeToString())


def _kind(precision: str) -> int:
    from onnx import TensorProto

    kinds = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
    return int(kinds.get(precision, TensorProto.FLOAT))


def _load_libraries() -> None:
    """CUDA's and cuDNN's, from the packages that the extra `serve-gpu` installs."""
    import onnxruntime

    onnxruntime.preload_dlls()


if __name__ == "__main__":
    main()
