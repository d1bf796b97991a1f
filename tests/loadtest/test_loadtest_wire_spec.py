"""What the cheap load generator is told."""

import json

import numpy as np
import pytest

from loadtest.wire.spec import DeadlineClass, Phase, Spec
from ridgeline.errors import InvalidInput

ONE = (DeadlineClass("file"),)


def spec(**changes):
    told = {"protocol": "grpc", "port": 1, "path": "/", "classes": ONE}
    return Spec(**(told | {"in_flight": 1, "duration_s": 1.0} | changes))


def test_json_becomes_a_specification():
    text = json.dumps(
        {
            "protocol": "http",
            "port": 80,
            "path": "/x",
            "classes": [{"message_path": "a", "deadline_ms": 20, "weight": 2}],
            "phases": [[10, 2], [5, 1]],
        }
    )
    expected = Spec(
        "http", 80, "/x", (DeadlineClass("a", 20, 2),), phases=(Phase(10, 2), Phase(5, 1))
    )
    assert Spec.from_json(text) == expected
    assert expected.load_s == 3
    assert expected.last_phase_begins_s == 2
    assert expected.classes[0].deadline_ns == 20_000_000


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"protocol": "smtp"}, "protocol"),
        ({"classes": ()}, "at least one class"),
        ({"in_flight": 0}, "in_flight"),
        ({"phases": (Phase(1, 1),)}, "either in_flight"),
        ({"in_flight": -1}, "in_flight"),
        ({"connections": 0}, "connections"),
        ({"duration_s": 0.0}, "lasts"),
        ({"duration_s": 1e6}, "lasts"),
    ],
)
def test_nonsense_is_refused(changes, complaint):
    with pytest.raises(InvalidInput, match=complaint):
        spec(**changes)


@pytest.mark.parametrize("text", ["[]", "{", '{"colour": 1}', '{"classes": [{"weight": 1}]}'])
def test_what_is_no_specification_is_refused(text):
    with pytest.raises(InvalidInput, match="specification"):
        Spec.from_json(text)


@pytest.mark.parametrize("told", [{"deadline_ms": -1}, {"weight": 0}])
def test_a_class_refuses_nonsense(told):
    with pytest.raises(InvalidInput, match="deadline_ms"):
        DeadlineClass("file", **told)


def test_phases_follow_each_other_at_their_rates():
    found = spec(in_flight=0, phases=(Phase(10_000, 1), Phase(1_000, 2)))
    arrivals_ns = found.arrivals_ns()
    assert (np.diff(arrivals_ns) >= 0).all()
    assert np.count_nonzero(arrivals_ns < 10**9) == pytest.approx(10_000, rel=0.05)
    assert np.count_nonzero(arrivals_ns >= 10**9) == pytest.approx(2_000, rel=0.1)
    assert arrivals_ns.tolist() == found.arrivals_ns().tolist()


def test_classes_are_drawn_by_their_weights_and_the_seed():
    classes = (DeadlineClass("a", weight=3), DeadlineClass("b", weight=1))
    kinds = spec(classes=classes, seed=5).kinds(10_000)
    assert np.count_nonzero(kinds == 0) == pytest.approx(7_500, rel=0.05)
    assert kinds.tolist() == spec(classes=classes, seed=5).kinds(10_000).tolist()
    assert kinds.tolist() != spec(classes=classes, seed=6).kinds(10_000).tolist()
