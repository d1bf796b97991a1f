"""How urgent the requests are that come: what those with long deadlines leave to those with short.

A request is let in where its answer is expected in time. That alone would fill the queue with
requests that can wait, each with a promise that leaves no room for an urgent one.
"""

from typing import Final

_WINDOW_NS: Final = 1_000_000_000
_BATCHES: Final = 2.5  # that fit into a deadline: the one that runs, its own, and what else may be
_NEVER: Final = 1 << 60
_STEP: Final = 1 / 64  # of what one request tells of all, where each has as many rows
_MOST_STEP: Final = 1 / 4  # of what one tells that has many more rows than the others
_MOST_OVERTAKING: Final = 0.75


class Urgency:
    """Learns from the requests that come to one model, whether they are let in or not.

    `overtaking`: which share of those who wait a new request goes ahead of, on average over the
    rows that come; 0..1. Half of it is forgotten each second, all of it after a pause.
    """

    def __init__(self) -> None:
        self.overtaking = 0.0
        self._rows = 0.0  # of the requests that came last; none before the first
        self._window_ns = 0  # when it began
        self._least_ns, self._least_before_ns = _NEVER, _NEVER

    @property
    def batch_ns(self) -> float:
        """How long a batch may take, so that who comes while it runs can still be answered.

        By the shortest time that a request of the last seconds was given.
        """
        return min(self._least_ns, self._least_before_ns) / _BATCHES

    def came(self, *, left_ns: int, alone_ns: int, now_ns: int) -> None:
        """A request has come with so much time left; alone, it would take `alone_ns`.

        One that is nearly hopeless does not make batches shorter: none would be short enough. Nor
        does one of which nothing is known yet (0).
        """
        if now_ns - self._window_ns > _WINDOW_NS:
            follows = now_ns - self._window_ns <= 2 * _WINDOW_NS
            self._least_before_ns = self._least_ns if follows else _NEVER
            self.overtaking = self.overtaking / 2 if follows else 0.0
            self._window_ns, self._least_ns = now_ns, _NEVER
        if left_ns < self._least_ns and left_ns >= _BATCHES * alone_ns > 0:
            self._least_ns = left_ns

    def stands(self, place: float, *, rows: int) -> None:
        """So many rows have come that would wait at that place: from 0, ahead of all, to 1."""
        if not rows:
            return
        if not self._rows:  # as if others like it had come before
            self._rows = rows / _STEP
        self._rows += rows - self._rows * _STEP
        step = min(_MOST_STEP, rows / self._rows)
        overtaking = self.overtaking + step * (1.0 - place - self.overtaking)
        self.overtaking = min(_MOST_OVERTAKING, overtaking)

    def overtaken_ns(self, ahead_ns: float, *, place: float = 1.0) -> float:
        """The time kept for those who come later and go ahead of a request at that place.

        `ahead_ns` is the time of what is ahead of it now. Where a share s of what the engine does
        meanwhile is for who overtakes, W becomes W / (1 - s) (Cobham 1954, Priority assignment in
        waiting line problems). s is the share that they have of all that comes, so that each gets
        as much of the engine as it asks for in proportion. Who waits moves from its place to the
        front, and is passed by ever fewer: on average by `overtaking` from the end, and in
        proportion from elsewhere.
        """
        share = self.overtaking * place
        return ahead_ns * share / (1.0 - share)
