"""Python models in worker processes: Triton's interface, crashes, limits of time, streams."""

import asyncio
import dataclasses
import json
import os
import time

import numpy as np
import pytest

from ridgeline.errors import (
    AlreadyThere,
    DeadlineExceeded,
    InvalidInput,
    NotFound,
    Unavailable,
    Unsupported,
)
from serving.execution import EngineFault
from serving.registry import Registry
from serving.request import InferRequest
from serving.statistics import FailureReason

pytestmark = pytest.mark.anyio

HEAD = """
import json, os, pathlib, sys, threading, time
import numpy as np
import triton_python_backend_utils as pb

def answer(request, value):
    text = np.array([json.dumps(value).encode()], dtype=object)
    return pb.InferenceResponse([pb.Tensor("y", text)])

def text_of(request):
    return pb.get_input_tensor_by_name(request, "x").as_numpy().ravel()[0].decode()

class TritonPythonModel:
"""
TEXTS = """
backend: "python"
input { name: "x" data_type: TYPE_STRING dims: 1 }
output { name: "y" data_type: TYPE_STRING dims: 1 }
"""
EVALUATE = """
    def initialize(self, args):
        self.args = args
    def execute(self, requests):
        return [answer(r, eval(text_of(r), {**globals(), "self": self, "r": r, "all": requests}))
                for r in requests]
    def finalize(self):
        pathlib.Path(self.args["model_repository"], "finalized").touch()
"""


@pytest.fixture
def add(repository):
    def add(body: str, config: str | None = TEXTS, *, name: str = "m") -> None:
        folder = repository.root / name / "1"
        folder.mkdir(parents=True)
        (folder / "model.py").write_text(HEAD + body)
        if config is not None:
            (repository.root / name / "config.pbtxt").write_text(config)

    return add


@pytest.fixture
async def serve(settings):
    """Loads the repository, with further settings."""
    started = []

    async def serve(**what) -> Registry:
        registry = Registry(dataclasses.replace(settings, **what))
        started.append(registry)
        await registry.load()
        return registry

    yield serve
    for registry in started:
        await registry.close(drain_seconds=60)


def _request(text: str, *, rows: int | None = None, **more) -> InferRequest:
    shape = (1,) if rows is None else (rows, 1)
    return InferRequest("m", {"x": np.full(shape, text.encode(), dtype=object)}, **more)


async def _ask(registry: Registry, text: str, **more):
    response = await registry.find("m").scheduler.infer(_request(text, **more))
    return json.loads(response.outputs["y"].ravel()[0])


async def test_a_model_is_told_what_triton_tells_it(add, serve, repository):
    add(EVALUATE, TEXTS + 'parameters { key: "k" value { string_value: "v" } }')
    registry = await serve()

    arguments = await _ask(registry, "self.args")
    config = json.loads(arguments.pop("model_config"))
    assert arguments == {
        "model_instance_kind": "CPU",
        "model_instance_name": "m_0",
        "model_instance_device_id": "0",
        "model_repository": str(repository.root / "m"),
        "model_version": "1",
        "model_name": "m",
    }
    assert config["parameters"] == {"k": {"string_value": "v"}}
    told = await _ask(
        registry,
        "[r.request_id(), r.correlation_id(), r.flags(), r.timeout(), json.loads(r.parameters()), "
        "r.requested_output_names(), r.is_cancelled()]",
        id="7",
        timeout_ns=60_000_000_000,
        parameters={"sequence_id": 5, "sequence_end": True, "timeout": 60_000_000, "mine": 1.5},
    )
    assert told == ["7", 5, 2, 60_000_000, {"mine": 1.5}, ["y"], False]
    assert registry.find("m").loaded.platform == "python"


async def test_requests_share_execute_only_with_dynamic_batching(add, serve):
    body = """
    def execute(self, requests):
        if text_of(requests[0]) == "slow":
            time.sleep(0.2)
        return [answer(r, len(requests)) for r in requests]
"""
    add(body, TEXTS.replace("dims: 1", "dims: 1") + "max_batch_size: 4\n", name="m")
    add(body, TEXTS + "max_batch_size: 4\ndynamic_batching {}\n", name="n")
    registry = await serve()

    for name, counts in (("m", [1, 1, 1]), ("n", [1, 2, 2])):
        scheduler = registry.find(name).scheduler
        first = asyncio.create_task(scheduler.infer(_request("slow", rows=1)))
        await asyncio.sleep(0.05)
        others = [scheduler.infer(_request("x", rows=rows)) for rows in (3, 1)]
        answers = await asyncio.gather(first, *others)
        assert [json.loads(one.outputs["y"][0]) for one in answers] == counts


async def test_a_request_that_kills_the_process_fails_alone(add, serve):
    body = """
    def execute(self, requests):
        print("at work on", len(requests))
        time.sleep(0.1)
        if any(text_of(r) == "die" for r in requests):
            os._exit(3)
        return [answer(r, os.getpid()) for r in requests]
"""
    add(body, TEXTS + "max_batch_size: 8\ndynamic_batching {}\n")
    registry = await serve()
    scheduler = registry.find("m").scheduler
    texts = ["first", "one", "die", "two"]

    answers = await asyncio.gather(
        *(scheduler.infer(_request(text, rows=1)) for text in texts), return_exceptions=True
    )

    assert [type(one).__name__ for one in answers] == [
        "InferResponse", "InferResponse", "EngineFault", "InferResponse",
    ]  # fmt: skip
    assert "the worker process ended (exit code 3)" in str(answers[2])
    assert "at work on 1" in str(answers[2])
    assert (
        len({one.outputs["y"].ravel()[0] for one in answers if not isinstance(one, Exception)}) > 1
    )
    assert registry.find("m").statistics.failure == {FailureReason.BACKEND: 1}


async def test_a_process_that_dies_again_and_again_is_started_later_and_later(add, serve):
    add("    def execute(self, requests):\n        os.kill(os.getpid(), 9)\n")
    registry = await serve()

    for _ in range(9):
        with pytest.raises((EngineFault, Unavailable)) as raised:
            await _ask(registry, "x")
        if isinstance(raised.value, Unavailable):
            break

    assert "times in a row; it is started again in" in str(raised.value)
    assert raised.value.retry_after_ns > 0


@pytest.mark.parametrize(
    ("body", "config", "words"),
    [
        ("    pass\nraise RuntimeError('at import')", TEXTS, "RuntimeError: at import\n\nAt:\n .*"),
        ("    def initialize(self, args): raise KeyError('k')", TEXTS, "KeyError: 'k'"),
        ("    pass\ndel TritonPythonModel", TEXTS, "no attribute 'TritonPythonModel'"),
        ("    def initialize(self, args): os._exit(4)", TEXTS, r"ended \(exit code 4\)"),
        ("    pass", TEXTS + 'default_model_filename: "other.py"', "has no file .*other.py"),
        (
            "    pass",
            TEXTS + 'parameters { key: "EXECUTION_ENV_PATH" value { string_value: "x" } }',
            "'EXECUTION_ENV_PATH' is not supported: Python models run in the server's own",
        ),
        ("    pass", TEXTS + "instance_group { kind: KIND_GPU }", "get no GPU"),
        ("    pass", TEXTS + "sequence_batching {}", "do not support 'sequence_batching'"),
        (
            "    @staticmethod\n    def auto_complete_config(config): pass",
            TEXTS,
            "'m' must return a valid pb.ModelConfig object",
        ),
        (
            "    @staticmethod\n    def auto_complete_config(config):\n"
            "        config.add_input({'name': 'x', 'data_type': 'TYPE_FP32', 'dims': [1]})",
            TEXTS,
            "configuration expects datatype TYPE_STRING for input 'x', model provides TYPE_FP32",
        ),
        ("    pass", 'backend: "python"', "needs at least one input"),
    ],
)
async def test_a_model_that_cannot_begin_says_why(add, serve, body, config, words):
    add(body, config)
    registry = await serve()

    with pytest.raises((Unavailable, NotFound), match=words):
        registry.find("m")


async def test_a_model_that_takes_too_long_to_begin_is_given_up(add, serve):
    add("    def initialize(self, args): time.sleep(600)")
    registry = await serve(python_start_seconds=3)

    with pytest.raises(
        (Unavailable, NotFound), match="has not initialized within 3 s, and was ended"
    ):
        registry.find("m")


async def test_a_model_completes_its_own_configuration(add, serve):
    body = """
    @staticmethod
    def auto_complete_config(config):
        config.add_input({"name": "x", "data_type": "TYPE_STRING", "dims": [1]})
        config.add_output({"name": "y", "data_type": "TYPE_STRING", "dims": [1]})
        config.set_max_batch_size(3)
        config.set_dynamic_batching()
        return config
    def initialize(self, args):
        self.size = json.loads(args["model_config"])["max_batch_size"]
    def execute(self, requests):
        return [answer(r, self.size) for r in requests]
"""
    add(body, None)
    registry = await serve()

    assert registry.find("m").loaded.spec.max_batch_size == 3
    assert registry.find("m").loaded.config.HasField("dynamic_batching")
    assert await _ask(registry, "x", rows=1) == 3


async def test_errors_of_the_model_reach_the_caller(add, serve):
    body = """
    def execute(self, requests):
        text = text_of(requests[0])
        if text == "raise":
            raise ValueError("on purpose")
        if text == "none":
            return [None]
        if text == "few":
            return []
        if text == "no list":
            return 5
        if text == "sender":
            requests[0].get_response_sender().send(answer(requests[0], "sent"))
            return [None]
        code = getattr(pb.TritonError, text)
        return [pb.InferenceResponse(error=pb.TritonError("my text", code))]
"""
    add(body)
    registry = await serve()

    for text, kind, words in (
        ("raise", EngineFault, r"ValueError: on purpose\n\nAt:\n  .*model.py\(\d+\): execute"),
        ("none", EngineFault, "Expected an InferenceResponse for each request, found None"),
        ("few", EngineFault, "do not match the number of InferenceRequest"),
        ("no list", EngineFault, "Expected a list in the execute return"),
        ("INTERNAL", EngineFault, "^my text$"),
        ("INVALID_ARG", InvalidInput, "^my text$"),
        ("NOT_FOUND", NotFound, "^my text$"),
        ("UNSUPPORTED", Unsupported, "^my text$"),
        ("ALREADY_EXISTS", AlreadyThere, "^my text$"),
    ):
        with pytest.raises(kind, match=words):
            await _ask(registry, text)
    assert await _ask(registry, "sender") == "sent"
    with pytest.raises(InvalidInput, match="missing x"):
        await registry.find("m").scheduler.infer(InferRequest("m", {}))


async def test_a_model_that_takes_too_long_is_ended_and_comes_again(add, serve):
    add(EVALUATE)
    registry = await serve(python_execute_seconds=1)

    with pytest.raises(EngineFault, match="has not answered within 1 s, and was ended"):
        await _ask(registry, "time.sleep(600)")

    assert await _ask(registry, "1 + 1") == 2


async def test_who_has_a_deadline_is_told_then_whatever_the_model_does(add, serve):
    add(EVALUATE)
    registry = await serve()
    await _ask(registry, "1")

    with pytest.raises(DeadlineExceeded):
        await _ask(registry, "time.sleep(1)", deadline_ns=time.monotonic_ns() + 300_000_000)


async def test_a_model_asks_other_models(add, serve, repository, models):
    repository.add("identity", models.identity(), config="max_batch_size: 4")
    add(EVALUATE)
    registry = await serve()
    ask = (
        "(lambda a: a.error().message() if a.has_error() else a.output_tensors()[0].as_numpy()"
        ".tolist())(pb.InferenceRequest(model_name={name!r}, requested_output_names=['y'], "
        "inputs=[pb.Tensor('x', np.array([[1, 2]], np.float32))]).exec())"
    )

    assert await _ask(registry, ask.format(name="identity")) == [[1, 2]]
    assert "Model nope - Error when running inference" in await _ask(
        registry, ask.format(name="nope")
    )
    assert await _ask(registry, "[pb.is_model_ready('identity'), pb.is_model_ready('x')]") == [
        True,
        False,
    ]


async def test_output_and_log_of_a_model_are_in_the_log(add, serve, caplog):
    caplog.set_level("DEBUG")
    add(EVALUATE)
    registry = await serve()

    await _ask(registry, "[print('to stdout'), print('to stderr', file=sys.stderr)]")
    await _ask(registry, "pb.Logger.log_warn('careful')")
    await registry.close(drain_seconds=60)

    assert "m_0: to stdout" in caplog.text
    assert "m_0: to stderr" in caplog.text
    assert ("serving.python_process", 30, "m_0: careful") in caplog.record_tuples


async def test_models_finalize_and_no_process_is_left(add, serve, repository):
    add(EVALUATE, TEXTS + "instance_group { count: 2 }")
    registry = await serve()
    pids = {await _ask(registry, "os.getpid()") for _ in range(2)}

    await registry.close(drain_seconds=60)

    assert (repository.root / "m" / "finalized").exists()
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


DECOUPLED = TEXTS + "model_transaction_policy { decoupled: true }"
COUNT = """
    def execute(self, requests):
        for request in requests:
            threading.Thread(target=self.send, args=[request]).start()
    def send(self, request):
        sender, text = request.get_response_sender(), text_of(request)
        if text == "die":
            os._exit(3)
        for number in range(int(text)):
            if request.is_cancelled():
                pathlib.Path(pb.get_model_dir(), "cancelled").touch()
                return
            sender.send(answer(request, number))
        sender.send(flags=pb.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
"""


async def _stream(registry, text):
    stream = registry.find("m").scheduler.stream(_request(text))
    return [json.loads(one.outputs["y"][0]) async for one in stream]


async def test_a_decoupled_model_answers_as_often_as_it_likes(add, serve):
    add(COUNT, DECOUPLED)
    registry = await serve()

    assert await _stream(registry, "0") == []
    assert await _stream(registry, "500") == list(range(500))
    with pytest.raises(Unsupported, match="it is for streams only"):
        await _ask(registry, "1")
    with pytest.raises(EngineFault, match="the worker process ended"):
        await _stream(registry, "die")
    assert await _stream(registry, "2") == [0, 1]


async def test_a_stream_that_is_left_is_cancelled_in_the_model(add, serve, repository):
    add(COUNT, DECOUPLED)
    registry = await serve()
    stream = registry.find("m").scheduler.stream(_request("1000000000"))
    await anext(stream)

    await stream.aclose()

    mark = repository.root / "m" / "1" / "cancelled"
    async with asyncio.timeout(60):
        while not mark.exists():
            await asyncio.sleep(0.01)
    assert await _stream(registry, "2") == [0, 1]
