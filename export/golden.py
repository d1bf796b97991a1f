"""Golden inputs: what the proof runs on, and what is kept beside the version to check it later."""

import io
from collections.abc import Mapping

import numpy as np

from export.artifact import Artifact
from export.saved_model import SavedModel
from ridgeline.datatypes import datatype
from ridgeline.errors import InvalidInput
from ridgeline.model import FREE, TensorSpec

_SAMPLES = 64
_FREE_SIZE = 16  # what stands for a free axis in random golden inputs


def golden_inputs(artifact: Artifact, *, saved: SavedModel) -> dict[str, np.ndarray]:
    """The first samples of the test set; without one, seeded random ones.

    Raises InvalidInput where the test set does not fit the signature, or where random values of a
    datatype say nothing.
    """
    if not artifact.evaluation:
        random = np.random.default_rng(0)
        return {tensor.name: _random(tensor, random=random) for tensor in saved.inputs}
    _check_evaluation(artifact, saved=saved)
    return {name: array[:_SAMPLES] for name, array in artifact.evaluation.items()}


def golden_file(inputs: Mapping[str, np.ndarray], *, outputs: Mapping[str, np.ndarray]) -> bytes:
    """An npz of arrays `input:<name>` and `output:<name>`, the outputs as TensorFlow computed."""
    arrays = {f"input:{name}": array for name, array in inputs.items()}
    arrays |= {f"output:{name}": array for name, array in outputs.items()}
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]
    return stream.getvalue()


def _check_evaluation(artifact: Artifact, *, saved: SavedModel) -> None:
    expected = {tensor.name: tensor for tensor in saved.inputs}
    if artifact.evaluation.keys() != expected.keys():
        raise InvalidInput(
            f"the evaluation set has the inputs {sorted(artifact.evaluation)}, "
            f"the SavedModel expects {sorted(expected)}"
        )
    for name, array in artifact.evaluation.items():
        tensor = expected[name]
        fits = len(array.shape) == len(tensor.shape) and all(
            size in (FREE, found) for size, found in zip(tensor.shape, array.shape, strict=True)
        )
        if not fits or array.dtype != datatype(tensor.datatype).numpy:
            raise InvalidInput(
                f"{name!r} of the evaluation set is {array.dtype} {list(array.shape)}, "
                f"the SavedModel expects {tensor.datatype} {list(tensor.shape)}"
            )
    samples = {name: len(array) for name, array in artifact.evaluation.items()}
    labels = artifact.labels
    if labels is not None and (labels.ndim != 1 or labels.dtype.kind not in "iu"):
        raise InvalidInput(
            f"labels of the evaluation set must be one whole number a sample, "
            f"received {labels.dtype} {list(labels.shape)}"
        )
    if labels is not None:
        samples["label"] = len(labels)
    if len(set(samples.values())) != 1 or 0 in samples.values():
        raise InvalidInput(
            f"all arrays of the evaluation set must have equally many samples, received {samples}"
        )


def _random(tensor: TensorSpec, *, random: np.random.Generator) -> np.ndarray:
    sizes = [_FREE_SIZE if size == FREE else size for size in tensor.shape[1:]]
    shape = (_SAMPLES, *sizes)
    dtype = datatype(tensor.datatype).numpy
    if dtype.kind in "iub":
        return random.integers(0, 2, size=shape).astype(dtype)
    if dtype.kind == "f":
        return random.standard_normal(size=shape).astype(dtype)
    raise InvalidInput(f"no golden inputs can be made for {tensor.datatype} input {tensor.name!r}")
