"""Streams through the official clients, on both front ends."""

import asyncio
import queue

import numpy as np
import tritonclient.grpc as grpc_client
import tritonclient.grpc.aio as grpc_aio

ROWS = [np.float32([[number, -number]]) for number in range(300)]


def _input(row):
    tensor = grpc_client.InferInput("x", row.shape, "FP32")
    tensor.set_data_from_numpy(row)
    return tensor


def test_a_stream_answers_in_order_and_goes_on_behind_an_error(gateway):
    answers = queue.SimpleQueue()
    client = grpc_client.InferenceServerClient(gateway.grpc_url)
    client.start_stream(lambda result, error: answers.put((result, error)))

    client.async_stream_infer("nobody", [_input(ROWS[0])], request_id="wrong")
    for number, row in enumerate(ROWS):
        client.async_stream_infer("identity_FP32", [_input(row)], request_id=str(number))
    received = [answers.get(timeout=60) for _ in range(1 + len(ROWS))]
    client.stop_stream()
    client.close()

    assert "unknown model" in str(received[0][1])
    for number, (result, error) in enumerate(received[1:]):
        assert error is None
        assert result.get_response().id == str(number)
        assert np.array_equal(result.as_numpy("y"), ROWS[number])


def test_the_asynchronous_client_streams(gateway):
    async def ask():
        async def requests():
            for row in ROWS:
                yield {"model_name": "identity_FP32", "inputs": [_input(row)]}

        async with grpc_aio.InferenceServerClient(gateway.grpc_url) as client:
            return [pair async for pair in client.stream_infer(requests())]

    received = asyncio.run(ask())

    assert all(error is None for _, error in received)
    assert [result.as_numpy("y").tolist() for result, _ in received] == [
        row.tolist() for row in ROWS
    ]
