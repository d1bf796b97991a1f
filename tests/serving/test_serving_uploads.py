"""Requests on their way: what they hold together is bounded, and who goes on ends."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ridgeline.errors import Overloaded
from serving.protocol.uploads import Upload, Uploads


class Given(Upload):
    """A request that remembers that it was given up."""

    def __init__(self):
        self.error = None

    def give_up(self, error):
        self.error = error


def test_the_one_that_was_silent_for_longest_is_given_up():
    uploads = Uploads(most_bytes=100)
    silent, busy, last = Given(), Given(), Given()
    uploads.hold(silent, held_bytes=30)
    uploads.hold(busy, held_bytes=30)
    uploads.hold(silent, held_bytes=31)
    uploads.hold(busy, held_bytes=39)

    uploads.hold(last, held_bytes=31)

    assert (busy.error, last.error) == (None, None)
    assert isinstance(silent.error, Overloaded)
    assert "hold more than 100 bytes" in str(silent.error)
    assert (uploads.held_bytes, uploads.requests) == (70, 2)


def test_one_that_takes_more_than_half_is_given_up_itself():
    uploads = Uploads(most_bytes=100)
    small, large = Given(), Given()
    uploads.hold(small, held_bytes=50)

    with pytest.raises(Overloaded, match="had to be given up"):
        uploads.hold(large, held_bytes=51)

    assert small.error is None
    assert (uploads.held_bytes, large.held_bytes, uploads.requests) == (50, 0, 1)


def test_as_many_as_make_room_are_given_up():
    uploads = Uploads(most_bytes=100)
    many = [Given() for _ in range(10)]
    for each in many:
        uploads.hold(each, held_bytes=10)

    uploads.hold(Given(), held_bytes=25)

    assert [each.error is not None for each in many] == [True] * 3 + [False] * 7


def test_what_has_ended_leaves_its_room():
    uploads = Uploads(most_bytes=100)
    upload = Given()
    for _ in range(10):
        uploads.hold(upload, held_bytes=100 >> 1)
        uploads.release(upload)
        uploads.release(upload)

    assert (uploads.held_bytes, uploads.requests, upload.error) == (0, 0, None)


def test_a_bound_that_admits_nothing_is_refused():
    with pytest.raises(ValueError, match="most_bytes must be positive, received 0"):
        Uploads(most_bytes=0)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 70)), max_size=60))
def test_the_sum_is_exact_and_never_above_its_bound(steps):
    uploads = Uploads(most_bytes=100)
    requests = [Given() for _ in range(6)]
    for place, held_bytes in steps:
        try:
            uploads.hold(requests[place], held_bytes=held_bytes)
        except Overloaded:
            assert requests[place].held_bytes == 0

        assert uploads.held_bytes == sum(request.held_bytes for request in requests) <= 100
        assert uploads.requests == sum(request.held_bytes > 0 for request in requests)
