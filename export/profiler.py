"""FLOPs as TensorFlow's own profiler counts them, and what explains that ours differ.

The profiler adds up formulas over the operators of a frozen graph. Products that both know count
the same, to the FLOP. What else differs is found here in TensorFlow's graph, not in ONNX:

- the body of a loop counts once at most, however often it runs;
- what has no shape does not count: where the batch is free, what stands in loops and behind;
- `Einsum` has no formula;
- products count on whose result no output depends: Keras tries a recurrent layer on its first step.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import (
    convert_variables_to_constants_v2_as_graph,
)

_DENSE = frozenset({"MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3"})
PRODUCTS = _DENSE | {"Conv2D", "DepthwiseConv2dNative", "Conv2DBackpropInput"}
_LOOP = "/while/"


@dataclass(frozen=True)
class Profiled:
    """FLOPs of one sample: what the profiler counts in `products` and in all the `rest`.

    The others are what has to be added to the products (taken away, where it is negative) to count
    every product that an output depends on, each as often as it runs: in `loops`, those whose
    shapes are `open` until they run, `einsum`, and what is `unused`.
    """

    products: int
    rest: int
    loops: int
    open: int
    einsum: int
    unused: int

    @property
    def explained(self) -> int:
        """The FLOPs of all products of one pass."""
        return self.products + self.loops + self.open + self.einsum + self.unused


def profiled(function: Any, /) -> Profiled:
    """Profile a concrete function for one sample: the first axis of each input is the batch."""
    graph, outputs = _graph(function)
    flops = dict(_flops(graph))
    products = {op: flops.get(op.name, 0) for op in graph.get_operations() if op.type in PRODUCTS}
    needed = _needed(outputs)
    steps = _steps(graph)
    looped = {op: steps[loop] for op in products if op in needed and (loop := _loop_of(op))}
    uncounted = [op for op, n in products.items() if op in needed and not n and op not in looped]
    return Profiled(
        products=sum(products.values()),
        rest=sum(flops.values()) - sum(products.values()),
        loops=sum(
            times * (products[op] or _flops_of_step(op)) - products[op]
            for op, times in looped.items()
        ),
        open=_flops_of_a_run(uncounted, graph=graph),
        einsum=sum(_flops_of_einsum(op) for op in needed if op.type == "Einsum"),
        unused=-sum(count for op, count in products.items() if op not in needed),
    )


def _graph(function: Any) -> tuple[Any, list[Any]]:
    """The function for one sample, its loops among its operators; and what gives its outputs."""
    frozen, definition = convert_variables_to_constants_v2_as_graph(function)
    for node in definition.node:
        if node.op == "Placeholder" and node.attr["shape"].shape.dim:
            node.attr["shape"].shape.dim[0].size = 1
    with tf.Graph().as_default() as graph:
        tf.graph_util.import_graph_def(definition, name="")
    return graph, [graph.get_operation_by_name(tensor.op.name) for tensor in frozen.outputs]


def _flops(graph: Any) -> Iterator[tuple[str, int]]:
    """The operators that the profiler has a formula for, and shapes to use it with."""
    v1 = tf.compat.v1
    builder = v1.profiler.ProfileOptionBuilder
    options = builder(builder.float_operation()).with_empty_output().with_max_depth(10**6).build()
    waiting = [
        v1.profiler.profile(graph=graph, run_meta=v1.RunMetadata(), cmd="graph", options=options)
    ]
    while waiting:
        node = waiting.pop()
        waiting += node.children
        if node.float_ops:
            yield node.name, node.float_ops


def _needed(outputs: Iterable[Any]) -> set[Any]:
    """The operators that outputs depend on."""
    waiting, needed = list(outputs), set[Any]()
    while waiting:
        op = waiting.pop()
        if op not in needed:
            needed.add(op)
            waiting += [tensor.op for tensor in op.inputs]
    return needed


def _loop_of(op: Any) -> str:
    """The loop in whose body the operator stands, by the beginning of its name; else empty."""
    before, found, _ = op.name.partition(_LOOP + "body")
    return before if found else ""


def _steps(graph: Any) -> dict[str, int]:
    """How often each loop runs: the least number that its counters are compared with."""
    limits: dict[str, list[int]] = defaultdict(list)
    for op in graph.get_operations():
        before, found, _ = op.name.partition(_LOOP)
        if found and op.type == "Less":
            limits[before] += [
                int(tf.make_ndarray(source.get_attr("value")))
                for source in map(_source, op.inputs)
                if source.type == "Const"
            ]
    return {loop: min(values) for loop, values in limits.items() if values}


def _source(tensor: Any) -> Any:
    """Where a tensor comes from, through operators that only pass it on."""
    op = tensor.op
    while op.type in ("Enter", "Identity"):
        op = op.inputs[0].op
    return op


def _flops_of_step(op: Any) -> int:
    """A row times a matrix: what a product in a loop does whose input's shape is not known."""
    weights: list[int] = op.inputs[1].shape.as_list()
    return 2 * math.prod(weights)


def _flops_of_a_run(operators: Sequence[Any], *, graph: Any) -> int:
    """What products of two factors do whose shapes are not known: the graph is run to see them."""
    if not operators:
        return 0
    feed = {
        tensor: np.zeros(
            [size or 1 for size in tensor.shape.as_list()], tensor.dtype.as_numpy_dtype
        )
        for op in graph.get_operations()
        if op.type == "Placeholder"
        for tensor in op.outputs
    }
    # Of factors, the first has the axis that is summed over last, as Keras writes them.
    wanted = [(op.inputs[0], op.outputs[0]) for op in operators]
    with tf.compat.v1.Session(graph=graph) as session:
        found = session.run(wanted, feed)
    return sum(2 * product.size * first.shape[-1] for first, product in found)


def _flops_of_einsum(op: Any) -> int:
    """Two FLOPs for each choice of all indices."""
    terms = op.get_attr("equation").decode().split("->")[0].split(",")
    sizes: dict[str, int] = {}
    for term, tensor in zip(terms, op.inputs, strict=True):
        sizes |= dict(zip(term, tensor.shape.as_list(), strict=True))
    return 2 * math.prod(sizes.values())
