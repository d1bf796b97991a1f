"""Sequences: order, states, controls, slots and what a request must bring along."""

import asyncio
import dataclasses

import numpy as np
import pytest

from ridgeline.errors import DeadlineExceeded, InvalidInput, NotFound, Overloaded, Unavailable
from ridgeline.model import parse_config
from serving import sequences
from serving.registry import Registry
from serving.request import InferRequest
from serving.sequence_policy import Correlation, sequence_policy

pytestmark = pytest.mark.anyio

CONFIG = """
max_batch_size: %(rows)d
input { name: "x" data_type: TYPE_FP32 dims: [ 1 ] }
output { name: "y" data_type: TYPE_FP32 dims: [ 1 ] }
instance_group { count: 1 kind: KIND_CPU }
sequence_batching {
  max_sequence_idle_microseconds: %(idle_us)d
  %(strategy)s
  control_input [
    { name: "start" control { kind: CONTROL_SEQUENCE_START int32_false_true: [ 0, 1 ] } },
    { name: "end" control { kind: CONTROL_SEQUENCE_END fp32_false_true: [ 0, 1 ] } },
    { name: "ready" control { kind: CONTROL_SEQUENCE_READY bool_false_true: [ false, true ] } },
    { name: "id" control { kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_INT64 } }
  ]
  state { input_name: "state" output_name: "next" data_type: TYPE_FP32 dims: [ 1 ] %(initial)s }
}
"""


def _config(*, rows=4, idle_us=60_000_000, strategy="direct { }", initial=""):
    return CONFIG % {"rows": rows, "idle_us": idle_us, "strategy": strategy, "initial": initial}


@pytest.fixture
async def serve(repository, models, settings):
    """Serves the accumulator with a configuration; gives the version, which must be ready."""
    registries = []

    async def serve(config, *, rows=True, **more):
        repository.add("sums", models.accumulator(rows=rows), config=config)
        registries.append(Registry(dataclasses.replace(settings, **more)))
        await registries[-1].load()
        return registries[-1].find("sums")

    yield serve
    for registry in registries:
        await registry.close(drain_seconds=60)


def _request(x, sequence=7, *, start=False, end=False, rows=1, **what):
    parameters = {"sequence_id": sequence, "sequence_start": start, "sequence_end": end}
    shape = (rows, 1) if rows else (1,)
    inputs = {"x": np.full(shape, x, np.float32)}
    return InferRequest("sums", inputs, **{"parameters": parameters, **what})


async def _y(version, x, sequence=7, **flags):
    response = await version.scheduler.infer(_request(x, sequence, **flags))
    assert list(response.outputs) == ["y"]
    return float(response.outputs["y"].flat[0])


async def test_a_sequence_carries_its_state_and_is_told_where_it_begins_and_ends(serve):
    version = await serve(_config())

    assert await _y(version, 1, start=True) == 101
    assert await _y(version, 2) == 3
    assert await _y(version, 3, end=True) == 1006
    assert await _y(version, 5, start=True, end=True) == 1105


async def test_clients_see_neither_controls_nor_states(serve):
    version = await serve(_config())

    assert [tensor.name for tensor in version.loaded.spec.inputs] == ["x"]
    assert [tensor.name for tensor in version.loaded.spec.outputs] == ["y"]
    assert [tensor.name for tensor in version.loaded.config.input] == ["x"]
    assert version.loaded.config.sequence_batching.state[0].input_name == "state"
    assert version.batcher is None  # nothing goes past the scheduler


async def test_sequences_do_not_mix_and_share_batches(serve):
    version = await serve(_config(rows=4))
    for sequence in (1, 2, 3, 4):
        await _y(version, sequence, sequence, start=True)
    before = version.statistics.execution_count

    sums = await asyncio.gather(*(_y(version, 10 * number, number) for number in (1, 2, 3, 4)))

    assert sums == [11, 22, 33, 44]
    assert version.statistics.execution_count - before < 4


async def test_requests_of_a_sequence_keep_their_order(serve):
    version = await serve(_config())
    requests = [_y(version, 1, start=True)] + [_y(version, 1) for _ in range(50)]

    sums = await asyncio.gather(*requests)

    assert sums == [101, *map(float, range(2, 52))]


async def test_a_new_start_cuts_the_sequence_short(serve):
    version = await serve(_config(rows=1))
    await _y(version, 1, start=True)

    assert await _y(version, 5, start=True) == 105
    assert await _y(version, 1, end=True) == 1006


async def test_a_model_without_a_batch_axis_has_sequences_too(serve):
    version = await serve(_config(rows=0), rows=False)

    assert await _y(version, 1, start=True, rows=0) == 101
    assert await _y(version, 2, rows=0) == 3


async def test_a_state_begins_as_its_file_says(serve, repository):
    folder = repository.root / "sums" / "initial_state"
    folder.mkdir(parents=True)
    (folder / "seven").write_bytes(np.float32([7]).tobytes())
    initial = 'initial_state { data_type: TYPE_FP32 dims: [ 1 ] data_file: "seven" name: "s" }'

    version = await serve(_config(initial=initial))

    assert await _y(version, 1, start=True) == 108


async def test_a_state_may_begin_as_zeros(serve):
    initial = 'initial_state { data_type: TYPE_FP32 dims: [ 1 ] zero_data: true name: "s" }'
    version = await serve(_config(initial=initial))

    assert await _y(version, 1, start=True) == 101


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (_config(strategy="iterative_sequence: true"), "iterative"),
        (
            _config(
                initial='initial_state { data_type: TYPE_FP32 dims: [1] data_file: "no" name: "s" }'
            ),
            "initial state cannot be read",
        ),
        (
            _config(initial='initial_state { data_type: TYPE_INT8 dims: [ 1 ] name: "s" }'),
            "is not FP32",
        ),
        (_config().replace('"end"', '"start"'), "must have different names"),
        (_config().replace("[ false, true ]", "[ true ]"), "needs two values"),
        (
            _config().replace("CORRID data_type: TYPE_INT64", "CORRID data_type: TYPE_FP32"),
            "the input 'id' as FP32",
        ),
        (_config().replace('"state"', '"nobody"'), "nobody"),
    ],
)
async def test_a_configuration_that_cannot_be_served_says_so(serve, config, words):
    with pytest.raises(NotFound, match=words):
        await serve(config)


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"sequence_start": True}, "must specify a non-zero or non-empty correlation ID"),
        ({"sequence_id": 0, "sequence_start": True}, "non-zero or non-empty"),
        ({"sequence_id": "", "sequence_start": True}, "non-zero or non-empty"),
        ({"sequence_id": True}, "received True"),
        ({"sequence_id": 1.5}, "received 1.5"),
        ({"sequence_id": -1}, "received -1"),
        ({"sequence_id": 2**64}, "sequence_id must be"),
        ({"sequence_id": 2**63, "sequence_start": True}, "correlation id as INT64"),
        ({"sequence_id": "a", "sequence_start": True}, "received the sequence id 'a'"),
        ({"sequence_id": 9}, "sequence 9 to model 'sums' must specify the START flag on the first"),
        ({"sequence_id": 9, "sequence_start": 1}, "sequence_start must be a boolean, received 1"),
        ({"sequence_id": 9, "sequence_end": "x"}, "sequence_end must be a boolean"),
    ],
)
async def test_what_a_request_must_bring_along(serve, parameters, words):
    version = await serve(_config())

    with pytest.raises(InvalidInput, match=words):
        await version.scheduler.infer(_request(1, parameters=parameters))

    assert version.statistics.invalid == 1


async def test_a_request_has_one_row(serve):
    version = await serve(_config())

    with pytest.raises(InvalidInput, match="batch-size 1"):
        await version.scheduler.infer(_request(1, start=True, rows=2))


async def test_behind_its_end_a_sequence_is_unknown(serve):
    version = await serve(_config())
    await _y(version, 1, start=True, end=True)

    with pytest.raises(InvalidInput, match="START flag"):
        await _y(version, 1)


async def test_a_sequence_that_is_idle_for_too_long_is_forgotten(serve):
    version = await serve(_config(rows=1, idle_us=1))
    await _y(version, 1, start=True)
    while version.scheduler._sequences:
        await asyncio.sleep(0)

    with pytest.raises(InvalidInput, match="START flag"):
        await _y(version, 1)
    assert await _y(version, 1, 8, start=True) == 101  # its slot is free


@pytest.mark.parametrize(
    ("strategy", "most"), [("direct { }", 2), ("oldest { max_candidate_sequences: 3 }", 3)]
)
async def test_more_sequences_wait_for_one_to_end(serve, strategy, most):
    version = await serve(_config(rows=2, strategy=strategy))
    for sequence in range(1, most + 1):
        await _y(version, 1, sequence, start=True)

    waiting = asyncio.create_task(_y(version, 1, 99, start=True))
    await _y(version, 1, 1)
    assert not waiting.done()
    assert version.scheduler.waiting_requests == 1
    await _y(version, 1, 1, end=True)

    assert await waiting == 101


async def test_a_full_queue_refuses(serve):
    version = await serve(_config(rows=1), max_queue_size=1)
    await _y(version, 1, start=True)
    waiting = asyncio.create_task(_y(version, 1, 8, start=True))
    await asyncio.sleep(0)

    with pytest.raises(Overloaded, match="Exceeds maximum queue size of 1"):
        await _y(version, 1, 9, start=True)

    waiting.cancel()
    assert await _y(version, 1) == 2


async def test_a_deadline_that_passes_while_waiting_is_told(serve):
    version = await serve(_config(rows=1))
    await _y(version, 1, start=True)

    with pytest.raises(DeadlineExceeded, match="its turn"):
        await version.scheduler.infer(_request(1, 8, start=True, deadline_ns=1))

    assert await _y(version, 1) == 2


async def test_a_caller_that_leaves_while_waiting_harms_nobody(serve):
    version = await serve(_config(rows=1))
    await _y(version, 1, start=True)
    left = asyncio.create_task(_y(version, 1, 8, start=True, end=True))
    waiting = asyncio.create_task(_y(version, 1, 9, start=True))
    await asyncio.sleep(0)

    left.cancel()
    await _y(version, 1, end=True)

    assert await waiting == 101
    with pytest.raises(asyncio.CancelledError):
        await left


async def test_a_cancelled_end_still_frees_the_slot(serve):
    version = await serve(_config(rows=1))
    first = asyncio.create_task(_y(version, 1, start=True))
    ending = asyncio.create_task(_y(version, 1, end=True))
    await asyncio.sleep(0)

    ending.cancel()

    assert await first == 101
    assert await _y(version, 1, 8, start=True) == 101


async def test_a_request_that_fails_leaves_the_state_as_it_was(serve, monkeypatch):
    version = await serve(_config())
    await _y(version, 1, start=True)
    engine = version.loaded.engine
    run = engine.run

    def fail(*_arguments, **_options):
        raise RuntimeError("a kernel refused its input")

    monkeypatch.setattr(engine, "run", fail)
    with pytest.raises(Exception, match="a kernel refused"):
        await _y(version, 5)
    monkeypatch.setattr(engine, "run", run)

    assert await _y(version, 2) == 3


async def test_only_the_outputs_asked_for_come_back(serve):
    version = await serve(_config())

    response = await version.scheduler.infer(_request(1, start=True, outputs=("y",)))
    assert list(response.outputs) == ["y"]
    with pytest.raises(InvalidInput, match="unexpected inference output 'next'"):
        await version.scheduler.infer(_request(1, outputs=("next",)))


async def test_a_stream_has_one_answer(serve):
    version = await serve(_config())

    answers = [answer async for answer in version.scheduler.stream(_request(1, start=True))]

    assert [float(answer.outputs["y"][0, 0]) for answer in answers] == [101]


async def test_while_stopping_accepted_requests_are_answered_and_new_ones_refused(serve):
    version = await serve(_config(rows=1))
    requests = [asyncio.create_task(_y(version, 1, start=True))]
    requests += [asyncio.create_task(_y(version, 1)) for _ in range(5)]
    await asyncio.sleep(0)

    closing = asyncio.create_task(version.scheduler.close(drain_seconds=60))
    await asyncio.sleep(0)
    with pytest.raises(Unavailable, match="stopping"):
        await _y(version, 1)
    await closing

    assert [await request for request in requests] == [101, 2, 3, 4, 5, 6]


async def test_who_still_waits_for_a_slot_when_the_drain_ends_is_told(serve):
    version = await serve(_config(rows=1))
    await _y(version, 1, start=True)
    waiting = asyncio.create_task(_y(version, 1, 8, start=True))
    await asyncio.sleep(0)

    await version.scheduler.close(drain_seconds=0)

    with pytest.raises(Unavailable, match="stopping"):
        await waiting


def test_controls_must_differ_and_an_id_is_a_number_or_a_text(tmp_path):
    def policy(text):
        return sequence_policy(parse_config(text, source="test"), instances=2, directory=tmp_path)

    id_of = "sequence_batching { control_input { name: 'a' control { kind: CONTROL_SEQUENCE_CORRID "
    start = "control { kind: CONTROL_SEQUENCE_START int32_false_true: [ 0, 1 ] }"
    with pytest.raises(InvalidInput, match="must be UINT64"):
        policy(id_of + "data_type: TYPE_FP32 } } }")
    with pytest.raises(InvalidInput, match="must differ"):
        policy("sequence_batching { control_input { name: 'a' " + start + start + " } }")
    assert policy(id_of + "data_type: TYPE_STRING } } }").most == 2


@pytest.mark.parametrize(
    ("datatype_name", "key", "value"),
    [("BYTES", 5, b"5"), ("BYTES", "five", b"five"), ("INT32", 5, 5)],
)
def test_an_id_travels_in_the_type_that_the_model_wants(datatype_name, key, value):
    assert sequences._correlation_value(Correlation("id", datatype_name), key).tolist() == [value]
