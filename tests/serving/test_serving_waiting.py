"""The waiting room: order, rows, shapes, and that nothing is lost."""

from collections.abc import Hashable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from serving.waiting import Waiting, WaitingRoom


def _waiting(*, rows: int = 1, shape: Hashable = None, arrived_ns: int) -> Waiting:
    future: Any = None  # the room does not look at it
    return Waiting(
        inputs={},
        outputs=(),
        rows=rows,
        shape_key=shape,
        future=future,
        arrived_ns=arrived_ns,
        deadline_ns=None,
    )


def test_an_empty_room_gives_an_empty_batch():
    assert WaitingRoom().take(max_rows=8) == []


def test_the_oldest_go_first_and_fill_the_batch_to_its_rows():
    room = WaitingRoom()
    requests = [_waiting(rows=rows, arrived_ns=n) for n, rows in enumerate([3, 4, 1, 1])]
    for request in requests:
        room.add(request)

    assert room.take(max_rows=8) == requests[:3]
    assert room.take(max_rows=8) == requests[3:]


def test_a_request_that_does_not_fit_is_not_overtaken_by_a_smaller_one():
    room = WaitingRoom()
    requests = [_waiting(rows=rows, arrived_ns=n) for n, rows in enumerate([2, 3, 1])]
    for request in requests:
        room.add(request)

    assert room.take(max_rows=4) == requests[:1]
    assert room.take(max_rows=4) == requests[1:]


def test_a_request_larger_than_any_batch_still_goes_alone():
    room = WaitingRoom()
    large = _waiting(rows=9, arrived_ns=0)
    room.add(large)

    assert room.take(max_rows=8) == [large]


def test_shapes_do_not_mix_and_the_one_with_the_oldest_request_goes_first():
    room = WaitingRoom()
    short, long, short_too = (
        _waiting(shape=shape, arrived_ns=n) for n, shape in enumerate(["short", "long", "short"])
    )
    for request in (short, long, short_too):
        room.add(request)

    assert room.take(max_rows=8) == [short, short_too]
    assert room.take(max_rows=8) == [long]
    assert len(room) == 0


def test_a_request_that_has_left_is_not_taken_and_leaves_only_once():
    room = WaitingRoom()
    first, second = (_waiting(arrived_ns=n) for n in range(2))
    room.add(first)
    room.add(second)

    assert room.remove(first)
    assert not room.remove(first)
    assert room.take(max_rows=8) == [second]
    assert not room.remove(second)


class RoomBesideAList(RuleBasedStateMachine):
    """The room does what a plain list does that is searched from its oldest request on."""

    @initialize()
    def start(self) -> None:
        self.room = WaitingRoom()
        self.expected: list[Waiting] = []
        self.gone: list[Waiting] = []
        self.clock_ns = 0

    @rule(rows=st.integers(1, 5), shape=st.sampled_from("abc"))
    def arrive(self, rows: int, shape: str) -> None:
        self.clock_ns += 1
        waiting = _waiting(rows=rows, shape=shape, arrived_ns=self.clock_ns)
        self.room.add(waiting)
        self.expected.append(waiting)

    @precondition(lambda self: self.expected)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        waiting = data.draw(st.sampled_from(self.expected))
        assert self.room.remove(waiting)
        self.expected.remove(waiting)
        self.gone.append(waiting)

    @precondition(lambda self: self.gone)
    @rule(data=st.data())
    def leave_again(self, data: st.DataObject) -> None:
        assert not self.room.remove(data.draw(st.sampled_from(self.gone)))

    @rule(max_rows=st.integers(1, 8))
    def take(self, max_rows: int) -> None:
        batch = self.room.take(max_rows=max_rows)
        wanted: list[Waiting] = []
        for waiting in self.expected:
            if waiting.shape_key != self.expected[0].shape_key:
                continue
            if wanted and sum(w.rows for w in wanted) + waiting.rows > max_rows:
                break
            wanted.append(waiting)
        assert batch == wanted
        self.expected = [waiting for waiting in self.expected if waiting not in wanted]
        self.gone += wanted

    @invariant()
    def nothing_is_lost(self) -> None:
        assert len(self.room) == len(self.expected)


RoomBesideAList.TestCase.settings = settings(max_examples=50, deadline=None)
test_the_room_does_what_a_list_does = RoomBesideAList.TestCase


@given(st.lists(st.tuples(st.integers(1, 4), st.sampled_from("ab")), max_size=20))
@settings(max_examples=50, deadline=None)
def test_whoever_arrives_is_taken_exactly_once(arrivals):
    room = WaitingRoom()
    requests = [_waiting(rows=r, shape=s, arrived_ns=n) for n, (r, s) in enumerate(arrivals)]
    for request in requests:
        room.add(request)

    taken: list[Waiting] = []
    while batch := room.take(max_rows=4):
        assert sum(request.rows for request in batch) <= 4
        assert len({request.shape_key for request in batch}) == 1
        taken += batch

    assert sorted(taken, key=lambda request: request.arrived_ns) == requests
