"""The requests of a run, made beforehand: of samples in files, or of random ones."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from loadtest.generation import Requests
from loadtest.messages import request
from loadtest.samples import Batch, Samples, random_batch, read_samples, size_bytes
from loadtest.schedule import Replay
from loadtest.served import ServedModel
from loadtest.settings import LoadtestSettings

_MOST_BATCHES = 8  # different inputs sent in turn, so that no cache of answers helps a server
_DISTINCT_BYTES = 16 * 2**20
_SEQUENCES = 256  # that may be in flight at once, of a model that keeps state
_MOST_GIVEN_BATCHES, _MOST_GIVEN_BYTES = 256, 64 * 2**20  # of samples in files


@dataclass(frozen=True)
class Prepared:
    """Requests, and what is known of their right answers.

    `labels` holds the right class of each row where the samples have labels, `told` the outputs of
    each message that the samples' files tell. `given` is how many samples there were.
    """

    requests: Requests
    labels: Sequence[npt.NDArray[np.int64]] | None
    told: Sequence[Batch]
    given: int


def prepare(settings: LoadtestSettings, *, model: ServedModel, batch_size: int) -> Prepared:
    """Batches of the samples in files, or of random ones; of a trace, for all its rows.

    Of many or large samples only the first are sent. To a model that keeps state, each request is a
    sequence of one step: what it is answered does not depend on which went before.
    """
    load = settings.load
    rows = sorted(set(load.rows)) if isinstance(load, Replay) else [batch_size]
    samples = read_samples(settings.data, model=model) if settings.data else None
    parts: list[_Part] = []
    for size in rows:
        if samples:
            parts += _of_samples(samples, batch_size=size, one_of=len(rows))
        else:
            parts += _at_random(model, batch_size=size, seed=settings.seed)
    if model.stateful:
        parts *= _repetitions(parts)
    messages = [
        request(
            part.batch,
            protocol=settings.protocol,
            model=settings.model,
            version=settings.model_version,
            sequence=number if model.stateful else 0,
        )
        for number, part in enumerate(parts, start=1)
    ]
    known = [part.labels for part in parts if part.labels is not None]
    return Prepared(
        Requests(settings.protocol, messages, [part.rows for part in parts]),
        labels=known if len(known) == len(parts) else None,
        told=[part.told for part in parts],
        given=samples.count if samples else 0,
    )


@dataclass(frozen=True)
class _Part:
    """The batch of one message."""

    batch: Batch
    rows: int
    labels: npt.NDArray[np.int64] | None = None
    told: Batch = field(default_factory=dict)


def _repetitions(parts: Sequence[_Part]) -> int:
    """How often to send each batch, as another sequence: steps of the same one wait in turn."""
    room = _MOST_GIVEN_BYTES // max(1, sum(size_bytes(part.batch) for part in parts))
    return max(1, min(_SEQUENCES // len(parts), room))


def _of_samples(samples: Samples, *, batch_size: int, one_of: int) -> Iterator[_Part]:
    """All samples in their order, or as many as fit, where so many sizes share the room."""
    left_bytes = _MOST_GIVEN_BYTES // one_of
    starts = range(0, samples.count, batch_size)
    for start in starts[: max(1, _MOST_GIVEN_BATCHES // one_of)]:
        batch = samples.rows(start, size=batch_size)
        left_bytes -= size_bytes(batch)
        if start and left_bytes < 0:
            return
        yield _Part(
            batch,
            batch_size,
            samples.labels_of(start, size=batch_size),
            samples.expected_of(start, size=batch_size),
        )


def _at_random(model: ServedModel, *, batch_size: int, seed: int) -> Iterator[_Part]:
    """Some different batches, fewer where they are large."""
    generator = np.random.default_rng([seed, batch_size])
    left_bytes = _DISTINCT_BYTES
    for number in range(_MOST_BATCHES):
        batch = random_batch(model, batch_size=batch_size, generator=generator)
        left_bytes -= size_bytes(batch)
        if number and left_bytes < 0:
            return
        yield _Part(batch, batch_size)
