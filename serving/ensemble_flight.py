"""One request on its way through the steps of an ensemble.

A step runs as soon as its tensors are there, those that can side by side, and a tensor is kept no
longer than somebody needs it.
"""

import asyncio
import contextlib
import copy
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence

import numpy as np

from serving.ensemble import Step
from serving.execution import EngineFault
from serving.request import InferRequest, InferResponse, Tensors
from serving.statistics import BatchTimes
from serving.version import ReadyVersion

_NO_TIMES = BatchTimes(0, 0, 0)


class Flight:
    """The tensors of one request to the ensemble `name`, and what its steps have spent so far.

    `wanted` are the tensors that the answer consists of; `model_of` finds the model of a step, and
    may raise. `deadline_ns` is monotonic; None where there is none.
    """

    def __init__(
        self,
        request: InferRequest,
        *,
        name: str,
        wanted: Iterable[str],
        deadline_ns: int | None,
        model_of: Callable[[Step], ReadyVersion],
    ) -> None:
        self._request = request
        self._name = name
        self._wanted = tuple(wanted)
        self._deadline_ns = deadline_ns
        self._model_of = model_of
        self._left: list[Step] = []
        self._uses: Counter[str] = Counter()
        self.tensors = dict(request.inputs)
        self.times = _NO_TIMES

    def branch(self, tensors: Tensors) -> "Flight":
        """The flight from here on with some further tensors; others may branch off, too."""
        branch = copy.copy(self)
        branch.tensors = {**self.tensors, **tensors}
        branch.times = _NO_TIMES
        return branch

    async def run(self, steps: Sequence[Step], *, later: Sequence[Step] = ()) -> None:
        """Run some steps. What `later` ones need is kept for them.

        Raises what a step raises, with the names of ensemble and model; the others are then given
        up.
        """
        self._left = list(steps)
        self._uses = Counter(self._wanted)
        for step in (*steps, *later):
            self._uses.update(step.inputs.values())
        self._drop_unused()
        try:
            async with asyncio.TaskGroup() as group:
                self._start_ready(group)
        except BaseExceptionGroup as several:
            raise several.exceptions[0] from None

    async def answers(self, step: Step) -> AsyncGenerator[Tensors, None]:
        """The tensors of each answer of a step that may give any number of them."""
        with self._named(step):
            model = self._model_of(step)
            request, tracer = self._step_request(step, model), self._request.tracer
            if tracer is None:
                responses = model.scheduler.stream(request)
            else:
                responses = tracer.stream(request, model)
            async with contextlib.aclosing(responses):
                async for response in responses:
                    if response.outputs:  # else it is but the mark of the end
                        yield self._taken(step, response)

    def _start_ready(self, group: asyncio.TaskGroup) -> None:
        for step in tuple(self._left):
            if all(tensor in self.tensors for tensor in step.inputs.values()):
                self._left.remove(step)
                group.create_task(self._run_step(step, group))

    async def _run_step(self, step: Step, group: asyncio.TaskGroup) -> None:
        with self._named(step):
            model = self._model_of(step)
            request = self._step_request(step, model)
            self._uses.subtract(step.inputs.values())
            self._drop_unused()
            tracer = self._request.tracer
            if tracer is None:
                response = await model.scheduler.infer(request)
            else:
                response = await tracer.infer(request, model)
            self.tensors.update(self._taken(step, response))
        self._drop_unused()
        self._start_ready(group)

    def _step_request(self, step: Step, model: ReadyVersion) -> InferRequest:
        """What the model of a step is asked; priority, deadline and parameters travel with it."""
        spec, asked = model.loaded.spec, self._request
        ranks = {tensor.name: len(spec.full_shape(tensor)) for tensor in spec.inputs}
        return InferRequest(
            model_name=step.model,
            model_version=step.version,
            id=asked.id,
            inputs={
                key: of_rank(self.tensors[tensor], ranks.get(key))
                for key, tensor in step.inputs.items()
            },
            outputs=tuple(step.outputs),
            deadline_ns=self._deadline_ns,
            priority=asked.priority,
            timeout_ns=asked.timeout_ns,
            parameters=asked.parameters,
        )

    def _taken(self, step: Step, response: InferResponse) -> Tensors:
        """The ensemble's names for what a step has answered."""
        if response.times is not None:
            self.times += response.times
        missing = [key for key in step.outputs if key not in response.outputs]
        if missing:
            raise EngineFault(f"it gave no output {', '.join(map(repr, missing))}")
        return {tensor: response.outputs[key] for key, tensor in step.outputs.items()}

    def _drop_unused(self) -> None:
        for tensor in [name for name in self.tensors if self._uses[name] <= 0]:
            del self.tensors[tensor]

    @contextlib.contextmanager
    def _named(self, step: Step) -> Iterator[None]:
        """Errors inside tell the ensemble and the model."""
        try:
            yield
        except Exception as error:
            text = str(error)
            named = "" if repr(step.model) in text else f"model {step.model!r}: "
            told = copy.copy(error)
            told.args = (f"in ensemble {self._name!r}, {named}{text}",)
            raise told from error


def of_rank(array: np.ndarray, rank: int | None) -> np.ndarray:
    """The array with so many axes: a batch axis of one row comes or goes where that is all.

    As in Triton, a model with a batch axis may work for one without, sample by sample.
    """
    if rank is None or array.ndim == rank:
        return array
    if array.ndim == rank - 1:
        return array.reshape(1, *array.shape)
    if array.ndim == rank + 1 and array.shape[0] == 1:
        return array.reshape(array.shape[1:])
    return array
