"""The tensor datatypes of the Open Inference Protocol, and what each is called elsewhere."""

from dataclasses import dataclass

import ml_dtypes
import numpy as np

from ridgeline.errors import InvalidInput


@dataclass(frozen=True)
class Datatype:
    """One datatype of the protocol.

    `numpy` is the array type that holds it (object arrays of bytes for BYTES), `config` the name
    in config.pbtxt, `onnx` the name ONNX Runtime gives to a tensor of it.
    """

    name: str
    numpy: np.dtype
    config: str
    onnx: str

    @property
    def item_bytes(self) -> int:
        """Bytes per element; 0 for BYTES, whose elements vary."""
        return 0 if self.name == "BYTES" else self.numpy.itemsize


def _row(name: str, numpy: object, onnx: str) -> Datatype:
    config = "TYPE_STRING" if name == "BYTES" else f"TYPE_{name}"
    return Datatype(name=name, numpy=np.dtype(numpy), config=config, onnx=f"tensor({onnx})")  # type: ignore[call-overload]


DATATYPES = {
    datatype.name: datatype
    for datatype in (
        _row("BOOL", np.bool_, "bool"),
        _row("UINT8", np.uint8, "uint8"),
        _row("UINT16", np.uint16, "uint16"),
        _row("UINT32", np.uint32, "uint32"),
        _row("UINT64", np.uint64, "uint64"),
        _row("INT8", np.int8, "int8"),
        _row("INT16", np.int16, "int16"),
        _row("INT32", np.int32, "int32"),
        _row("INT64", np.int64, "int64"),
        _row("FP16", np.float16, "float16"),
        _row("FP32", np.float32, "float"),
        _row("FP64", np.float64, "double"),
        _row("BF16", ml_dtypes.bfloat16, "bfloat16"),
        _row("BYTES", np.object_, "string"),
    )
}
_BY_CONFIG = {datatype.config: datatype for datatype in DATATYPES.values()}
_BY_ONNX = {datatype.onnx: datatype for datatype in DATATYPES.values()}
_BY_NUMPY = {datatype.numpy: datatype for datatype in DATATYPES.values()}


def datatype(name: str) -> Datatype:
    """The datatype of that protocol name, for example "FP32". Raises InvalidInput."""
    return _found(DATATYPES, name, "a datatype of the protocol")


def datatype_of_config(name: str) -> Datatype:
    """The datatype of that config.pbtxt name, for example "TYPE_FP32". Raises InvalidInput."""
    return _found(_BY_CONFIG, name, "a datatype of config.pbtxt")


def datatype_of_onnx(name: str) -> Datatype:
    """The datatype of that ONNX Runtime name, for example "tensor(float)". Raises InvalidInput."""
    return _found(_BY_ONNX, name, "a tensor type that the protocol can carry")


def datatype_of_numpy(dtype: np.dtype) -> Datatype:
    """The datatype that arrays of this numpy type carry; text and bytes are BYTES."""
    return (
        DATATYPES["BYTES"]
        if dtype.kind in "OSU"
        else _found(_BY_NUMPY, dtype, "a numpy type that the protocol can carry")
    )


def _found(table: dict, name: object, what: str) -> Datatype:  # type: ignore[type-arg]
    try:
        return table[name]  # type: ignore[no-any-return]
    except KeyError:
        raise InvalidInput(
            f"expected {what}, received {name}; known are {', '.join(map(str, table))}"
        ) from None
