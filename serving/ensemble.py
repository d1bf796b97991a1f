"""The plan of an ensemble: which models run, and which tensor goes from where to where.

    input_map  { key: what the model calls its input,  value: the ensemble's tensor }
    output_map { key: what the model calls its output, value: the ensemble's tensor }

The texts of refusals are Triton's where it has one.
"""

import graphlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from tritonclient.grpc import model_config_pb2

from ridgeline.errors import InvalidInput, NotFound, Unavailable, Unsupported
from ridgeline.model import FREE, ModelSpec, TensorSpec
from serving.version import Find, ReadyVersion


@dataclass(frozen=True)
class Step:
    """One model of an ensemble; an empty `version` asks for the newest.

    `inputs` and `outputs` map the model's names to the ensemble's tensors.
    """

    model: str
    version: str
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]


@dataclass(frozen=True)
class Plan:
    """The steps of an ensemble, each behind those whose tensors it needs."""

    steps: tuple[Step, ...]
    _needed: dict[tuple[str, ...], tuple[Step, ...]] = field(default_factory=dict, repr=False)

    @property
    def models(self) -> tuple[str, ...]:
        """The names of the models, each once."""
        return tuple(dict.fromkeys(step.model for step in self.steps))

    def needed_for(self, tensors: tuple[str, ...]) -> tuple[Step, ...]:
        """The steps that these tensors of the ensemble depend on, in order."""
        steps = self._needed.get(tensors)
        if steps is None:
            wanted, found = set(tensors), []
            for step in reversed(self.steps):
                if not wanted.isdisjoint(step.outputs.values()):
                    wanted.update(step.inputs.values())
                    found.append(step)
            steps = self._needed[tensors] = tuple(reversed(found))
        return steps


def plan_of(config: model_config_pb2.ModelConfig, *, spec: ModelSpec) -> Plan:
    """The plan that a configuration describes.

    Raises InvalidInput where a tensor comes from nowhere, from two steps, or from itself, or where
    nobody uses it.
    """
    name = config.name
    given = config.ensemble_scheduling.step
    if not given:
        raise InvalidInput(f"must specify 'step' for ensemble {name!r}")
    steps = [_step(step, number=number, name=name) for number, step in enumerate(given)]
    inputs = {tensor.name for tensor in spec.inputs}
    outputs = {tensor.name for tensor in spec.outputs}
    _check_tensors(steps, inputs=inputs, outputs=outputs, name=name)
    return Plan(_in_order(steps, name=name))


def _step(step: model_config_pb2.ModelEnsembling.Step, *, number: int, name: str) -> Step:
    for part in ("model_name", "input_map", "output_map"):
        if not getattr(step, part):
            raise InvalidInput(f"must specify {part!r} in step {number} of ensemble {name!r}")
    if step.model_namespace:
        raise Unsupported(
            f"step {number} of ensemble {name!r} names a namespace: there is one only"
        )
    if step.model_version < -1:
        raise InvalidInput(
            f"model_version in step {number} of ensemble {name!r} must be a version, or -1 for the "
            f"newest, received {step.model_version}"
        )
    return Step(
        model=step.model_name,
        version="" if step.model_version == -1 else str(step.model_version),
        inputs=dict(sorted(step.input_map.items())),
        outputs=dict(sorted(step.output_map.items())),
    )


def _check_tensors(steps: list[Step], *, inputs: set[str], outputs: set[str], name: str) -> None:
    made = Counter(tensor for step in steps for tensor in step.outputs.values())
    used = {tensor for step in steps for tensor in step.inputs.values()}
    for tensor, times in made.items():
        if times > 1:
            raise InvalidInput(
                f"ensemble tensor {tensor!r} can appear in an output map only once "
                f"for ensemble {name!r}"
            )
        if tensor in inputs:
            raise InvalidInput(
                f"ensemble tensor {tensor!r} is an input of ensemble {name!r}: "
                "no step can write to it"
            )
        if tensor not in used and tensor not in outputs:
            raise InvalidInput(f"ensemble tensor {tensor!r} is unused in ensemble {name!r}")
    for tensor in sorted(used - made.keys() - inputs):
        raise InvalidInput(
            f"ensemble tensor {tensor!r} is neither an input of ensemble {name!r} "
            "nor made by one of its steps"
        )
    for tensor in sorted(inputs - used):
        raise InvalidInput(f"ensemble input {tensor!r} for ensemble {name!r} is not used")
    for tensor in sorted(outputs - made.keys() - inputs):
        raise InvalidInput(
            f"ensemble output {tensor!r} for ensemble {name!r} is not made by any step"
        )


def _in_order(steps: list[Step], *, name: str) -> tuple[Step, ...]:
    maker = {tensor: at for at, step in enumerate(steps) for tensor in step.outputs.values()}
    before = {
        at: {maker[tensor] for tensor in step.inputs.values() if tensor in maker}
        for at, step in enumerate(steps)
    }
    try:
        return tuple(steps[at] for at in graphlib.TopologicalSorter(before).static_order())
    except graphlib.CycleError as error:
        circle = " -> ".join(f"{steps[at].model} (step {at})" for at in error.args[1])
        raise InvalidInput(f"the steps of ensemble {name!r} form a cycle: {circle}") from None


def found(step: Step, *, name: str, find: Find) -> ReadyVersion:
    """The model of a step. Raises Unavailable, and why, where it cannot answer."""
    try:
        return find(step.model, version=step.version)
    except NotFound as error:
        raise Unavailable(
            f"ensemble {name!r} contains models that are not available: {error}"
        ) from None
    except Unavailable as error:
        raise Unavailable(
            f"ensemble {name!r} depends on {step.model!r} which has no loaded version: {error}",
            retry_after_ns=error.retry_after_ns,
        ) from None


def check_models(plan: Plan, models: Iterable[ReadyVersion], *, spec: ModelSpec) -> None:
    """Compare what the models of a plan take and give, step by step.

    Raises InvalidInput where a name, a type, a shape or a batch size does not fit.
    """
    tensors = {tensor.name: (spec, tensor) for tensor in (*spec.inputs, *spec.outputs)}
    for step, model in zip(plan.steps, models, strict=True):
        theirs = model.loaded.spec
        if 0 < theirs.max_batch_size < spec.max_batch_size:
            raise InvalidInput(
                f"ensemble {spec.name} allows maximum batch size {spec.max_batch_size}, but it "
                f"contains model {theirs.name} which only allows maximum batch size to be "
                f"{theirs.max_batch_size}"
            )
        for names, specs, how in (
            (step.inputs, theirs.inputs, "to non-existing input"),
            (step.outputs, theirs.outputs, "from non-existing output"),
        ):
            by_name = {tensor.name: tensor for tensor in specs}
            for key, tensor in names.items():
                if key not in by_name:
                    raise InvalidInput(
                        f"in ensemble {spec.name}, ensemble tensor {tensor} is mapping {how} "
                        f"{key} in model {theirs.name}"
                    )
                one = tensors.setdefault(tensor, (theirs, by_name[key]))
                _check_same(one, (theirs, by_name[key]), tensor=tensor, name=spec.name)
        _check_inputs(step, model, name=spec.name)


def _check_inputs(step: Step, model: ReadyVersion, *, name: str) -> None:
    for tensor in model.loaded.config.input:
        if tensor.name not in step.inputs and not tensor.optional:
            raise InvalidInput(
                f"in ensemble {name}, the required input {tensor.name} of model {step.model} "
                "has no ensemble tensor"
            )


def _check_same(
    one: tuple[ModelSpec, TensorSpec],
    other: tuple[ModelSpec, TensorSpec],
    *,
    tensor: str,
    name: str,
) -> None:
    """A tensor must be the same for those who make it and those who use it."""
    if one[1].datatype != other[1].datatype:
        raise InvalidInput(
            f"in ensemble {name}, ensemble tensor {tensor}: inconsistent data type: "
            f"{one[1].datatype} is inferred from model {one[0].name} while "
            f"{other[1].datatype} is inferred from model {other[0].name}"
        )
    shape, others = one[0].full_shape(one[1]), other[0].full_shape(other[1])
    if not _may_agree(shape, others):
        raise InvalidInput(
            f"in ensemble {name}, ensemble tensor {tensor}: inconsistent shape: {list(shape)} "
            f"is inferred from model {one[0].name} while {list(others)} is inferred from model "
            f"{other[0].name}"
        )


def _may_agree(shape: tuple[int, ...], others: tuple[int, ...]) -> bool:
    """Whether some array has both shapes; one of them may lack a batch axis of one row."""
    if abs(len(shape) - len(others)) == 1:
        longer, shorter = sorted((shape, others), key=len, reverse=True)
        return longer[0] in (FREE, 1) and _may_agree(longer[1:], shorter)
    return len(shape) == len(others) and all(
        FREE in pair or pair[0] == pair[1] for pair in zip(shape, others, strict=True)
    )
