"""System shared memory and what else requests ask for, through all four official clients."""

import uuid
from contextlib import contextmanager

import numpy as np
import pytest
import tritonclient.http
from tritonclient.utils import InferenceServerException, serialize_byte_tensor, shared_memory

ROW = np.array([[1.5, -2.0]], dtype=np.float32)


@pytest.fixture
def gateway(repository, models, start):
    repository.add("identity", models.identity())
    repository.add("texts", models.identity("BYTES"))
    return start()


@contextmanager
def memory(size):
    key = f"/test-{uuid.uuid4().hex}"
    handle = shared_memory.create_shared_memory_region(key, key, size)
    try:
        yield key, handle
    finally:
        shared_memory.destroy_shared_memory_region(handle)


def _in_region(client, name, *, offset=0, size=8, datatype="FP32"):
    tensor = client.tensors.InferInput("x", [1, 2], datatype)
    tensor.set_shared_memory(name, size, offset=offset)
    return tensor


def test_numbers_go_through_shared_memory_and_back(talk):
    with memory(256) as (key, handle):

        async def conversation(client):
            await client.call("register_system_shared_memory", "r", key, 256)
            shared_memory.set_shared_memory_region(handle, [ROW], offset=16)
            wished = client.tensors.InferRequestedOutput("y")
            wished.set_shared_memory("r", 100, offset=100)
            for _ in range(2):  # the second must not be answered from what was learned
                tensor = _in_region(client, "r", offset=16)
                await client.call("infer", "identity", [tensor], outputs=[wished])
            status = await client.call("get_system_shared_memory_status")
            await client.call("unregister_system_shared_memory", "r")
            with pytest.raises(InferenceServerException, match="Unable to find"):
                await client.call("infer", "identity", [_in_region(client, "r")])
            return status

        assert key in str(talk(conversation))
        answer = shared_memory.get_contents_as_numpy(handle, np.float32, [1, 2], offset=100)
        assert answer.tolist() == ROW.tolist()


def test_texts_go_through_shared_memory_and_back(talk):
    texts = np.array([["é", "more"]], dtype=np.object_)
    with memory(256) as (key, handle):

        async def conversation(client):
            await client.call("register_system_shared_memory", "t", key, 256)
            shared_memory.set_shared_memory_region(handle, [serialize_byte_tensor(texts)])
            wished = client.tensors.InferRequestedOutput("y")
            wished.set_shared_memory("t", 100, offset=100)
            tensor = _in_region(client, "t", size=4 + 2 + 4 + 4, datatype="BYTES")
            await client.call("infer", "texts", [tensor], outputs=[wished])
            await client.call("unregister_system_shared_memory")

        talk(conversation)
        answer = shared_memory.get_contents_as_numpy(handle, np.object_, [1, 2], offset=100)
        assert answer.tolist() == [["é".encode(), b"more"]]


def test_a_memory_that_vanishes_while_registered_is_the_clients_error_only(talk):
    with memory(1 << 20) as (key, _):

        async def conversation(client):
            await client.call("register_system_shared_memory", "v", key, 1 << 20)
            with open(f"/dev/shm{key}", "r+b") as file:
                file.truncate(0)
            with pytest.raises(InferenceServerException, match="smaller than when it was"):
                await client.call("infer", "identity", [_in_region(client, "v", offset=8192)])
            with open(f"/dev/shm{key}", "r+b") as file:
                file.truncate(1 << 20)
            await client.call("unregister_system_shared_memory", "v")
            return await client.call("is_server_live")

        assert talk(conversation)


def test_cuda_memory_is_refused_and_classes_are_given(talk):
    async def conversation(client):
        with pytest.raises(InferenceServerException, match="opens no CUDA memory"):
            await client.call("register_cuda_shared_memory", "c", b"AAAA", 0, 8)
        await client.call("unregister_cuda_shared_memory")
        assert not str(await client.call("get_cuda_shared_memory_status")).strip("[]{} \n")
        tensor = client.tensors.InferInput("x", [1, 2], "FP32")
        tensor.set_data_from_numpy(ROW)
        wished = client.tensors.InferRequestedOutput("y", class_count=1)
        answer = await client.call("infer", "identity", [tensor], outputs=[wished])
        return answer.as_numpy("y").tolist()

    assert talk(conversation) == [[b"1.500000:0"]]


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_bodies_are_compressed_both_ways(gateway, coding):
    url = gateway.http_url.removeprefix("http://")
    with tritonclient.http.InferenceServerClient(url) as client:
        for _ in range(3):
            tensor = tritonclient.http.InferInput("x", [1, 2], "FP32")
            tensor.set_data_from_numpy(ROW)
            answer = client.infer(
                "identity",
                [tensor],
                request_compression_algorithm=coding,
                response_compression_algorithm=coding,
            )
            assert answer.as_numpy("y").tolist() == ROW.tolist()
