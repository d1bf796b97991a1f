"""One load test, top to bottom: ask the server what it is, warm up, measure each batch size."""

import asyncio
from collections.abc import Callable, Sequence

from loadtest import environment, floor
from loadtest.breakdown import Counters, breakdown
from loadtest.connection import Connection, RequestFailed, check_address
from loadtest.correctness import Checked, Outputs, check
from loadtest.generation import Generated, Requests, generate
from loadtest.messages import outputs
from loadtest.preparation import Prepared, prepare
from loadtest.protocols import connect
from loadtest.recording import Recording
from loadtest.result import RunResult, Target, run_result
from loadtest.served import ServedModel, served_model
from loadtest.settings import LoadtestSettings
from ridgeline import hardware as hardware_module
from ridgeline.errors import CorruptData, RidgelineError, StepFailed
from ridgeline.hardware import Hardware
from ridgeline.model import FREE

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
        target = await target_of(connection, settings=settings, announce=announce)
        return [
            await _measure_one(
                connection, settings=settings, target=target, batch_size=size, announce=announce
            )
            for size in settings.batch_sizes
        ]
    finally:
        await connection.close()


async def target_of(
    connection: Connection, *, settings: LoadtestSettings, announce: Announce
) -> Target:
    """What is to be measured, as the server tells it, and its machine. Raises as `measure`."""
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
    prepared = prepare(settings, model=target.model, batch_size=batch_size)
    if prepared.given:
        sent = min(prepared.given, sum(prepared.requests.rows))
        announce(f"sending {sent} of {prepared.given} samples in turn")
    begun = await _counters(connection)
    expected = await ask_alone(connection, prepared, settings=settings, model=target.model)
    asked = await _counters(connection)
    announce(
        f"{settings.protocol}, batch size {batch_size}: "
        f"{settings.warmup_s:g} s of warm-up, {settings.duration_s:g} s of measuring ..."
    )
    if settings.warmup_s:
        warmup = await put_load(prepared.requests, settings=settings, for_s=settings.warmup_s)
        refuse_silence(warmup.recording, phase="the warm-up")
    before = await _counters(connection)
    generated = await put_load(prepared.requests, settings=settings, for_s=settings.duration_s)
    after = await _counters(connection)
    recording = generated.recording
    refuse_silence(recording, phase="the run")
    if not recording.requests:
        raise StepFailed("no request was due in the whole run: raise the rate or the duration")
    checked = check_answers(generated, prepared, expected=expected)
    counted = after.since(before) if before and after else None
    alone_ns = asked.since(begun).compute_ns_per_request if begun and asked else None
    return run_result(
        recording,
        settings=settings,
        batch_size=batch_size,
        target=target,
        environment=environment.describe(),
        checked=checked,
        breakdown=breakdown(recording, counted=counted, alone_ns=alone_ns) if counted else None,
    )


async def ask_alone(
    connection: Connection,
    prepared: Prepared,
    *,
    settings: LoadtestSettings,
    model: ServedModel,
) -> list[Outputs]:
    """What each request is answered without load, which the answers under load are compared with.

    Raises StepFailed where one is refused or is not an answer to its batch.
    """
    found = []
    for message, rows in zip(prepared.requests.messages, prepared.requests.rows, strict=True):
        try:
            payload = await connection.ask(message, timeout_s=settings.request_timeout_s)
            answer = outputs(payload, protocol=settings.protocol)
        except (RequestFailed, CorruptData) as error:
            raise StepFailed(
                f"model {model.name!r} does not answer a batch of {rows}: {error}"
            ) from error
        _check_shapes(answer, model=model, rows=rows)
        found.append(answer)
    return found


def check_answers(
    generated: Generated, prepared: Prepared, *, expected: Sequence[Outputs]
) -> Checked:
    """Compare the answers of a load with those that the same requests got without, `expected`."""
    return check(
        generated.answers,
        protocol=prepared.requests.protocol,
        expected=expected,
        unseen=generated.answers_unseen,
        told=prepared.told,
        labels=prepared.labels,
    )


def _check_shapes(answer: Outputs, *, model: ServedModel, rows: int) -> None:
    for output in model.outputs:
        array = answer.get(output.name)
        if array is None:
            raise StepFailed(f"an answer of model {model.name!r} lacks output {output.name!r}")
        if output.shape[:1] == (FREE,) and array.shape[:1] != (rows,):
            raise StepFailed(
                f"model {model.name!r} answered a batch of {rows} with an output "
                f"{output.name!r} of the shape {list(array.shape)}"
            )


async def put_load(requests: Requests, *, settings: LoadtestSettings, for_s: float) -> Generated:
    """The load of the settings, for so long."""
    return await generate(
        requests,
        url=settings.url,
        load=settings.load,
        duration_s=for_s,
        seed=settings.seed,
        timeout_s=settings.request_timeout_s,
        core=settings.client_core,
    )


async def _counters(connection: Connection) -> Counters | None:
    """What the server counted so far; None where it tells no statistics."""
    try:
        response = await connection.read_statistics()
    except RidgelineError:
        return None
    return Counters.of(response) if response is not None else None


def refuse_silence(recording: Recording, *, phase: str) -> None:
    """Raise StepFailed where requests were due and none was answered."""
    if recording.requests and not recording.answered.any():
        reason = recording.first_failure or "none ended in time"
        raise StepFailed(f"no request of {phase} was answered: {reason}")
