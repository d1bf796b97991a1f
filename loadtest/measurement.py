"""One load test, top to bottom: ask the server what it is, warm up, measure each batch size."""

import asyncio
import gc
import itertools
from collections.abc import Callable, Sequence

import numpy as np

from loadtest import environment, floor
from loadtest.connection import Connection, RequestFailed, Sender, check_address
from loadtest.driver import Recording, drive
from loadtest.protocols import connect
from loadtest.result import RunResult, Target, run_result
from loadtest.samples import Batch, random_batch, read_samples
from loadtest.served import ServedModel, served_model
from loadtest.settings import LoadtestSettings
from ridgeline import hardware as hardware_module
from ridgeline.errors import StepFailed
from ridgeline.hardware import Hardware
from ridgeline.model import FREE

_DISTINCT_BATCHES = 16  # different inputs sent in turn, so that no cache of answers helps a server
_DISTINCT_BYTES = 64 * 2**20

Announce = Callable[[str], object]


async def measure(settings: LoadtestSettings, *, announce: Announce) -> list[RunResult]:
    """One run for each batch size, in the order given; `announce` is told what goes on.

    Raises Unavailable or NotFound where there is nothing to measure, InvalidInput where the model
    cannot take what is to be sent, StepFailed where a run got no answer.
    """
    connection = connect(
        protocol=settings.protocol,
        url=settings.url,
        model=settings.model,
        version=settings.model_version,
    )
    try:
        target = await _target(connection, settings=settings, announce=announce)
        return [
            await _measure_one(
                connection, settings=settings, target=target, batch_size=size, announce=announce
            )
            for size in settings.batch_sizes
        ]
    finally:
        await connection.close()


async def _target(
    connection: Connection, *, settings: LoadtestSettings, announce: Announce
) -> Target:
    server = await connection.read_server()
    model = served_model(
        await connection.read_metadata(),
        version=settings.model_version,
        config=await connection.read_config(),
    )
    for batch_size in settings.batch_sizes:
        model.check_batch_size(batch_size)
    cost, source = model.cost, "model configuration"
    if cost is None and settings.repository:
        cost, source = (
            floor.cost_in_repository(settings.repository, model=model.name, version=model.version),
            "model repository",
        )
    # Measured before the load test, not beside it; in a thread, so that connections stay alive.
    hardware, note = await asyncio.to_thread(_find_hardware, settings, announce=announce)
    return Target(
        server={"name": server.name, "version": server.version},
        model=model,
        cost=cost,
        cost_source=source if cost else None,
        hardware=hardware,
        note=note,
    )


def _find_hardware(
    settings: LoadtestSettings, *, announce: Announce
) -> tuple[Hardware | None, str | None]:
    """The figures of the server's machine, or None and why they are unknown."""
    if settings.hardware:
        return hardware_module.read(settings.hardware), None
    host = check_address(settings.url)
    if not floor.is_this_machine(host):
        return None, (
            f"{host} is another machine: run `ridgeline hardware --json` there and name the file "
            "with --hardware"
        )
    return hardware_module.load(announce=announce), None


async def _measure_one(
    connection: Connection,
    *,
    settings: LoadtestSettings,
    target: Target,
    batch_size: int,
    announce: Announce,
) -> RunResult:
    batches = _batches(settings, model=target.model, batch_size=batch_size)
    sender = connection.prepare(batches, timeout_s=settings.request_timeout_s)
    await _check(sender, model=target.model, batch_size=batch_size)
    announce(
        f"{settings.protocol}, batch size {batch_size}: "
        f"{settings.warmup_s:g} s of warm-up, {settings.duration_s:g} s of measuring ..."
    )
    if settings.warmup_s:
        warmup = await _drive(sender, settings=settings, duration_s=settings.warmup_s)
        _refuse_silence(warmup, phase="the warm-up")
    recording = await _drive(sender, settings=settings, duration_s=settings.duration_s)
    _refuse_silence(recording, phase="the run")
    if not recording.requests:
        raise StepFailed("no request was due in the whole run: raise the rate or the duration")
    return run_result(
        recording,
        settings=settings,
        batch_size=batch_size,
        target=target,
        environment=environment.describe(),
    )


async def _drive(sender: Sender, *, settings: LoadtestSettings, duration_s: float) -> Recording:
    gc.collect()
    gc.freeze()  # what the imports made need not be looked through again while measuring
    try:
        return await drive(
            sender.send,
            load=settings.load,
            duration_s=duration_s,
            seed=settings.seed,
            limits=settings.limits,
        )
    finally:
        gc.unfreeze()


def _batches(settings: LoadtestSettings, *, model: ServedModel, batch_size: int) -> Sequence[Batch]:
    """Different batches of samples from the file, or of random ones."""
    if settings.data:
        samples = read_samples(settings.data, model=model)
        starts = itertools.count(step=batch_size)
        batches = (samples.rows(start, size=batch_size) for start in starts)
    else:
        generator = np.random.default_rng([settings.seed, batch_size])
        batches = (
            random_batch(model, batch_size=batch_size, generator=generator)
            for _ in itertools.count()
        )
    first = next(batches)
    return [first, *itertools.islice(batches, _distinct(first) - 1)]


def _distinct(batch: Batch) -> int:
    size_bytes = max(1, sum(array.nbytes for array in batch.values()))
    return max(1, min(_DISTINCT_BATCHES, _DISTINCT_BYTES // size_bytes))


async def _check(sender: Sender, *, model: ServedModel, batch_size: int) -> None:
    """Send one request and read its answer, before thousands are sent whose answers are not.

    Raises StepFailed where it is refused or is not an answer to that batch.
    """
    try:
        shapes = await sender.send_and_read()
    except RequestFailed as error:
        raise StepFailed(
            f"model {model.name!r} does not answer a batch of {batch_size}: {error}"
        ) from error
    for output in model.outputs:
        shape = shapes.get(output.name)
        if shape is None:
            raise StepFailed(f"an answer of model {model.name!r} lacks output {output.name!r}")
        if output.shape[:1] == (FREE,) and shape[:1] != (batch_size,):
            raise StepFailed(
                f"model {model.name!r} answered a batch of {batch_size} with an output "
                f"{output.name!r} of the shape {list(shape)}"
            )


def _refuse_silence(recording: Recording, *, phase: str) -> None:
    if recording.requests and not recording.answered.any():
        reason = recording.stopped or recording.first_failure or "none ended in time"
        raise StepFailed(f"no request of {phase} was answered: {reason}")
