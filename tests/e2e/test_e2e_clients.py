"""What the four official clients offer, through each of them, with and without TLS.

Header fields, compression, streams, shared memory; ensembles and Python models; a worker process
that is killed.
"""

import json
import os
import signal
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import trustme
from tritonclient.utils import InferenceServerException, shared_memory

from conformance import repository as cases

SERVED = ("identity_fp32", "simple", "sum_of_sums", "tell", "repeat", "fail")
ROW = np.array([[1.5, -2.0]], dtype=np.float32)
TEXT = np.array([b"x"], dtype=np.object_)
WORKER = """
import os, time
import numpy as np
import triton_python_backend_utils as pb

class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            path = pb.get_input_tensor_by_name(request, "INPUT0").as_numpy().ravel()[0].decode()
            if path:
                with open(path, "w") as fifo:
                    fifo.write(str(os.getpid()))
                time.sleep(600)
        pid = np.array([os.getpid()], dtype=np.int32)
        return [pb.InferenceResponse([pb.Tensor("OUTPUT0", pid)]) for _ in requests]
"""
WORKER_CONFIG = """
backend: "python"
input { name: "INPUT0" data_type: TYPE_STRING dims: [ 1 ] }
output { name: "OUTPUT0" data_type: TYPE_INT32 dims: [ 1 ] }
"""


def write_models(root):
    for model in cases.test_models():
        if model.name in SERVED:
            for path, data in {**model.files, "config.pbtxt": model.config.encode()}.items():
                target = root / model.name / path
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(data)
            (root / model.name / "1").mkdir(exist_ok=True)
    (root / "worker/1").mkdir(parents=True)
    (root / "worker/1/model.py").write_text(WORKER)
    (root / "worker/config.pbtxt").write_text(WORKER_CONFIG)


@pytest.fixture(scope="module", params=["plain", "tls"])
def secure(request):
    return request.param == "tls"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("clients")


@pytest.fixture(scope="module")
def certificates(folder):
    """The flags of a server with TLS; its authority is in ca.pem."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    server = authority.issue_cert("localhost", "127.0.0.1")
    server.private_key_and_cert_chain_pem.write_to_path(folder / "server.pem")
    return (
        f"--tls-certificate={folder / 'server.pem'}",
        f"--tls-key={folder / 'server.pem'}",
    )


@pytest.fixture(scope="module")
def gateway(gateway_over, front_end, secure, folder, certificates, tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    write_models(root)
    flags = [
        f"--front-end={front_end}",
        "--grpc-header-forward-pattern=^x-",
        "--http-header-forward-pattern=^x-",
        *(certificates if secure else ()),
    ]
    running = gateway_over(root, *flags, errors=folder / f"stderr-{front_end}-{secure}")
    yield running
    code, _, errors = running.stop()
    assert code == 0, errors


@pytest.fixture(scope="module")
def authority(folder, secure):
    return folder / "ca.pem" if secure else None


def test_header_fields_that_match_become_parameters_of_the_request(talk):
    async def conversation(client):
        headers = {"x-tenant": "blue", "x-trace": "7", "other": "hidden"}
        answers = []
        for _ in range(3):  # never answered from what was learned
            answer = await client.infer("tell", inputs={"INPUT0": TEXT}, headers=headers)
            answers.append(json.loads(answer.as_numpy("OUTPUT0")[0])["parameters"])
        answer = await client.infer("tell", inputs={"INPUT0": TEXT})
        return answers, json.loads(answer.as_numpy("OUTPUT0")[0])["parameters"]

    with_headers, without = talk(conversation)

    assert with_headers == [{"x-tenant": "blue", "x-trace": "7"}] * 3
    assert without == {}


def test_a_header_field_wins_over_a_parameter_of_the_body(talk):
    async def conversation(client):
        answer = await client.infer(
            "tell",
            inputs={"INPUT0": TEXT},
            headers={"x-tenant": "of the proxy"},
            parameters={"x-tenant": "of the client", "colour": "red"},
        )
        return json.loads(answer.as_numpy("OUTPUT0")[0])["parameters"]

    assert talk(conversation) == {"x-tenant": "of the proxy", "colour": "red"}


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_requests_and_answers_may_be_compressed(talk, coding):
    large = np.zeros((1, 5000), dtype=np.float32)

    async def conversation(client):
        options = client.compressed(coding)
        return [
            (await client.infer("identity_fp32", inputs={"INPUT0": array}, **options)).as_numpy(
                "OUTPUT0"
            )
            for array in (ROW, large, ROW, large)
        ]

    for answer, array in zip(talk(conversation), (ROW, large) * 2, strict=True):
        assert answer.tolist() == array.tolist()


def test_tensors_go_through_shared_memory(talk):
    key = f"/test-{uuid.uuid4().hex}"
    handle = shared_memory.create_shared_memory_region(key, key, 64)

    async def conversation(client):
        await client.call("register_system_shared_memory", "r", key, 64)
        tensor = client.tensors.InferInput("INPUT0", [1, 2], "FP32")
        tensor.set_shared_memory("r", 8)
        wished = client.tensors.InferRequestedOutput("OUTPUT0")
        wished.set_shared_memory("r", 8, offset=8)
        await client.call("infer", "identity_fp32", [tensor], outputs=[wished])
        await client.call("unregister_system_shared_memory", "r")

    try:
        shared_memory.set_shared_memory_region(handle, [ROW])
        talk(conversation)
        answer = shared_memory.get_contents_as_numpy(handle, np.float32, [1, 2], offset=8)
        assert answer.tolist() == ROW.tolist()
    finally:
        shared_memory.destroy_shared_memory_region(handle)


def test_an_ensemble_answers_and_tells_which_of_its_models_fails(talk):
    a, b = (np.full((1, 16), value, dtype=np.int32) for value in (5, 3))

    async def conversation(client):
        answer = await client.infer("sum_of_sums", inputs={"INPUT0": a, "INPUT1": b})
        with pytest.raises(InferenceServerException) as fault:
            await client.infer("sum_of_sums", inputs={"INPUT0": a})
        return answer.as_numpy("OUTPUT0"), answer.as_numpy("OUTPUT1"), str(fault.value)

    first, second, fault = talk(conversation)

    assert (first == 10).all()
    assert (second == 6).all()
    assert "missing INPUT1" in fault


def test_a_python_model_answers_and_its_errors_arrive(talk):
    async def conversation(client):
        answer = await client.infer("tell", inputs={"INPUT0": TEXT}, request_id="q")
        with pytest.raises(InferenceServerException, match="answered on purpose"):
            await client.infer("fail", inputs={"INPUT0": np.array([b"error"], np.object_)})
        with pytest.raises(InferenceServerException, match="for streams only"):
            await client.infer("repeat", inputs={"INPUT0": np.array([2], np.int32)})
        return json.loads(answer.as_numpy("OUTPUT0")[0])

    told = talk(conversation)

    assert (told["model"], told["greeting"], told["id"]) == ("tell", "hello", "q")


def test_a_model_answers_as_often_as_it_likes_in_a_stream(talk):
    async def conversation(client):
        if not client.over_grpc:
            return None  # the clients over HTTP have no streams
        tensor = client.input("INPUT0", np.array([3], np.int32))
        if client.name == "grpc.aio":
            return await _streamed_aio(client.raw, tensor)
        return _streamed(client.raw, tensor)

    assert talk(conversation) in (None, [0, 1, 2])


async def _streamed_aio(client, tensor):
    async def requests():
        yield {"model_name": "repeat", "inputs": [tensor]}

    answers = client.stream_infer(requests(), headers={"x-tenant": "blue"})
    return [int(result.as_numpy("OUTPUT0")[0]) async for result, _ in answers]


def _streamed(client, tensor):
    numbers, last = [], threading.Event()

    def keep(result, error):
        numbers.append(error or int(result.as_numpy("OUTPUT0")[0]))
        if error or len(numbers) == 3:
            last.set()

    client.start_stream(keep, headers={"x-tenant": "blue"})
    client.async_stream_infer("repeat", [tensor])
    last.wait(60)
    client.stop_stream()
    return numbers


def test_a_worker_that_is_killed_fails_its_request_and_comes_back(talk, tmp_path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    path = np.array([str(fifo).encode()], np.object_)

    async def conversation(client):
        with ThreadPoolExecutor(1) as pool:
            killing = pool.submit(_killed, fifo)
            with pytest.raises(InferenceServerException, match=r"'worker'.* SIGKILL") as fault:
                await client.infer("worker", inputs={"INPUT0": path})
            killed = killing.result()
        assert await client.call("is_server_live")
        answer = await client.infer("worker", inputs={"INPUT0": np.array([b""], np.object_)})
        return killed, int(answer.as_numpy("OUTPUT0")[0]), fault.value.status()

    killed, now, status = talk(conversation)

    assert now not in (0, killed)
    assert status in ("StatusCode.INTERNAL", "500")


def _killed(fifo: Path) -> int:
    """Kill the process that begins to execute, and says who it is."""
    pid = int(fifo.read_text())
    os.kill(pid, signal.SIGKILL)
    return pid
