"""A signature of a SavedModel, to run and to convert. Loads TensorFlow."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from ridgeline.datatypes import datatype_of_numpy
from ridgeline.errors import CorruptData, InvalidInput
from ridgeline.model import FREE, TensorSpec

_SIGNATURE = "serving_default"


class SavedModel:
    """One signature: `inputs` and `outputs` with the batch axis, by rising name.

    Raises CorruptData where the folder cannot be loaded, InvalidInput where the signature is
    missing or the first axis of a tensor is not free.
    """

    def __init__(self, path: Path, *, signature: str = _SIGNATURE) -> None:
        try:
            self._loaded = tf.saved_model.load(str(path))  # held: the signature needs its variables
        except (OSError, ValueError) as error:
            raise CorruptData(f"{path} cannot be loaded as a SavedModel: {error}") from error
        if signature not in self._loaded.signatures:
            raise InvalidInput(
                f"{path} needs the signature {signature!r}, "
                f"found {', '.join(self._loaded.signatures) or 'none'}"
            )
        self._function = self._loaded.signatures[signature]
        self.input_specs = self._function.structured_input_signature[1]
        self.inputs = _specs(self.input_specs, path=path)
        self.outputs = _specs(self._function.structured_outputs, path=path)

    def run(self, inputs: Mapping[str, np.ndarray], /) -> dict[str, np.ndarray]:
        """The outputs by name, computed by TensorFlow."""
        outputs = self._function(**{name: tf.constant(array) for name, array in inputs.items()})
        return {name: tensor.numpy() for name, tensor in outputs.items()}

    def positional(self) -> Any:
        """A concrete function from the inputs to the outputs, both in order."""
        names = [spec.name for spec in self.inputs]
        signature = [
            tf.TensorSpec(self.input_specs[name].shape, self.input_specs[name].dtype, name=name)
            for name in names
        ]

        @tf.function(input_signature=signature)  # type: ignore[untyped-decorator]
        def function(*tensors: Any) -> Any:
            outputs = self._function(**dict(zip(names, tensors, strict=True)))
            return [outputs[spec.name] for spec in self.outputs]

        return function.get_concrete_function()


def _specs(tensors: Mapping[str, Any], *, path: Path) -> tuple[TensorSpec, ...]:
    specs = []
    for name, tensor in sorted(tensors.items()):
        shape = tensor.shape.as_list() if tensor.shape.rank is not None else []
        if not shape or shape[0] is not None:
            raise InvalidInput(
                f"{path}: the first axis of {name!r} must be free, for batches; received {shape}"
            )
        specs.append(
            TensorSpec(
                name=name,
                datatype=datatype_of_numpy(np.dtype(tensor.dtype.as_numpy_dtype)).name,
                shape=tuple(FREE if size is None else size for size in shape),
            )
        )
    return tuple(specs)
