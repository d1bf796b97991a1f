"""What NVIDIA's documents promise of its GPUs: beside what is measured, never in its place.

Rates are those of dense products: where a document gives them "with sparsity" alone, half of it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

_TERA, _GIGA = 1e12, 1e9


@dataclass(frozen=True)
class Datasheet:
    """The peaks of a GPU by precision, in operations per second; bytes per second; the document.

    `fp32` is that of ordinary cores, `tf32` that of tensor cores taking fp32 with 10 bits.
    """

    source: str
    memory_bandwidth_bytes_per_s: float
    peaks: Mapping[str, float] = field(default_factory=dict)


def datasheet(name: str, /) -> Datasheet | None:
    """What is promised of the GPU that the driver calls `name`; None where it is not known here."""
    return _SHEETS.get(name.removeprefix("NVIDIA ").removeprefix("Tesla "))


def _sheet(source: str, *, gb_per_s: float, **tera: float) -> Datasheet:
    peaks = {name: rate * _TERA for name, rate in tera.items()}
    if "fp16" in peaks and "tf32" in peaks:  # tensor cores that have TF32 have both at one speed
        peaks["bf16"] = peaks["fp16"]
    return Datasheet(source, gb_per_s * _GIGA, peaks)


_TURING = "NVIDIA Turing GPU Architecture, WP-09183-001"
_VOLTA = "NVIDIA V100 datasheet"
_AMPERE = "NVIDIA A100 datasheet"
_HOPPER = "NVIDIA H100 datasheet"
_A100 = {"fp32": 19.5, "tf32": 156.0, "fp16": 312.0, "int8": 624.0}
_H100 = {"fp32": 67.0, "tf32": 494.5, "fp16": 989.5, "int8": 1979.0}
_SHEETS: Mapping[str, Datasheet] = {
    "T4": _sheet(_TURING, gb_per_s=320, fp32=8.1, fp16=65, int8=130),
    "V100-SXM2-16GB": _sheet(_VOLTA, gb_per_s=900, fp32=15.7, fp16=125),
    "V100-SXM2-32GB": _sheet(_VOLTA, gb_per_s=900, fp32=15.7, fp16=125),
    "V100-PCIE-16GB": _sheet(_VOLTA, gb_per_s=900, fp32=14, fp16=112),
    "A10": _sheet("NVIDIA A10 datasheet", gb_per_s=600, fp32=31.2, tf32=62.5, fp16=125, int8=250),
    "A30": _sheet("NVIDIA A30 datasheet", gb_per_s=933, fp32=10.3, tf32=82, fp16=165, int8=330),
    "A100-SXM4-40GB": _sheet(_AMPERE, gb_per_s=1555, **_A100),
    "A100-PCIE-40GB": _sheet(_AMPERE, gb_per_s=1555, **_A100),
    "A100-SXM4-80GB": _sheet(_AMPERE, gb_per_s=2039, **_A100),
    "A100 80GB PCIe": _sheet(_AMPERE, gb_per_s=1935, **_A100),
    "L4": _sheet("NVIDIA L4 datasheet", gb_per_s=300, fp32=30.3, tf32=60, fp16=121, int8=242.5),
    "L40S": _sheet("NVIDIA L40S datasheet", gb_per_s=864, fp32=91.6, tf32=183, fp16=362, int8=733),
    "H100 80GB HBM3": _sheet(_HOPPER, gb_per_s=3350, **_H100),
    "H100 PCIe": _sheet(_HOPPER, gb_per_s=2000, fp32=51, tf32=378, fp16=756, int8=1513),
    "H200": _sheet("NVIDIA H200 datasheet", gb_per_s=4800, **_H100),
}
