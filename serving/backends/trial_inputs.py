"""What engines are compared on: a version's golden inputs, where it has them, else random ones."""

import zipfile
from pathlib import Path

import numpy as np

from ridgeline.datatypes import datatype
from ridgeline.model import ModelSpec, TensorSpec

GOLDEN_FILE = "golden.npz"  # as export writes it: arrays `input:<name>`


def trial_inputs(spec: ModelSpec, *, directory: Path, rows: int) -> dict[str, np.ndarray]:
    """So many rows for every input, the same at each call; one sample for a model without batches.

    Shapes must not be free.
    """
    random = np.random.default_rng(0)
    golden = _golden(spec, directory=directory) if spec.batches else {}
    return {
        tensor.name: np.resize(golden[tensor.name], (rows, *tensor.shape))
        if tensor.name in golden
        else _random(tensor, (rows,) if spec.batches else (), random=random)
        for tensor in spec.inputs
    }


def _golden(spec: ModelSpec, *, directory: Path) -> dict[str, np.ndarray]:
    """The golden inputs; none where they do not fit the contract."""
    try:
        with np.load(directory / GOLDEN_FILE) as arrays:
            found = {tensor.name: arrays[f"input:{tensor.name}"] for tensor in spec.inputs}
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return {}
    fits = all(
        found[tensor.name].shape[1:] == tensor.shape
        and found[tensor.name].dtype == datatype(tensor.datatype).numpy
        and len(found[tensor.name])
        for tensor in spec.inputs
    )
    return found if fits else {}


def _random(
    tensor: TensorSpec, batch: tuple[int, ...], *, random: np.random.Generator
) -> np.ndarray:
    shape, dtype = (*batch, *tensor.shape), datatype(tensor.datatype).numpy
    if dtype.kind == "f":
        return random.standard_normal(size=shape).astype(dtype)
    return random.integers(0, 2, size=shape).astype(dtype)
