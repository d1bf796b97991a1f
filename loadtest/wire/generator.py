"""A load generator that costs little: requests made beforehand, put on the wire by hand.

Usage: python -m loadtest.wire.generator --json-spec TEXT (or `-`, to read it from standard input);
prints JSON. A process of its own, so that nothing else runs in it. `Spec` says what it takes.
"""

import argparse
import asyncio
import gc
import itertools
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import uvloop

from loadtest.wire.answers import Answers, to_arrays
from loadtest.wire.frames import Call
from loadtest.wire.http1 import Http1Line, Post
from loadtest.wire.http2 import Http2Line
from loadtest.wire.ledger import LOST, Entries, Ledger, Line
from loadtest.wire.report import ClientCost, summarise
from loadtest.wire.spec import Spec
from loadtest.wire.timer import Timer
from ridgeline.errors import RidgelineError, Unavailable

_NS_PER_S = 1_000_000_000
_LEAST_WAIT_NS = 50_000  # many requests a second are sent together, rather than woken up for
_TICK_S = 0.001  # libuv's timers are no finer
_CALM_TICK_S = 0.01  # where nothing waits for it: each tick takes a core away from the server
_CONNECT_TIMEOUT_S = 10.0
_DRAWN_KINDS = 4096


@dataclass(frozen=True)
class Outcome:
    """The entries of a run, and what it cost the client."""

    entries: Entries
    client: ClientCost
    answers: Answers | None = None

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Every request's times, how it ended, and the answers that were kept, for an .npz file."""
        names = ("intended_ns", "sent_ns", "done_ns", "statuses", "kinds")
        arrays: dict[str, np.ndarray] = {name: getattr(self.entries, name) for name in names}
        if self.answers:
            arrays |= to_arrays(self.answers.variants())
            arrays["answers_unseen"] = np.array(self.answers.unseen)
        return arrays


async def drive(spec: Spec) -> Outcome:
    """Run it. Raises Unavailable where the server cannot be reached."""
    answers = Answers(len(spec.classes)) if spec.keep_answers else None
    ledger = Ledger([each.deadline_ns for each in spec.classes], answers=answers)
    run = _ClosedLoop(spec, ledger=ledger) if spec.in_flight else _OpenLoop(spec, ledger=ledger)
    try:
        async with asyncio.timeout(_CONNECT_TIMEOUT_S):
            run.lines += await _connect(spec, ledger=ledger, run=run)
    except (OSError, TimeoutError) as error:
        raise Unavailable(f"{spec.host}:{spec.port} cannot be reached: {error}") from error
    gc.collect()
    gc.freeze()  # nothing of this run is garbage before its end
    gc.disable()
    try:
        return await run.run()
    finally:
        gc.enable()
        gc.unfreeze()
        for line in run.lines:
            line.close()
        await asyncio.sleep(0)  # for the sockets to be closed


async def _connect(spec: Spec, *, ledger: Ledger, run: "_Run") -> Sequence[Line]:
    if spec.protocol == "http":
        posts = [
            Post(spec.path, each.message(), each.deadline_ns, each.headers) for each in spec.classes
        ]
        pool = Http1Line(
            posts,
            ledger=ledger,
            address=(spec.host, spec.port),
            connections=spec.connections,
            progressed=run.progressed,
        )
        await pool.connect()
        return [pool]
    calls = [Call(spec.path, each.message(), each.deadline_ns) for each in spec.classes]
    loop, lines = asyncio.get_running_loop(), []
    for _ in range(spec.connections):
        line = Http2Line(
            calls,
            ledger=ledger,
            authority=f"{spec.host}:{spec.port}",
            progressed=run.progressed,
        )
        await loop.create_connection(lambda line=line: line, spec.host, spec.port)  # type: ignore[misc]
        await line.ready
        lines.append(line)
    return lines


class _Run:
    """What both loops share: a tick every millisecond, or fewer, and an end."""

    def __init__(self, spec: Spec, *, ledger: Ledger) -> None:
        self.spec, self.ledger = spec, ledger
        self.lines: list[Line] = []
        self.load_ns = int(spec.load_s * _NS_PER_S)
        self.tick_s = _TICK_S
        self._turn = 0
        self._handed: list[tuple[int, int]] = []  # how many requests at once, and when
        self._started = False

    def progressed(self, line: Line, answered: int) -> None:
        """A line has read something; so many of its requests were answered."""
        raise NotImplementedError

    def tick(self, now_ns: int) -> None:
        """Send what is due."""
        raise NotImplementedError

    @property
    def count(self) -> int:
        """How many requests were due."""
        raise NotImplementedError

    async def run(self) -> Outcome:
        """Send until the end, then wait for what is under way; a lost server is an end, too."""
        ledger = self.ledger
        cpu_ns, ledger.start_ns, self._started = time.process_time_ns(), time.monotonic_ns(), True
        self.started()
        while (now_ns := ledger.now_ns()) < self.load_ns:
            self.tick(now_ns)
            await self._pause()
            if not any(line.open for line in self.lines):
                self.load_ns = now_ns
        busy = (time.process_time_ns() - cpu_ns) / ledger.now_ns()
        self.ended()
        drained_ns = ledger.now_ns() + int(self.spec.drain_s * _NS_PER_S)
        while ledger.outstanding and ledger.now_ns() < drained_ns:
            await self._pause()
        self._started = False
        used_s = (time.process_time_ns() - cpu_ns) / _NS_PER_S
        entries = self._entries()
        cost = ClientCost(used_s, busy, self._lags_ns(entries))
        return Outcome(entries, cost, ledger.answers)

    def started(self) -> None:
        """The clock runs."""

    def ended(self) -> None:
        """Nothing is to be sent any more."""

    async def _pause(self) -> None:
        for line in self.lines:
            line.give_up()
        left_s = (self.load_ns - self.ledger.now_ns()) / _NS_PER_S
        await asyncio.sleep(max(_TICK_S, min(self.tick_s, left_s)))

    def hand(self, line: Line, requests: range, *, now_ns: int) -> None:
        """Give requests to a line."""
        self.ledger.outstanding += len(requests)
        self._handed.append((len(requests), now_ns))
        line.send(requests)

    def next_line(self) -> Line:
        """The lines in turn, as long as they take requests."""
        for _ in self.lines:
            self._turn = (self._turn + 1) % len(self.lines)
            if self.lines[self._turn].open:
                break
        return self.lines[self._turn]

    def _entries(self) -> Entries:
        return self.ledger.entries(self.count)

    def _lags_ns(self, entries: Entries) -> np.ndarray:
        counts = np.array([count for count, _ in self._handed], dtype=np.int64)
        handed_ns = np.repeat(np.array([now for _, now in self._handed], dtype=np.int64), counts)
        return handed_ns - entries.intended_ns[: len(handed_ns)]


class _ClosedLoop(_Run):
    """`in_flight` requests under way: each answer makes room for the next request.

    One that failed is replaced at the next tick, or a server that refuses would be flooded.
    """

    def __init__(self, spec: Spec, *, ledger: Ledger) -> None:
        super().__init__(spec, ledger=ledger)
        count = len(spec.classes) if spec.in_turn else _DRAWN_KINDS
        self._next_kind = itertools.cycle(spec.kinds(count).tolist()).__next__

    def progressed(self, line: Line, answered: int) -> None:
        now_ns = self.ledger.now_ns()
        if answered and self._started and now_ns < self.load_ns:
            self._send(line, count=answered, now_ns=now_ns)

    def tick(self, now_ns: int) -> None:
        missing = self.spec.in_flight - self.ledger.outstanding
        waited_for = missing or any(self.ledger.deadlines_ns)
        self.tick_s = _TICK_S if waited_for else _CALM_TICK_S
        share = -(-missing // len(self.lines))
        while missing > 0:
            self._send(self.next_line(), count=min(share, missing), now_ns=now_ns)
            missing -= share

    @property
    def count(self) -> int:
        return len(self.ledger.statuses)

    def _send(self, line: Line, *, count: int, now_ns: int) -> None:
        kinds = [self._next_kind() for _ in range(count)]
        self.hand(line, self.ledger.extend([now_ns] * count, kinds=kinds), now_ns=now_ns)


class _OpenLoop(_Run):
    """Requests are sent when they are due, whatever became of those before."""

    def __init__(self, spec: Spec, *, ledger: Ledger) -> None:
        super().__init__(spec, ledger=ledger)
        arrivals_ns = spec.arrivals_ns()
        ledger.extend(arrivals_ns.tolist(), kinds=spec.kinds(len(arrivals_ns)).tolist())
        self._due_ns = [*ledger.intended_ns, sys.maxsize]
        self._next = 0
        self._timer: Timer | None = None

    def started(self) -> None:
        self._timer = Timer(self._on_time)
        self._wake()

    def ended(self) -> None:
        if self._timer:
            self._timer.close()
            self._timer = None

    def _on_time(self) -> None:
        self._send_due(self.next_line(), now_ns=self.ledger.now_ns())
        self._wake()

    def _wake(self) -> None:
        """When the next request is due."""
        if self._timer and self._due_ns[self._next] != sys.maxsize:
            ledger = self.ledger
            at_ns = max(self._due_ns[self._next], ledger.now_ns() + _LEAST_WAIT_NS)
            self._timer.set(ledger.start_ns + at_ns)

    def progressed(self, line: Line, answered: int) -> None:  # noqa: ARG002 - the base's
        if self._started:
            self._send_due(line, now_ns=self.ledger.now_ns())

    def tick(self, now_ns: int) -> None:
        self._send_due(self.next_line(), now_ns=now_ns)

    @property
    def count(self) -> int:
        return len(self.ledger.statuses)

    def _send_due(self, line: Line, *, now_ns: int) -> None:
        first = last = self._next
        while self._due_ns[last] <= now_ns:
            last += 1
        if last > first:
            self._next = last
            self.hand(line, range(first, last), now_ns=now_ns)

    def _entries(self) -> Entries:
        entries = super()._entries()
        if not any(line.open for line in self.lines):
            entries.statuses[self._next :] = LOST  # these were due, and there was no server
        return entries


def main() -> int:
    """Run what the command line tells, print the figures. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.wire.generator", description=__doc__)
    parser.add_argument("--json-spec", required=True, help="the run, as JSON; - reads it")
    text = parser.parse_args().json_spec
    try:
        spec = Spec.from_json(sys.stdin.read() if text == "-" else text)
        if spec.core is not None:
            os.sched_setaffinity(0, {spec.core})
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            outcome = runner.run(drive(spec))
    except (RidgelineError, OSError) as error:
        print(f"wire: {error}", file=sys.stderr)
        return 1
    if spec.raw_path:
        np.savez(spec.raw_path, allow_pickle=False, **outcome.to_arrays())
    figures = summarise(
        outcome.entries,
        client=outcome.client,
        duration_s=spec.load_s,
        closed=bool(spec.in_flight),
        recovers_from_s=spec.last_phase_begins_s,
    )
    print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
