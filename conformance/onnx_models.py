"""The graphs of the test repository, as bytes of ONNX files. A text in a shape is a free axis."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from onnx import TensorProto, checker, helper, numpy_helper

ONNX_TYPES = {
    "BOOL": TensorProto.BOOL,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
    "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "FP16": TensorProto.FLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "BF16": TensorProto.BFLOAT16,
    "BYTES": TensorProto.STRING,
}
Axes = tuple[int | str, ...]
_OPSET, _IR_VERSION = 18, 8


def identity(*, datatype: str, shape: Axes, pairs: Mapping[str, str] | None = None) -> bytes:
    """Each output is its input; `pairs` maps input names to output names."""
    pairs = pairs or {"INPUT0": "OUTPUT0"}
    nodes = [helper.make_node("Identity", [given], [made]) for given, made in pairs.items()]
    tensors = dict.fromkeys((*pairs, *pairs.values()), (datatype, shape))
    return model(nodes, inputs=list(pairs), tensors=tensors)


def simple() -> bytes:
    """Triton's classic: OUTPUT0 = INPUT0 + INPUT1, OUTPUT1 = INPUT0 - INPUT1, 16 INT32 a row."""
    nodes = [
        helper.make_node("Add", ["INPUT0", "INPUT1"], ["OUTPUT0"]),
        helper.make_node("Sub", ["INPUT0", "INPUT1"], ["OUTPUT1"]),
    ]
    tensors = dict.fromkeys(_SIMPLE, ("INT32", ("batch", 16)))
    return model(nodes, inputs=["INPUT0", "INPUT1"], tensors=tensors)


def simple_string() -> bytes:
    """The same over numbers written as text."""
    nodes = [
        helper.make_node("Cast", ["INPUT0"], ["a"], to=TensorProto.INT32),
        helper.make_node("Cast", ["INPUT1"], ["b"], to=TensorProto.INT32),
        helper.make_node("Add", ["a", "b"], ["sum"]),
        helper.make_node("Sub", ["a", "b"], ["difference"]),
        helper.make_node("Cast", ["sum"], ["OUTPUT0"], to=TensorProto.STRING),
        helper.make_node("Cast", ["difference"], ["OUTPUT1"], to=TensorProto.STRING),
    ]
    tensors = dict.fromkeys(_SIMPLE, ("BYTES", ("batch", 16)))
    return model(nodes, inputs=["INPUT0", "INPUT1"], tensors=tensors)


def plus(amount: int) -> bytes:
    """OUTPUT0 = INPUT0 + amount: which version answered can be read off."""
    nodes = [helper.make_node("Add", ["INPUT0", "amount"], ["OUTPUT0"])]
    tensors = dict.fromkeys(("INPUT0", "OUTPUT0"), ("FP32", ("batch", "n")))
    weights = {"amount": np.array(amount, dtype=np.float32)}
    return model(nodes, inputs=["INPUT0"], tensors=tensors, weights=weights)


def optional_addend(*, batched: bool = False) -> bytes:
    """OUTPUT0 = INPUT0 + INPUT1; INPUT1 is 100 where it is not given."""
    row: Axes = ("batch", 1) if batched else ("n",)
    nodes = [helper.make_node("Add", ["INPUT0", "INPUT1"], ["OUTPUT0"])]
    tensors: dict[str, tuple[str, Axes]] = {
        "INPUT0": ("FP32", row),
        "INPUT1": ("FP32", ("batch", 1) if batched else (1,)),
        "OUTPUT0": ("FP32", row),
    }
    value = np.full((1, 1) if batched else (1,), 100, dtype=np.float32)
    weights = {"INPUT1": value}
    return model(nodes, inputs=["INPUT0", "INPUT1"], tensors=tensors, weights=weights)


def lookup() -> bytes:
    """OUTPUT0 = (10, 20, 30)[INPUT0]: beyond the table's end the kernel fails while it runs."""
    nodes = [helper.make_node("Gather", ["table", "INPUT0"], ["OUTPUT0"])]
    weights = {"table": np.array([10, 20, 30], dtype=np.float32)}
    tensors: dict[str, tuple[str, Axes]] = {
        "INPUT0": ("INT64", ("batch", 1)),
        "OUTPUT0": ("FP32", ("batch", 1)),
    }
    return model(nodes, inputs=["INPUT0"], tensors=tensors, weights=weights)


def accumulator() -> bytes:
    """OUTPUT = INPUT + the sum so far, which travels from INPUT_STATE to OUTPUT_STATE."""
    nodes = [
        helper.make_node("Cast", ["START"], ["begins"], to=TensorProto.BOOL),
        helper.make_node("Where", ["begins", "zero", "INPUT_STATE"], ["before"]),
        helper.make_node("Add", ["INPUT", "before"], ["OUTPUT"]),
        helper.make_node("Identity", ["OUTPUT"], ["OUTPUT_STATE"]),
    ]
    names = ("INPUT", "START", "INPUT_STATE", "OUTPUT", "OUTPUT_STATE")
    tensors: dict[str, tuple[str, Axes]] = dict.fromkeys(names, ("INT32", ("batch", 1)))
    weights = {"zero": np.array(0, dtype=np.int32)}
    return model(nodes, inputs=list(names[:3]), tensors=tensors, weights=weights)


def slow() -> bytes:
    """OUTPUT0 = INPUT0, by as many products with a unit matrix as the largest number in it."""
    row = helper.make_tensor_value_info("row", TensorProto.FLOAT, None)
    product = helper.make_tensor_value_info("product", TensorProto.FLOAT, None)
    step = helper.make_tensor_value_info("step", TensorProto.INT64, [])
    go_on, going_on = (
        helper.make_tensor_value_info(name, TensorProto.BOOL, []) for name in ("c", "d")
    )
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["row", "unit"], ["product"]),
            helper.make_node("Identity", ["c"], ["d"]),
        ],
        "body",
        [step, go_on, row],
        [going_on, product],
    )
    nodes = [
        helper.make_node("ReduceMax", ["INPUT0"], ["largest"], keepdims=0),
        helper.make_node("Cast", ["largest"], ["times"], to=TensorProto.INT64),
        helper.make_node("Loop", ["times", "", "INPUT0"], ["looped"], body=body),
        helper.make_node("Shape", ["INPUT0"], ["shape"]),
        helper.make_node("Reshape", ["looped", "shape"], ["OUTPUT0"]),
    ]
    tensors: dict[str, tuple[str, Axes]] = dict.fromkeys(
        ("INPUT0", "OUTPUT0"), ("FP32", ("batch", 2))
    )
    weights = {"unit": np.eye(2, dtype=np.float32)}
    return model(nodes, inputs=["INPUT0"], tensors=tensors, weights=weights)


_SIMPLE = ("INPUT0", "INPUT1", "OUTPUT0", "OUTPUT1")


def model(
    nodes: Sequence[Any],
    *,
    inputs: Sequence[str],
    tensors: Mapping[str, tuple[str, Axes]],
    weights: Mapping[str, np.ndarray] | None = None,
) -> bytes:
    """A checked model over the named tensors; those that are no inputs are outputs."""
    infos = {
        name: helper.make_tensor_value_info(name, ONNX_TYPES[datatype], shape)
        for name, (datatype, shape) in tensors.items()
    }
    graph = helper.make_graph(
        list(nodes),
        "graph",
        [infos[name] for name in inputs],
        [info for name, info in infos.items() if name not in inputs],
        [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()],
    )
    made = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION
    )
    checker.check_model(made)
    serialized: bytes = made.SerializeToString()
    return serialized
