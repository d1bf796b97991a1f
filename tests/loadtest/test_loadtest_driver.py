"""Intended times, failures, bounds: on a virtual clock, against servers made of a few lines."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest

from loadtest.connection import RequestFailed
from loadtest.driver import SATURATED, Limits, Recording, drive
from loadtest.schedule import ClosedLoop, Load, OpenLoop, poisson_arrivals_ns
from ridgeline.errors import InvalidInput

S = 1_000_000_000


class OneAtATime:
    """A server that takes `service_s` per request, in order, and stalls once for `stall_s`."""

    def __init__(self, *, service_s: float, stall_at: int = -1, stall_s: float = 0.0) -> None:
        self._service_s, self._stall_at, self._stall_s = service_s, stall_at, stall_s
        self._engine = asyncio.Lock()
        self.served = 0

    def service_of(self, number: int) -> float:
        return self._service_s + (self._stall_s if number == self._stall_at else 0)

    async def send(self) -> None:
        async with self._engine:
            number, self.served = self.served, self.served + 1
            await asyncio.sleep(self.service_of(number))


@pytest.fixture
def record(virtual_loop: Any) -> Callable[..., Recording]:
    def run(
        send: Callable[[], Awaitable[None]],
        *,
        load: Load,
        duration_s: float = 1.0,
        limits: Limits | None = None,
    ) -> Recording:
        return virtual_loop.run_until_complete(
            drive(
                send,
                load=load,
                duration_s=duration_s,
                limits=limits,
                seed=7,
                clock_ns=virtual_loop.time_ns,
            )
        )

    return run


def by_intended_time(recording: Recording) -> tuple[Any, Any]:
    order = np.argsort(recording.intended_ns, kind="stable")
    return recording.intended_ns[order], recording.done_ns[order]


def test_a_stalled_server_is_charged_for_every_request_it_kept_waiting(record):
    server = OneAtATime(service_s=0.001, stall_at=20, stall_s=2.0)
    load = OpenLoop(rate_per_s=50)
    recording = record(server.send, load=load, duration_s=4.0)

    intended_ns, done_ns = by_intended_time(recording)
    assert intended_ns.tolist() == poisson_arrivals_ns(load, duration_s=4.0, seed=7).tolist()
    # Lindley's recursion, by hand: a request starts when it arrives or when the last one is done.
    expected_ns, free_ns = [], 0
    for number, arrival_ns in enumerate(intended_ns.tolist()):
        free_ns = max(free_ns, arrival_ns) + round(S * server.service_of(number))
        expected_ns.append(free_ns)
    np.testing.assert_allclose(done_ns, expected_ns, atol=1000)
    stalled = intended_ns[20]
    during = (intended_ns > stalled) & (intended_ns < stalled + S)
    assert during.sum() > 25
    assert (done_ns - intended_ns)[during].min() > S  # each waited for the rest of the stall
    assert recording.latencies_ns.max() >= 2 * S


def test_the_open_loop_sends_on_time_however_slow_the_server_is(record):
    server = OneAtATime(service_s=0.5)
    recording = record(server.send, load=OpenLoop(rate_per_s=20), limits=Limits(drain_s=60))
    assert recording.send_lags_ns.max() <= 1
    assert recording.answered.all()
    assert recording.elapsed_ns > 5 * S  # it lasted until the last answer


def test_a_request_that_the_client_sent_late_counts_from_when_it_was_due(record, virtual_loop):
    sent = 0

    async def send() -> None:
        nonlocal sent
        sent += 1
        if sent == 10:
            virtual_loop.pass_s(0.25)  # the client is blocked: a pause of its own
        await asyncio.sleep(0.001)

    load = OpenLoop(rate_per_s=100)
    recording = record(send, load=load)
    intended_ns, _ = by_intended_time(recording)
    assert intended_ns.tolist() == poisson_arrivals_ns(load, duration_s=1.0, seed=7).tolist()
    late = recording.send_lags_ns > 0.1 * S
    assert late.sum() > 5  # those due while the client was blocked
    assert (recording.latencies_ns[late] > 0.101 * S).all()


def test_in_the_closed_loop_a_slot_is_free_when_its_last_request_was_answered(record):
    server = OneAtATime(service_s=0.01, stall_at=5, stall_s=0.3)
    recording = record(server.send, load=ClosedLoop(concurrency=1))
    assert recording.intended_ns[0] == 0
    np.testing.assert_array_equal(recording.intended_ns[1:], recording.done_ns[:-1])
    # 0.3 s go to the stall; of the other 0.7 s each request takes 10 ms.
    assert len(recording.done_ns) == 70
    assert recording.latencies_ns[5] == pytest.approx(0.31 * S, abs=10)


def test_the_closed_loop_keeps_as_many_requests_under_way_as_it_has_slots(record):
    under_way, most = 0, 0

    async def send() -> None:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.01)
        under_way -= 1

    recording = record(send, load=ClosedLoop(concurrency=5))
    assert most == 5
    assert len(recording.done_ns) == 500


def test_failures_are_counted_by_status_and_the_first_is_kept(record):
    number = 0

    async def send() -> None:
        nonlocal number
        number += 1
        await asyncio.sleep(0.01)
        if number % 4 == 1:
            raise RequestFailed(status="UNAVAILABLE", detail=f"queue full at {number}")
        if number % 4 == 2:
            raise RequestFailed(status="TIMEOUT", detail="too late")

    recording = record(send, load=ClosedLoop(concurrency=1))
    assert set(recording.failures) == {"UNAVAILABLE", "TIMEOUT"}
    assert recording.first_failure == "UNAVAILABLE: queue full at 1"
    assert recording.stopped is None
    assert len(recording.latencies_ns) == np.count_nonzero(recording.answered)
    assert recording.requests == len(recording.latencies_ns) + sum(recording.failures.values())


@pytest.mark.parametrize("load", [OpenLoop(rate_per_s=200), ClosedLoop(concurrency=3)])
def test_a_server_that_died_ends_the_run_early_and_says_so(record, virtual_loop, load):
    async def send() -> None:
        if virtual_loop.time() > 2:
            raise RequestFailed(status="UNAVAILABLE", detail="connection refused")
        await asyncio.sleep(0.01)

    recording = record(send, load=load, duration_s=1000.0)
    assert recording.stopped is not None
    assert "answers no more" in recording.stopped
    assert "connection refused" in recording.stopped
    assert 7 < virtual_loop.time() < 8  # five seconds of silence after the second second
    assert recording.elapsed_ns < 2.1 * S


def test_refusals_between_answers_do_not_end_the_run(record):
    number = 0

    async def send() -> None:
        nonlocal number
        number += 1
        if number % 100:
            raise RequestFailed(status="UNAVAILABLE", detail="queue full")
        await asyncio.sleep(0.01)

    recording = record(send, load=OpenLoop(rate_per_s=1000), duration_s=20.0)
    assert recording.stopped is None


@pytest.mark.parametrize("load", [OpenLoop(rate_per_s=10), ClosedLoop(concurrency=4)])
def test_requests_that_are_never_answered_are_waited_for_only_so_long(record, virtual_loop, load):
    async def send() -> None:
        await asyncio.sleep(1e6)

    recording = record(send, load=load, duration_s=3.0, limits=Limits(drain_s=2.0))
    assert virtual_loop.time() == pytest.approx(5.0, abs=0.2)
    assert recording.unanswered == recording.requests > 0
    assert not recording.answered.any()


def test_more_requests_than_may_be_under_way_are_failures_of_the_client(record):
    async def send() -> None:
        await asyncio.sleep(10)

    limits = Limits(max_outstanding=8, drain_s=60)
    recording = record(send, load=OpenLoop(rate_per_s=100), limits=limits)
    assert np.count_nonzero(recording.answered) == 8
    assert recording.failures == {SATURATED: recording.requests - 8}
    assert recording.requests > 60


def test_a_fault_of_ours_is_raised_and_not_counted(record):
    async def send() -> None:
        raise ZeroDivisionError("a bug")

    with pytest.raises(ExceptionGroup) as caught:
        record(send, load=ClosedLoop(concurrency=2))
    assert caught.group_contains(ZeroDivisionError)


def test_limits_refuse_nonsense():
    with pytest.raises(InvalidInput, match="max_outstanding must be positive, received 0"):
        Limits(max_outstanding=0)
    with pytest.raises(InvalidInput, match="drain_s must not be negative"):
        Limits(drain_s=-1)
