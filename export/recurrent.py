"""Loops that are an LSTM or a GRU become the operator of that name.

tf2onnx writes Keras' recurrent layers as a Loop over an ordinary body, unless it is one of the few
forms it knows: slow, and of no cost that could be counted. Here the parts of such a body are told
by what they are to each other: two products, one with a slice of the input, one with a state, give
the gates. What they suggest is then tried: the operator takes the Loop's place only where both
answer the same on random input. Masks of any form are allowed: the steps that count are moved to
the front, where the operator is told how many there are.
"""

import functools
import itertools
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from export.weights import names_read, set_initializers

logger = logging.getLogger(__name__)

_ROWS, _FEW_STEPS, _TOLERANCE = 3, 5, 1e-5
_GATES, _STATES = {"LSTM": 4, "GRU": 3}, {"LSTM": 2, "GRU": 1}
_HOLDS = {False: (True,), True: (True, False)}  # by whether there is a mask
# From Keras' order of the gates to ONNX': i f c o -> i o f c, and z r h as it is.
_ORDER = {"LSTM": (0, 3, 1, 2), "GRU": (0, 1, 2)}


@dataclass(frozen=True)
class _Layer:
    """What a Loop may be, by the names around it; weights as ONNX orders them.

    `states` gives, for each state, its value before the first step and the Loop's output that holds
    it after the last one; `outputs` is the Loop's output of every step. Where a step does not count
    a masked layer gives its last answer again, `before` until there is one; or zeros, where
    `holds` is false.
    """

    operator: str
    name: str
    input: str
    mask: str | None
    before: str | None
    states: tuple[tuple[str, str], ...]
    outputs: str
    weights: Mapping[str, np.ndarray]
    linear_before_reset: int
    holds: bool
    steps: int | None  # where that is known

    @property
    def units(self) -> int:
        """The size of a state."""
        return int(self.weights["R"].shape[2])

    @property
    def width(self) -> int:
        """The size of the input."""
        return int(self.weights["W"].shape[2])


Replacement = tuple[list[onnx.NodeProto], dict[str, np.ndarray]]  # nodes, and their constants


def use_operators(model: onnx.ModelProto) -> None:
    """Replace the Loops of the graph that are recurrent layers."""
    graph = model.graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    read = {name for node in graph.node for name in node.input}
    read |= {tensor.name for tensor in graph.output}
    zeros = {name for node in graph.node if _is_zero(node, constants) for name in node.output}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        found = _replacement(node, constants, model=model, read=read, zeros=zeros)
        made, more = found or ([node], {})
        nodes += made
        constants |= more
    del graph.node[:]
    graph.node.extend(_needed(nodes, outputs={tensor.name for tensor in graph.output}))
    set_initializers(graph, constants)


def _needed(nodes: Sequence[onnx.NodeProto], *, outputs: set[str]) -> list[onnx.NodeProto]:
    """Those on whose answers the outputs depend; Keras tries a masked layer on its first step."""
    wanted, kept = set(outputs), []
    for node in reversed(nodes):  # whoever reads a tensor stands behind its maker
        if wanted.intersection(node.output):
            alone = onnx.GraphProto(node=[node])
            wanted |= names_read(alone)
            kept.append(node)
    return kept[::-1]


def _is_zero(node: onnx.NodeProto, constants: Mapping[str, np.ndarray]) -> bool:
    """Whether the node makes a tensor of zeros."""
    if node.op_type == "ConstantOfShape":
        return not any(numpy_helper.to_array(a.t).any() for a in node.attribute)
    return node.op_type == "Expand" and not constants.get(node.input[0], np.ones(1)).any()


def _replacement(
    node: onnx.NodeProto,
    constants: Mapping[str, np.ndarray],
    *,
    model: onnx.ModelProto,
    read: set[str],
    zeros: set[str],
) -> Replacement | None:
    """What answers as the Loop does; None where the node is none, or nothing was found."""
    if node.op_type != "Loop":
        return None
    for layer in _guesses(node, constants):
        made = _written(layer)
        given = {name for one in made[0] for name in one.output}
        if layer.before in (None, *zeros) and not (read & set(node.output)) - given:
            wanted = sorted(read & set(node.output))
            if _same(layer, node, made, wanted=wanted, constants=constants, model=model):
                return made
    logger.warning("%s stays a loop: it is no recurrent layer known here", node.name)
    return None


def _guesses(loop: onnx.NodeProto, constants: Mapping[str, np.ndarray]) -> Iterator[_Layer]:
    """The layers that a Loop may be."""
    body = _Body(loop, constants)
    for of_input, of_state in body.pairs_of_products():
        kernel, recurrent = body.constant(of_input.input[1]), body.constant(of_state.input[1])
        sequence = body.sliced(of_input.input[0])
        if kernel is None or recurrent is None or sequence is None:
            continue
        operator = next(
            (o for o, n in _GATES.items() if n * len(recurrent) == len(recurrent.T)), ""
        )
        if not operator or kernel.shape[1] != recurrent.shape[1]:
            continue
        states, before = body.states(first=of_state.input[0], count=_STATES[operator])
        mask = body.mask(sequence)
        forms = body.biases(recurrent.shape[1], operator=operator)
        for (biases, linear_before_reset), holds in itertools.product(forms, _HOLDS[bool(mask)]):
            yield _Layer(
                operator=operator,
                name=loop.name or loop.output[-1],
                input=sequence,
                mask=mask,
                before=before,
                states=states,
                outputs=loop.output[-1],
                weights=_ordered(kernel, recurrent, biases, operator=operator),
                linear_before_reset=linear_before_reset,
                holds=holds,
                steps=_steps(loop, constants),
            )


def _steps(loop: onnx.NodeProto, constants: Mapping[str, np.ndarray]) -> int | None:
    return int(constants[loop.input[0]]) if loop.input[0] in constants else None


def _ordered(
    kernel: np.ndarray, recurrent: np.ndarray, biases: np.ndarray, *, operator: str
) -> dict[str, np.ndarray]:
    """Keras' matrices [input, gates x units] and biases [2, gates x units] as ONNX has them."""

    def gates(array: np.ndarray) -> np.ndarray:
        parts = np.split(array, _GATES[operator], axis=-1)
        return np.concatenate([parts[place] for place in _ORDER[operator]], axis=-1)

    return {
        "W": np.ascontiguousarray(gates(kernel).T)[np.newaxis],
        "R": np.ascontiguousarray(gates(recurrent).T)[np.newaxis],
        "B": gates(biases).reshape(1, -1),
    }


class _Body:
    """What the body of a Loop reads and makes, as it looks from around it."""

    def __init__(self, loop: onnx.NodeProto, constants: Mapping[str, np.ndarray]) -> None:
        self._graph = helper.get_node_attr_value(loop, "body")
        self._inner = {name for node in self._graph.node for name in node.output}
        self._inner |= {tensor.name for tensor in self._graph.input}
        self._makers = {name: node for node in self._graph.node for name in node.output}
        ends = zip(self._graph.input[2:], self._graph.output[1:], strict=False)
        self._carried = [
            (inner.name, after.name, outer, last)
            for (inner, after), outer, last in zip(ends, loop.input[2:], loop.output, strict=False)
        ]
        read = {name for node in self._graph.node for name in node.input}
        self._constants = {name: constants[name] for name in read if name in constants}
        for tensor in self._graph.initializer:
            self._constants[tensor.name] = numpy_helper.to_array(tensor)
        for inner, after, outer, _ in self._carried:
            if inner == after and outer in constants:
                self._constants[inner] = constants[outer]

    def constant(self, name: str) -> np.ndarray | None:
        """A constant matrix, by its name in the body."""
        found = self._constants.get(name)
        return found if found is not None and found.ndim == 2 else None

    def pairs_of_products(self) -> Iterator[tuple[onnx.NodeProto, onnx.NodeProto]]:
        """Every product, with every product of what is carried from step to step."""
        carried = {inner for inner, *_ in self._carried}
        for first, second in itertools.permutations(self._products(), 2):
            if second.input[0] in carried:
                yield first, second

    def sliced(self, name: str) -> str | None:
        """The tensor around the Loop of which the body reads one step, where `name` is that."""
        maker = self._makers.get(name)
        if maker is None or maker.op_type != "Gather" or maker.input[0] in self._inner:
            return None
        return str(maker.input[0])

    def mask(self, sequence: str) -> str | None:
        """What else than `sequence` is read step by step."""
        sliced = (self.sliced(name) for name in self._makers)
        return next((name for name in sliced if name not in (None, sequence)), None)

    def states(self, *, first: str, count: int) -> tuple[tuple[tuple[str, str], ...], str | None]:
        """The states, `first` in front, and what a masked layer gives before its first step.

        A masked layer carries its last output along, in front of the states; no product reads it.
        """
        multiplied = {node.input[0] for node in self._products()}
        changing = [one for one in self._carried if one[0] != one[1] and not self._counts(one[0])]
        before = next((one for one in changing if one[0] not in multiplied), None)
        if len(changing) <= count:
            before = None
        states = sorted((one for one in changing if one != before), key=lambda one: one[0] != first)
        return tuple((outer, last) for _, _, outer, last in states), before and before[2]

    def biases(self, size: int, *, operator: str) -> Iterator[tuple[np.ndarray, int]]:
        """What it may have: biases [2, size] of input and state, and the GRU's form of these."""
        floats = [a for a in self._constants.values() if a.dtype == np.float32]
        nothing = np.zeros(size, np.float32)
        rows = [a.reshape(size) for a in floats if a.size == size and a.ndim <= 2]
        for row in (*rows, nothing):
            yield np.stack([row, nothing]), 0
        if operator == "GRU":
            yield from ((array, 1) for array in floats if array.shape == (2, size))
            yield from (
                (np.stack(pair), 1) for pair in itertools.product((*rows, nothing), repeat=2)
            )

    def _products(self) -> list[onnx.NodeProto]:
        return [node for node in self._graph.node if node.op_type == "MatMul"]

    def _counts(self, name: str) -> bool:
        """Whether the carried tensor is the number of the step: a whole number."""
        kinds = {tensor.name: tensor.type.tensor_type.elem_type for tensor in self._graph.input}
        return bool(kinds[name] != TensorProto.FLOAT)


def _written(layer: _Layer) -> Replacement:
    """The operator, and around it what takes masked steps out and puts them in again."""
    part = functools.partial("{}_{}".format, layer.name)
    constants = {part(name): array for name, array in layer.weights.items()}
    constants |= {part("first"): np.array([0]), part("second"): np.array([1])}
    nodes = [
        helper.make_node("Unsqueeze", [before, part("first")], [part(f"initial{place}")])
        for place, (before, _) in enumerate(layer.states)
    ]
    sequence, count = layer.input, ""
    if layer.mask:
        front, more = _to_the_front(layer, part=part)
        sequence, count = part("front"), part("count")
        nodes += front
        constants |= more
    inputs = [sequence, *(part(name) for name in ("W", "R", "B")), count]
    inputs += [part(f"initial{place}") for place in range(len(layer.states))]
    outputs = [part("Y"), *(part(f"last{place}") for place in range(len(layer.states)))]
    form = {"linear_before_reset": layer.linear_before_reset} if layer.operator == "GRU" else {}
    nodes.append(
        helper.make_node(
            layer.operator, inputs, outputs, name=layer.name, hidden_size=layer.units, **form
        )
    )
    every = part("every") if layer.mask else layer.outputs
    nodes.append(helper.make_node("Squeeze", [part("Y"), part("second")], [every]))
    if layer.mask:
        return [*nodes, *_held(layer, part=part)], constants
    nodes += [
        helper.make_node("Squeeze", [part(f"last{place}"), part("first")], [last])
        for place, (_, last) in enumerate(layer.states)
    ]
    return nodes, constants


Namer = Callable[[str], str]


def _to_the_front(layer: _Layer, *, part: Namer) -> Replacement:
    """The steps that count, in their order and before all others, and how many there are."""

    def node(operator: str, inputs: Sequence[str], output: str, **form: Any) -> onnx.NodeProto:
        return helper.make_node(operator, [*map(part, inputs)], [part(output)], **form)

    constants = {
        part("zero"): np.array(0),
        part("one"): np.array(1),
        part("last_axes"): np.array([1, 2]),
        part("outer_axes"): np.array([0, 2]),
        part("nothing"): np.array(0, np.float32),
    }
    mask, sequence = str(layer.mask), layer.input
    steps = [helper.make_node("Shape", [mask], [part("steps")], start=0, end=1)]
    if layer.steps:  # told where it is known: shapes cannot be inferred otherwise
        constants[part("steps")], steps = np.array([layer.steps]), []
    nodes = [
        helper.make_node("Cast", [mask], [part("counts")], to=TensorProto.INT64),
        helper.make_node("Shape", [sequence], [part("sizes")]),
        *steps,
        node("Squeeze", ["steps"], "many"),
        node("Range", ["zero", "many", "one"], "range"),
        node("Unsqueeze", ["range", "last_axes"], "places"),
        # Those that count get their place less the number of steps, and so come first.
        node("Mul", ["counts", "steps"], "bonus"),
        node("Sub", ["bonus", "places"], "rank"),
        helper.make_node("TopK", [part("rank"), part("steps")], [part("_"), part("order")], axis=0),
        node("Expand", ["order", "sizes"], "wide_order"),
        helper.make_node("GatherElements", [sequence, part("wide_order")], [part("front")], axis=0),
        node("ReduceSum", ["counts", "outer_axes"], "total", keepdims=0),
        node("Cast", ["total"], "count", to=TensorProto.INT32),
    ]
    return nodes, constants


def _held(layer: _Layer, *, part: Namer) -> list[onnx.NodeProto]:
    """For every step, what the last one that counted gave; zeros where there is no such."""

    def node(operator: str, inputs: Sequence[str], output: str, **form: Any) -> onnx.NodeProto:
        return helper.make_node(operator, [*map(part, inputs)], [part(output)], **form)

    return [
        node("CumSum", ["counts", "zero"], "passed"),
        node("Sub", ["passed", "one"], "latest"),
        node("Max", ["latest", "zero"], "held"),
        node("Shape", ["every"], "answers"),
        node("Expand", ["held", "answers"], "wide_held"),
        node("GatherElements", ["every", "wide_held"], "held_answers", axis=0),
        node("Greater", ["passed" if layer.holds else "counts", "zero"], "begun"),
        helper.make_node(
            "Where", [part("begun"), part("held_answers"), part("nothing")], [layer.outputs]
        ),
    ]


def _same(
    layer: _Layer,
    loop: onnx.NodeProto,
    made: Replacement,
    *,
    wanted: Sequence[str],
    constants: Mapping[str, np.ndarray],
    model: onnx.ModelProto,
) -> bool:
    """Whether both give the same, on random input with random masks; one row has no step at all."""
    random = np.random.default_rng(0)
    steps = layer.steps or _FEW_STEPS
    feed: dict[str, np.ndarray] = {
        layer.input: random.standard_normal((steps, _ROWS, layer.width), np.float32)
    }
    for before, _ in layer.states:
        feed[before] = random.standard_normal((_ROWS, layer.units), np.float32)
    if layer.before:
        feed[layer.before] = np.zeros((_ROWS, layer.units), np.float32)
    if layer.mask:
        feed[layer.mask] = random.random((steps, _ROWS, 1)) < np.array([0.5, 1, 0])[:, np.newaxis]
    if layer.steps is None:
        feed |= {loop.input[0]: np.array(steps), loop.input[1]: np.array(True)}
    feed = {name: array for name, array in feed.items() if name not in constants}
    try:
        expected = _run([loop], feed, wanted=wanted, constants=constants, model=model)
        found = _run(made[0], feed, wanted=wanted, constants=made[1], model=model)
    except Exception as error:  # noqa: BLE001  # onnxruntime's errors share no base
        logger.debug("%s cannot be compared with %s: %s", layer.name, layer.operator, error)
        return False
    return all(
        one.shape == other.shape and np.allclose(one, other, rtol=0, atol=_TOLERANCE)
        for one, other in zip(expected, found, strict=True)
    )


def _run(
    nodes: Sequence[onnx.NodeProto],
    feed: Mapping[str, np.ndarray],
    *,
    wanted: Sequence[str],
    constants: Mapping[str, np.ndarray],
    model: onnx.ModelProto,
) -> list[np.ndarray]:
    """The tensors `wanted` that these nodes give, run alone."""
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
        for name, a in feed.items()
    ]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in wanted]
    graph = helper.make_graph(nodes, "alone", inputs, outputs)
    set_initializers(graph, constants)
    alone = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    session = onnxruntime.InferenceSession(alone.SerializeToString())
    read = {tensor.name for tensor in session.get_inputs()}
    answer: list[np.ndarray] = session.run(
        list(wanted), {name: array for name, array in feed.items() if name in read}
    )
    return answer
