"""Cases that wait for something: they assume nothing of how fast or wide a server is."""

import threading

import numpy as np
import pytest

from conformance.answer import Answer
from conformance.case import Server, Verdict, put
from conformance.cases import every_case, statistics

_PATIENCE_S = 60


def _case(name):
    return next(case for case in every_case() if case.name == name)


def _put(name, *, at):
    server = Server(at, at)
    server._extensions = frozenset((_case(name).extension,))
    server._ready = dict.fromkeys(_case(name).models, True)
    return put(_case(name), to=server)


class Wide:
    """Holds so many long requests at once, and refuses others as soon as it does."""

    def __init__(self, places):
        self.places, self.held = places, 0
        self.lock, self.full = threading.Lock(), threading.Event()

    def call(self, _method, request, **_options):
        is_long = np.frombuffer(request.raw_input_contents[0], np.float32)[0] > 10
        with self.lock:
            self.held += is_long
            full = self.held >= self.places
        if is_long:
            self.full.wait(_PATIENCE_S)
        elif full:
            self.full.set()
            return Answer("RESOURCE_EXHAUSTED", {"error": "full"})
        return Answer("OK", {})


@pytest.mark.parametrize("places", [1, 40])
@pytest.mark.parametrize("name", ["queue-that-is-full", "timeout-while-another-runs"])
def test_as_many_clients_come_as_keep_a_server_busy(name, places):
    assert _put(f"grpc/schedule/{name}", at=Wide(places)).verdict is Verdict.PASS


class Late:
    """Answers at once, and counts one counter after the other, with every third look."""

    def __init__(self):
        names = [name for name in statistics._DURATIONS if name != "fail"]
        self.counters = dict.fromkeys([*names, "batch", "execution_count", "inference_count"], 0)
        self.due, self.looks = [], 0

    def call(self, method, _request=None, **_options):
        if method == "ModelInfer":
            self.due += self.counters
            return Answer("OK", {})
        self.looks += 1
        if self.due and not self.looks % 3:
            name = self.due.pop(0)
            self.counters[name] += 3 if name == "inference_count" else 1
        counts = dict(self.counters)
        row = {name: counts.pop(name) for name in ("inference_count", "execution_count")}
        sizes = [{"batch_size": 3, "compute_infer": {"count": counts.pop("batch")}}]
        told = {name: {"count": count} for name, count in counts.items()}
        stats = [{**row, "inference_stats": told, "batch_stats": sizes}]
        return Answer("OK", {"model_stats": stats})


@pytest.mark.parametrize("name", ["a-success", "two-successes"])
def test_every_counter_is_waited_for(name, monkeypatch):
    monkeypatch.setattr(statistics, "_PAUSE_S", 0)

    outcome = _put(f"grpc/statistics/counts/{name}", at=Late())

    assert outcome.verdict is Verdict.PASS, outcome.reason
