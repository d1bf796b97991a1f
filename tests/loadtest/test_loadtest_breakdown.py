"""Parts of a latency, by hand."""

import numpy as np
import pytest
from tritonclient.grpc import service_pb2

from loadtest.breakdown import Counters, breakdown
from loadtest.recording import Recording

US, MS = 1_000, 1_000_000


def statistics(*, requests, executions, rows, queue_us, infer_us, packing_us):
    response = service_pb2.ModelStatisticsResponse()
    model = response.model_stats.add(
        name="net", version="1", execution_count=executions, inference_count=rows
    )
    stats = model.inference_stats
    stats.success.count = requests
    stats.queue.ns, stats.compute_infer.ns = queue_us * US, infer_us * US
    stats.compute_input.ns = stats.compute_output.ns = packing_us * US // 2
    return response


def recording(*, client_ms, wire_ms, count=10):
    intended_ns = np.arange(count) * 100 * MS
    sent_ns = intended_ns + int(client_ms * MS)
    return Recording(
        intended_ns=intended_ns,
        sent_ns=sent_ns,
        done_ns=sent_ns + int(wire_ms * MS),
        answered=np.ones(count, dtype=bool),
        failures={},
        first_failure=None,
        unanswered=0,
        elapsed_ns=count * 100 * MS,
        client_cpu_ns=0,
    )


BEFORE = Counters.of(
    statistics(requests=5, executions=5, rows=5, queue_us=500, infer_us=5000, packing_us=100)
)
AFTER = Counters.of(
    statistics(
        requests=15, executions=10, rows=25, queue_us=10_500, infer_us=35_000, packing_us=2100
    )
)


def test_the_parts_are_those_worked_out_by_hand_and_add_up():
    # Of 10 requests: 1 ms queue, 0.2 ms packing, 3 ms compute each; 5 ms on the wire, 0.5 ms late.
    found = breakdown(recording(client_ms=0.5, wire_ms=5), counted=AFTER.since(BEFORE))
    assert found.client_ms == pytest.approx(0.5)
    assert found.queue_ms == pytest.approx(1)
    assert found.packing_ms == pytest.approx(0.2)
    assert found.compute_ms == pytest.approx(3)
    assert found.protocol_ms == pytest.approx(0.8)
    assert found.batch_wait_ms is None
    assert found.rows_per_batch == pytest.approx(4)
    assert found.total_ms == pytest.approx(5.5)


def test_what_a_request_waits_for_its_batch_mates_is_told_apart():
    counted = AFTER.since(BEFORE)
    found = breakdown(recording(client_ms=0, wire_ms=5), counted=counted, alone_ns=1 * MS)
    assert (found.compute_ms, found.batch_wait_ms) == (pytest.approx(1), pytest.approx(2))
    assert found.total_ms == pytest.approx(5)


def test_a_server_that_counted_nothing_leaves_the_parts_unknown():
    assert breakdown(recording(client_ms=0, wire_ms=5), counted=BEFORE.since(BEFORE)) is None
