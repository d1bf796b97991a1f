"""The form of a network that takes one element of a sequence at a time, and its proof.

A SavedModel may have it as the signature `step`: an input `<state>` is what the output
`next_<state>` was at the element before, `start` tells that there was none, one further input is
the element. The server hands states and `start` over; clients see the rest.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from export.artifact import Artifact
from export.golden import golden_inputs
from export.parity import Run
from export.saved_model import SavedModel
from ridgeline.datatypes import datatype
from ridgeline.errors import InvalidInput, Unsupported
from ridgeline.model import ModelSpec, TensorSpec, config_of

_SIGNATURE, _START, _NEXT = "step", "start", "next_"
_IDLE_US = 60_000_000  # a person may be typing
_MOST_SEQUENCES = 1024  # of each instance; those that only wait hold nothing but their states
_PROVEN_SEQUENCES = 300
_GOLDEN_SEQUENCES = 64


class Step:
    """The signature `step` of an artifact, beside the network as a `whole`.

    Raises Unsupported where there is none, or none that answers what the whole network does.
    """

    def __init__(self, artifact: Artifact, *, whole: SavedModel, name: str) -> None:
        try:
            self.saved = SavedModel(artifact.saved_model, signature=_SIGNATURE)
        except InvalidInput as error:
            raise Unsupported(
                f"{artifact.name!r} has no form for one step at a time, it is served whole: {error}"
            ) from None
        self.name = name
        outputs = {tensor.name for tensor in self.saved.outputs}
        self.states = tuple(t for t in self.saved.inputs if f"{_NEXT}{t.name}" in outputs)
        inputs = [t for t in self.saved.inputs if t not in self.states and t.name != _START]
        self._hidden = {f"{_NEXT}{state.name}" for state in self.states}
        self._outputs = [t for t in self.saved.outputs if t.name not in self._hidden]
        self._shared = {t.name for t in whole.outputs} & {t.name for t in self._outputs}
        starts = [t for t in self.saved.inputs if t.name == _START and t.datatype == "BOOL"]
        fits = len(inputs) == len(whole.inputs) == 1 and _is_element(inputs[0], of=whole.inputs[0])
        if not (self.states and starts and self._shared and fits):
            raise Unsupported(
                f"the signature {_SIGNATURE!r} of {artifact.name!r} needs {_START!r} of BOOL, "
                f"states with an output {_NEXT}<state>, one further input that is an element of "
                f"the whole network's one input, and an output of that network, received "
                f"{[t.name for t in self.saved.inputs]} and {sorted(outputs)}"
            )
        self._element, self._whole = inputs[0], whole

    def spec(self, *, max_batch_size: int) -> ModelSpec:
        """What clients see."""
        return ModelSpec(
            self.name, max_batch_size, (_row(self._element),), tuple(map(_row, self._outputs))
        )

    def answer(self, sequences: Mapping[str, np.ndarray], /) -> None:
        """Note what is right for them: what the network answers as a whole.

        For outputs that the whole network does not have, that is what its step answers.
        """
        whole = self._whole.run(sequences)
        (elements,) = sequences.values()
        steps = self.unrolled(self.saved.run)(sequences)
        lead = elements.shape[:2]
        self._places = {row.tobytes(): number for number, row in enumerate(elements)}
        self._right = {name: a.reshape(*lead, *a.shape[1:]) for name, a in steps.items()}
        self._right |= {name: whole[name] for name in self._shared}

    def reference(self, sequences: Mapping[str, np.ndarray], /) -> dict[str, np.ndarray]:
        """What was noted for each element of each sequence: [sequences * elements, ...]."""
        (elements,) = sequences.values()
        rows = [self._places[row.tobytes()] for row in elements]
        right = {name: array[rows] for name, array in self._right.items()}
        return {name: array.reshape(-1, *array.shape[2:]) for name, array in right.items()}

    def unrolled(self, run: Run, /) -> Run:
        """`run`, which takes a step, over all elements of whole sequences, as in `reference`."""

        def over_all(sequences: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
            (elements,) = sequences.values()
            rows = len(elements)
            states = {state.name: _left_over(state, rows=rows) for state in self.states}
            answers = []
            for place in range(elements.shape[1]):
                element = elements[:, place].reshape(rows, *self._element.shape[1:])
                start = np.full((rows, 1), place == 0)
                answer = run({self._element.name: element, _START: start, **states})
                states = {state.name: answer[f"{_NEXT}{state.name}"] for state in self.states}
                answers.append(answer)
            found = {
                tensor.name: np.stack([answer[tensor.name] for answer in answers], axis=1)
                for tensor in self._outputs
            }
            return {name: array.reshape(-1, *array.shape[2:]) for name, array in found.items()}

        return over_all

    def golden(
        self, sequences: Mapping[str, np.ndarray]
    ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Inputs and outputs to check a version with later: [sequences, elements, ...] of each."""
        (elements,) = sequences.values()
        shape = (*elements.shape[:2], *self._element.shape[1:])
        inputs = {self._element.name: elements.reshape(shape)}
        found = {**inputs, **self._right}
        first = {name: array[:_GOLDEN_SEQUENCES] for name, array in found.items()}
        return {name: first.pop(name) for name in inputs}, first


def sequences_of(artifact: Artifact, *, whole: SavedModel) -> dict[str, np.ndarray]:
    """What the proof runs on: the whole test set if it is not large."""
    few = golden_inputs(artifact, saved=whole)
    return {name: array[:_PROVEN_SEQUENCES] for name, array in (artifact.evaluation or few).items()}


def sequence_config(spec: ModelSpec, *, states: tuple[TensorSpec, ...]) -> Any:
    """A Triton configuration for sequences, whose states (with the batch axis) the server keeps."""
    config = config_of(spec)
    batching = config.sequence_batching  # in place of dynamic batching
    batching.max_sequence_idle_microseconds = _IDLE_US
    batching.oldest.max_candidate_sequences = _MOST_SEQUENCES
    batching.control_input.add(name=_START).control.add(
        kind="CONTROL_SEQUENCE_START", bool_false_true=[False, True]
    )
    for state in config_of(replace(spec, inputs=tuple(map(_row, states)))).input:
        shape = {"data_type": state.data_type, "dims": state.dims}
        names = {"input_name": state.name, "output_name": f"{_NEXT}{state.name}"}
        # Triton begins with whatever its memory holds where nothing else is said.
        batching.state.add(**names, **shape).initial_state.add(
            name=state.name, zero_data=True, **shape
        )
    return config


def _is_element(element: TensorSpec, *, of: TensorSpec) -> bool:
    """Whether [batch, ...] can be one of [batch, elements, ...], with as many numbers."""
    sizes = (math.prod(element.shape[1:]), math.prod(of.shape[2:]))
    return len(of.shape) > 1 and sizes[0] == sizes[1] and element.datatype == of.datatype


def _row(tensor: TensorSpec) -> TensorSpec:
    return replace(tensor, shape=tensor.shape[1:])


def _left_over(state: TensorSpec, *, rows: int) -> np.ndarray:
    """What an earlier sequence may have left at a start: a step that reads it is found out."""
    return np.full((rows, *state.shape[1:]), 7, datatype(state.datatype).numpy)
