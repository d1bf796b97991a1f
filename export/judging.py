"""What the test set shows of a graph, and whether another one keeps enough of that."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from export.artifact import Artifact
from export.parity import Accuracy, Run, accuracy, answers
from ridgeline import measures
from ridgeline.errors import InvalidInput, ParityFailed, TargetMissed

_BATCH = 500
_NEAR = 1e-3  # of a measure: a rounding may decide a few of the answers that stand on an edge
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Judgement:
    """The `measures` of the task; of classification also how many answers were right."""

    measures: Mapping[str, float]
    accuracy: Accuracy | None = None


@dataclass(frozen=True)
class Verdict:
    """What a variant shows beside the full graph, of which it must keep the least share.

    Shares are of `ridgeline.measures.quality`, where more is always better.
    """

    full: Judgement
    found: Judgement
    least_share: float

    @property
    def lost(self) -> list[str]:
        """The measures of which less than the least share is left; NaN is less than anything."""
        return [
            name
            for name, value in self.full.measures.items()
            if not measures.quality(name, self.found.measures[name])
            >= self.least_share * measures.quality(name, value) - _ROUNDING
        ]

    def check(self, *, variant: str) -> None:
        """Raises TargetMissed where the variant has lost too much."""
        if name := next(iter(self.lost), None):
            told, full = (j.measures[name] for j in (self.found, self.full))
            raise TargetMissed(
                f"{variant} shows {name.replace('_', ' ')} {told:.2%} on the test set, the full "
                f"graph {full:.2%}: it keeps less than {self.least_share:.1%} of that, so it is "
                "not published"
            )


def judge(run: Run, *, artifact: Artifact, outputs: Sequence[str]) -> Judgement | None:
    """Answer the whole test set; None where the artifact does not know the right answers.

    Raises InvalidInput where answers and truth do not fit.
    """
    if artifact.labels is not None:
        return _of(_right(run, artifact=artifact, outputs=outputs))
    if not artifact.truth:
        return None
    samples = {name: len(array) for name, array in artifact.evaluation.items()}
    samples |= {f"truth:{name}": len(array) for name, array in artifact.truth.items()}
    if len(set(samples.values())) != 1:
        raise InvalidInput(f"the test set and its truth must be equally long, received {samples}")
    told = answers(run, inputs=artifact.evaluation, batch_size=_BATCH)
    return Judgement(measures.measure(artifact.task, answers=told, truth=artifact.truth))


def judge_export(
    trained: Run, exported: Run, *, artifact: Artifact, outputs: Sequence[str]
) -> dict[str, Judgement]:
    """What the test set shows before and after the export. Raises ParityFailed where that differs.

    Right classes must be equally many; other measures near those that training found.
    """
    if artifact.labels is None:
        found = judge(exported, artifact=artifact, outputs=outputs)
        if found is None:
            return {}
        _check_near(artifact.training.get("measures"), found)
        return {"exported": found}
    before, after = (_right(run, artifact=artifact, outputs=outputs) for run in (trained, exported))
    if before != after:
        raise ParityFailed(
            f"before export {before.correct} of {before.samples} samples were right, "
            f"after it {after.correct}"
        )
    return {"trained": _of(before), "exported": _of(after)}


def _right(run: Run, *, artifact: Artifact, outputs: Sequence[str]) -> Accuracy:
    """How many of the labelled samples are put into the right class."""
    return accuracy(
        run,
        inputs=artifact.evaluation,
        labels=np.asarray(artifact.labels),
        output=_answer(artifact, outputs=outputs),
        batch_size=_BATCH,
    )


def _of(found: Accuracy) -> Judgement:
    return Judgement({"accuracy": found.correct / found.samples}, found)


def _check_near(trained: object, found: Judgement) -> None:
    before = trained if isinstance(trained, Mapping) else {}
    for name, value in found.measures.items():
        known = before.get(name)
        if isinstance(known, int | float) and not abs(value - known) <= _NEAR:
            raise ParityFailed(
                f"training measured {name.replace('_', ' ')} {known:.2%} on the test set, the "
                f"exported graph shows {value:.2%}"
            )


def _answer(artifact: Artifact, *, outputs: Sequence[str]) -> str:
    """The output that tells classes: the first that has class names, else the first."""
    return next((name for name in outputs if name in artifact.classes), outputs[0])
