"""Many callers at once, those that leave, a queue that is full, and a stop while there is work."""

import contextlib
import json
import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection

import numpy as np
import pytest
from geventhttpclient.response import HTTPParseError
from tritonclient.utils import InferenceServerException

from tests.e2e.official_clients import PROTOCOLS, ask, connect, same, tensors

SLOW = 200_000  # products one after the other for an input of ones: a few tenths of a second
ONE_BY_ONE = "max_batch_size: 1 instance_group { count: 1 }"


def test_concurrent_callers_receive_their_own_answers_from_shared_batches(
    repository, models, start
):
    config = "max_batch_size: 32 instance_group { count: 1 }"
    repository.add("slow", models.slow(SLOW // 10), config=config)
    gateway = start()
    inputs = [np.full((1 + n % 3, 2), 1 + n / 100, np.float32) for n in range(24)]

    def call(n):
        return ask(gateway, ("grpc", "http")[n % 2], "slow", {"x": inputs[n]})

    with ThreadPoolExecutor(24) as threads:
        answers = list(threads.map(call, range(24)))

    for x, answer in zip(inputs, answers, strict=True):
        assert same(answer.as_numpy("y"), x)
    assert gateway.metric("nv_inference_request_success", model="slow") == 24
    assert gateway.metric("nv_inference_exec_count", model="slow") <= 12


def test_a_poisoned_request_fails_alone_in_a_burst(repository, models, start):
    repository.add("lookup", models.lookup())
    gateway = start()

    def call(n):
        try:
            answer = ask(gateway, "grpc", "lookup", {"index": np.array([[n % 4]])})
        except InferenceServerException as error:
            return error.status()
        return answer.as_numpy("y").item()

    with ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(call, range(32)))

    assert answers == [10, 20, 30, "StatusCode.INTERNAL"] * 8
    assert gateway.metric("nv_inference_request_failure", reason="BACKEND") == 8


def test_the_metrics_count_exactly_what_was_asked(repository, models, start):
    repository.add("m", models.dense(3, 5))
    gateway = start()
    for rows in (1, 2, 4):
        ask(gateway, "grpc", "m", {"x": np.ones((rows, 3), np.float32)})
    with pytest.raises(InferenceServerException):
        ask(gateway, "http", "m", {"x": np.ones((1, 4), np.float32)})

    values = {
        name: gateway.metric(name, model="m")
        for name in (
            "nv_inference_request_success",
            "nv_inference_count",
            "nv_inference_exec_count",
            "nv_inference_pending_request_count",
            "nv_inference_queue_duration_histogram_us_count",
            "ridgeline_batch_rows_sum",
            "ridgeline_model_flops_per_sample",
            "ridgeline_model_parameters",
            "ridgeline_model_ready",
        )
    }
    assert list(values.values()) == [3, 7, 3, 0, 3, 7, 30, 15, 1]
    assert gateway.metric("ridgeline_invalid_requests") == 1
    assert gateway.metric("nv_inference_request_duration_us") > 0
    code, result, errors = gateway.stop()
    assert (code, result, errors) == (0, {"answered_requests": 3}, "")


@pytest.fixture
def busy(repository, models, start):
    """A gateway whose only model takes its time, one request after the other."""
    repository.add("slow", models.slow(SLOW), config=ONE_BY_ONE)
    return start()


def _until(condition):
    while not condition():
        pass


def test_every_request_accepted_before_sigterm_is_answered(busy):
    inputs = [np.full((1, 2), 1 + n / 100, np.float32) for n in range(8)]

    def call(n):
        return ask(busy, ("grpc", "http")[n % 2], "slow", {"x": inputs[n]}).as_numpy("y")

    with ThreadPoolExecutor(8) as threads:
        answers = [threads.submit(call, n) for n in range(8)]
        _until(lambda: _accepted(busy) >= 7)  # and one with the engine
        code, result, errors = busy.stop()

    for x, answer in zip(inputs, answers, strict=True):
        assert same(answer.result(), x)
    assert (code, result, errors) == (0, {"answered_requests": 8}, "")
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"http://{busy.http_url}/v2/health/live")


def _accepted(gateway):
    return gateway.metric("nv_inference_pending_request_count", model="slow") + gateway.metric(
        "nv_inference_request_success", model="slow"
    )


def test_what_cannot_be_answered_in_time_is_cut_short(repository, models, start):
    repository.add("slow", models.slow(SLOW * 100_000), config=ONE_BY_ONE)  # hours
    gateway = start("--drain-seconds", "1")
    x = {"x": np.ones((1, 2), np.float32)}

    with ThreadPoolExecutor(2) as threads:
        calls = [threads.submit(ask, gateway, protocol, "slow", x) for protocol in PROTOCOLS]
        _until(lambda: gateway.metric("nv_inference_pending_request_count", model="slow") >= 1)
        code, result, _ = gateway.stop()

    assert (code, result) == (0, {"answered_requests": 0})
    for call in calls:
        assert call.exception() is not None


def _given_up(gateway):
    """Whoever notices first counts it: the gateway that it is late, or that its client has gone."""
    reasons = ("CANCELED", "REJECTED")
    return sum(gateway.metric("nv_inference_request_failure", reason=each) for each in reasons)


def test_a_client_that_goes_away_gives_its_place_in_the_queue_up(busy):
    x = np.ones((1, 2), np.float32)
    with ThreadPoolExecutor(2) as threads:
        running = [threads.submit(ask, busy, "grpc", "slow", {"x": x}) for _ in range(2)]
        _until(lambda: busy.metric("nv_inference_pending_request_count", model="slow") >= 1)

        body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}]}
        leaving = HTTPConnection(busy.http_url)
        leaving.request("POST", "/v2/models/slow/infer", json.dumps(body))
        _until(lambda: _accepted(busy) >= 2)
        leaving.close()
        _until(lambda: busy.metric("nv_inference_request_failure", reason="CANCELED") == 1)
        while _given_up(busy) < 2:  # where it is late before it was sent, the gateway sees nothing
            with pytest.raises(InferenceServerException, match=r"DEADLINE_EX|RESOURCE_EXHAUSTED"):
                ask(busy, "grpc", "slow", {"x": x}, client_timeout=0.01)

        assert [same(call.result().as_numpy("y"), x) for call in running] == [True, True]
    code, result, errors = busy.stop()
    assert (code, result, errors) == (0, {"answered_requests": 2}, "")


def test_a_full_queue_refuses_on_both_protocols(repository, models, start):
    repository.add("slow", models.slow(SLOW), config=ONE_BY_ONE)
    gateway = start("--max-queue-size", "1")
    x = {"x": np.ones((1, 2), np.float32)}

    def call(n):
        try:
            return ask(gateway, ("grpc", "http")[n % 2], "slow", x).as_numpy("y").shape
        except InferenceServerException as error:
            return error.status(), error.message()[:48]

    with ThreadPoolExecutor(8) as threads:
        outcomes = set(threads.map(call, range(8)))

    text = "model 'slow': Exceeds maximum queue size of 1 wa"
    assert (1, 2) in outcomes
    assert outcomes <= {(1, 2), ("429", text), ("StatusCode.RESOURCE_EXHAUSTED", text)}
    assert len(outcomes) > 1


def test_two_gateways_under_mixed_load_stop_cleanly(repository, models, start):
    repository.add("m", models.slow(SLOW // 100))
    gateways = [start(), start()]
    stopping = threading.Event()

    def hammer(n):
        gateway, protocol, answered = gateways[n % 2], ("grpc", "http")[n // 2 % 2], 0
        x = np.full((1, 2), 1 + n / 10, np.float32)
        with connect(gateway, protocol) as client:
            while not stopping.is_set():
                answer = client.infer("m", tensors(protocol, {"x": x}))
                assert same(answer.as_numpy("y"), x)
                answered += 1
            with contextlib.suppress(InferenceServerException, OSError, HTTPParseError):
                while True:  # until nobody answers any more
                    client.infer("m", tensors(protocol, {"x": x}))
                    answered += 1
        return answered

    with ThreadPoolExecutor(8) as threads:
        calls = [threads.submit(hammer, n) for n in range(8)]
        try:
            for gateway in gateways:
                _until(lambda g=gateway: g.metric("nv_inference_request_success", model="m") >= 50)
        finally:
            stopping.set()
            with ThreadPoolExecutor(2) as stoppers:
                endings = list(stoppers.map(lambda gateway: gateway.stop(), gateways))

    for n, (code, result, errors) in enumerate(endings):
        assert (code, errors) == (0, "")
        assert result["answered_requests"] >= sum(call.result() for call in calls[n::2])
