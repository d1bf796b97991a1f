"""The GPUs of this machine: what the driver says of them, and what they were measured to do.

**No GPU was at hand when this was written:** finding them is tested with a driver's answer, and the
measurement (`ridgeline.device_probe`) on a CPU.
"""

import importlib.util
import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ridgeline.datasheets import Datasheet, datasheet
from ridgeline.errors import StepFailed
from ridgeline.hardware_probe import Kernel, output_of
from ridgeline.roof import Roof, better_fields, roof_fields

_LOG = logging.getLogger(__name__)
_PROVIDER = "CUDAExecutionProvider"
_SECONDS = 20.0  # of measuring each
_MIB = 2**20
_QUERY = ("uuid", "memory.total", "driver_version", "name")
_TIMEOUT_S = 30


@dataclass(frozen=True)
class Gpu:
    """One GPU. `name`, `uuid` and `driver` are as nvidia-smi tells them.

    `roof` is what was measured: its peak is that of fp32 as ONNX Runtime computes it unless told
    otherwise, with TF32 where the GPU has it. Where there is none, `problem` says why. `kernels`
    tell fp32 (TF32 off) and tf32 (on) apart. `unsupported` is as in `Hardware`.
    """

    name: str
    uuid: str
    driver: str
    memory_bytes: int
    roof: Roof | None = None
    kernels: tuple[Kernel, ...] = ()
    unsupported: Mapping[str, str] = field(default_factory=dict)
    problem: str | None = None

    @property
    def sheet(self) -> Datasheet | None:
        """What its maker promises, where that is known here."""
        return datasheet(self.name)

    @classmethod
    def from_table(cls, table: Mapping[str, Any]) -> "Gpu":
        """Read back what `dataclasses.asdict` made of one, a datasheet beside it or not.

        Raises KeyError, TypeError or ValueError.
        """
        roof = Roof(**roof_fields(table["roof"])) if table["roof"] else None
        kernels = tuple(Kernel.from_table(row) for row in table["kernels"])
        own = {name: value for name, value in table.items() if name != "datasheet"}
        return cls(**{**own, "roof": roof, "kernels": kernels})


def installed() -> tuple[Gpu, ...]:
    """The GPUs that this process may use, in nvidia-smi's order; none where there is no driver."""
    if shutil.which("nvidia-smi") is None:
        return ()
    words = ["nvidia-smi", f"--query-gpu={','.join(_QUERY)}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(  # noqa: S603 - the driver's own program
            words, capture_output=True, text=True, timeout=_TIMEOUT_S, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        _LOG.warning("nvidia-smi is here, but tells no GPUs: %s", error)
        return ()
    return _visible([_described(line) for line in done.stdout.splitlines() if line.strip()])


def _described(line: str) -> Gpu:
    uuid, memory, driver, name = (part.strip() for part in line.split(",", len(_QUERY) - 1))
    mib = int(memory) if memory.isdecimal() else 0  # "[N/A]" where it is the machine's own
    return Gpu(name=name, uuid=uuid, driver=driver, memory_bytes=mib * _MIB)


def _visible(gpus: list[Gpu]) -> tuple[Gpu, ...]:
    """Those that CUDA_VISIBLE_DEVICES leaves, by number or by the beginning of the uuid."""
    wanted = os.environ.get("CUDA_VISIBLE_DEVICES")
    if wanted is None:
        return tuple(gpus)
    found: list[Gpu] = []
    for word in (word.strip() for word in wanted.split(",")):
        match = [
            gpu
            for place, gpu in enumerate(gpus)
            if word == str(place) or (word and gpu.uuid.startswith(word))
        ]
        if not match:  # as CUDA does: what follows a wrong one is invisible, too
            break
        found += match
    return tuple(found)


def measured(gpu: Gpu) -> Gpu:
    """The GPU with its roof, or with the problem that prevented it."""
    if importlib.util.find_spec("onnxruntime") is None or importlib.util.find_spec("onnx") is None:
        return replace(gpu, problem="onnxruntime-gpu and onnx are not installed")
    words = [sys.executable, "-m", "ridgeline.device_probe", _PROVIDER, str(_SECONDS)]
    # By uuid, since CUDA may number GPUs otherwise than nvidia-smi does.
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": gpu.uuid}
    try:
        text = output_of(words, environment=environment, what=f"the GPU {gpu.name}")
    except StepFailed as error:
        return replace(gpu, problem=str(error))
    return with_rates(gpu, json.loads(text))


def with_rates(gpu: Gpu, rates: Mapping[str, Any]) -> Gpu:
    """The GPU with what `device_probe.measure` found."""
    kernels = tuple(Kernel.from_table(row) for row in rates["kernels"])
    peaks: dict[str, float] = {}
    for row in kernels:
        peaks[row.precision] = max(peaks.get(row.precision, 0.0), row.rate.bound_per_s)
    bandwidth = tuple((int(size), float(rate)) for size, rate in rates["bandwidth"])
    found = replace(gpu, kernels=kernels, unsupported=rates["unsupported"])
    fp32 = max(peaks.pop("fp32", 0.0), peaks.pop("tf32", 0.0))
    if not fp32 or not bandwidth:
        reason = next(iter(rates["unsupported"].values()), "nothing could be measured")
        return replace(found, problem=reason)
    roof = Roof(
        peak_flops_per_s=fp32,
        memory_bandwidth_bytes_per_s=bandwidth[-1][1],
        bandwidth_by_working_set=bandwidth,
        peaks=tuple(peaks.items()),
    )
    return replace(found, roof=roof)


def better(before: tuple[Gpu, ...], after: tuple[Gpu, ...]) -> tuple[Gpu, ...]:
    """Those of `after`, each with the better figure of both measurements."""
    known = {gpu.uuid: gpu for gpu in before}
    return tuple(_better(known.get(gpu.uuid, gpu), gpu) for gpu in after)


def _better(before: Gpu, after: Gpu) -> Gpu:
    one, other = before.roof, after.roof
    if one is None or other is None:
        return before if other is None else after
    if [size for size, _ in one.bandwidth_by_working_set] != [
        size for size, _ in other.bandwidth_by_working_set
    ]:
        return after
    whole = before if one.peak_flops_per_s > other.peak_flops_per_s else after
    return replace(whole, roof=Roof(**better_fields(one, other)))
