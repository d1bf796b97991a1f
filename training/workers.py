"""Several workers train one network: each takes its part of every batch, all take one step.

Every worker holds the whole network, with the same weights from the same seed. In each step it
learns from its part of the batch; the gradients are averaged over all workers by TensorFlow's
MultiWorkerMirroredStrategy, and each applies the mean. That is the step of one process with the
whole batch, but for the order of the sum; normalisation alone sees a part of the batch, and its
averages are evened out after each epoch. Keras' own loop does not run under that strategy (3.15:
`fit` fails in its first step), so only its collectives are used.

`TF_CONFIG` says who takes part, as everywhere in TensorFlow:

    {"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", "index": 0}}
"""

import functools
import json
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import tensorflow as tf

from ridgeline.errors import InvalidInput, Unavailable

_VARIABLE = "TF_CONFIG"
_TIMEOUT_S = 600.0  # without the others, in one step


class Workers:
    """Those who train together; alone where `strategy` is None."""

    def __init__(self, *, rank: int = 0, count: int = 1, strategy: Any = None) -> None:
        self.rank, self.count, self._strategy = rank, count, strategy

    @property
    def is_chief(self) -> bool:
        """Whether this one keeps the checkpoint and writes the artifact."""
        return self.rank == 0

    def part(self, batch: Any, /) -> Any:
        """This worker's part of a batch: every `count`-th row."""
        return batch[self.rank :: self.count] if self.count > 1 else batch

    def whole(self, samples: int, *, batch_size: int) -> int:
        """How many of so many samples an epoch can share out evenly.

        Raises InvalidInput where a batch has no equal parts.
        """
        if batch_size % self.count:
            raise InvalidInput(
                f"a batch of {batch_size} samples has no {self.count} equal parts, one for each "
                "worker"
            )
        return samples - samples % self.count

    def mean(self, tensors: Sequence[Any], /) -> list[Any]:
        """The means over all workers, who must all ask; in a function of TensorFlow or outside."""
        if self._strategy is None:
            return list(tensors)

        def reduced(*given: Any) -> Any:
            context = tf.distribute.get_replica_context()
            return context.all_reduce("mean", [tf.identity(tensor) for tensor in given])

        dense = [tf.convert_to_tensor(tensor) for tensor in tensors]
        answers = self._strategy.run(reduced, args=tuple(dense))
        return [self._strategy.experimental_local_results(answer)[0] for answer in answers]

    def agreed(self, figures: dict[str, float], /) -> dict[str, float]:
        """The means of these figures, the same for every worker."""
        if self._strategy is None:
            return figures
        means = self._now([tf.constant(value, tf.float32) for value in figures.values()])
        return {name: float(value) for name, value in zip(figures, means, strict=True)}

    def even_out(self, variables: Iterable[Any], /) -> None:
        """Give Keras variables of floats the mean of all workers' values."""
        floats = [v for v in variables if v.dtype in ("float32", "float64")]
        if self._strategy is None or not floats:
            return
        means = self._now([tf.convert_to_tensor(variable.value) for variable in floats])
        for variable, value in zip(floats, means, strict=True):
            variable.assign(value)

    def wait(self) -> None:
        """Go on when every worker has come here."""
        self.agreed({"here": 1.0})

    def check_same(self, epochs: int, /) -> None:
        """Refuse to go on from different epochs. Raises Unavailable."""
        squares = self.agreed({"mean": float(epochs), "square": float(epochs) ** 2})
        if squares["square"] != squares["mean"] ** 2:
            raise Unavailable(
                f"this worker goes on after epoch {epochs}, others after another one: --output "
                "must be a folder that all workers share, or take --restart"
            )

    def _now(self, tensors: Sequence[Any]) -> Sequence[Any]:
        answers: Sequence[Any] = self._compiled(tuple(tensors))
        return answers

    @functools.cached_property
    def _compiled(self) -> Callable[[tuple[Any, ...]], list[Any]]:
        compiled: Callable[[tuple[Any, ...]], list[Any]] = tf.function(self.mean)
        return compiled  # run eagerly it is slow, and TensorFlow warns


@functools.cache
def join() -> Workers:
    """Who trains here, by TF_CONFIG; alone without it. Call it before anything else of TensorFlow.

    Waits for the other workers. Raises InvalidInput for a TF_CONFIG that makes no sense.
    """
    text = os.environ.get(_VARIABLE)
    if not text:
        return Workers()
    rank, count = read_cluster(text)
    options = tf.distribute.experimental.CommunicationOptions(timeout_seconds=_TIMEOUT_S)
    strategy = tf.distribute.MultiWorkerMirroredStrategy(communication_options=options)
    return Workers(rank=rank, count=count, strategy=strategy if count > 1 else None)


def read_cluster(text: str) -> tuple[int, int]:
    """This worker's number, and that of all, in a TF_CONFIG. Raises InvalidInput."""
    try:
        config = json.loads(text)
        count = len(config["cluster"]["worker"])
        kind, rank = config["task"]["type"], config["task"]["index"]
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidInput(
            f"{_VARIABLE} must name cluster.worker and task, received {text!r}"
        ) from error
    if kind != "worker" or set(config["cluster"]) != {"worker"} or rank not in range(count):
        raise InvalidInput(
            f"{_VARIABLE} must name workers alone, and this one among them, received {text!r}"
        )
    return rank, count


def shared(kind: type[Any], *, workers: Workers) -> type[Any]:
    """The optimizer class `kind`, which applies the mean of all workers' gradients."""
    if workers.count == 1:
        return kind

    class Shared(kind):  # type: ignore[misc]  # keras publishes no types
        def apply(self, grads: Sequence[Any], trainable_variables: Any = None) -> Any:
            return super().apply(workers.mean(grads), trainable_variables)

    Shared.__name__ = kind.__name__
    return Shared
