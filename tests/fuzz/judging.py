"""Holds what a codec made of a client's bytes to what it must be: see `expected`."""

import contextlib

import expected
import numpy as np

from ridgeline.errors import RidgelineError

_KINDS = {"INT": "int", "UINT": "uint", "FP": "float", "BF": "bfloat", "BOOL": "bool"}


def refusable(decode):
    """Only a refusal may come out."""
    with contextlib.suppress(RidgelineError):
        decode()


def hold(decode, *, refer):
    """Decode the arrays of a request; what differs from its reference is an AssertionError.

    What must be refused must be, and what is right must not.
    """
    wanted, is_clear = None, True
    try:
        wanted = refer()
    except expected.Wrong:
        pass
    except expected.Unclear:
        is_clear = False
    try:
        arrays = decode()
    except RidgelineError as error:
        if wanted is not None and wanted.is_plain:
            raise AssertionError("what is right was refused") from error
        return
    assert wanted is not None or not is_clear, "what is wrong was accepted"
    if wanted is not None:
        assert list(arrays) == list(wanted.inputs)
        for name, tensor in wanted.inputs.items():
            _hold_array(arrays[name], tensor)


def hold_value(read, *, refer, refusal):
    """The same for a value, which must be equal to its reference."""
    try:
        wanted = refer()
    except expected.Wrong:
        wanted = None
    try:
        found = read()
    except refusal as error:
        if wanted is not None:
            raise AssertionError("what is right was refused") from error
        return
    assert wanted is not None, "what is wrong was accepted"
    assert found == wanted


def _hold_array(array, tensor):
    """To the bit; a NaN may be another one."""
    assert array.shape == tensor.shape, (array.shape, tensor)
    assert array.dtype.name == _numpy_name(tensor.datatype), (array.dtype, tensor)
    if array.dtype == np.object_:
        raw = b"".join(len(each).to_bytes(4, "little") + each for each in array.ravel())
    else:
        raw = array.tobytes()
    if raw != tensor.raw and array.dtype.kind == "f":
        again = np.frombuffer(tensor.raw, array.dtype).reshape(array.shape)
        assert np.array_equal(array, again, equal_nan=True), (array, tensor)
        return
    assert raw == tensor.raw, (array, tensor)


def _numpy_name(datatype):
    kind = datatype.rstrip("0123456789")
    return "object" if kind == "BYTES" else _KINDS[kind] + datatype[len(kind) :]
