"""How urgent the requests are that come: what those with long deadlines leave to those with short.

A request is let in where its answer is expected in time. That alone would fill the queue with
requests that can wait, each with a promise that leaves no room for an urgent one.
"""

from typing import Final

_WINDOW_NS: Final = 1_000_000_000
_BATCHES: Final = 2.5  # that fit into a deadline: the one that runs, its own, and what else may be
_NEVER: Final = 1 << 60
_STEP: Final = 1 / 256  # of what one request tells of all
_MOST_OVERTAKING: Final = 0.75


class Urgency:
    """Learns from the requests that come to one model, whether they are let in or not.

    `overtaking`: the share of those who wait that who comes goes ahead of, on average; 0..1.
    """

    def __init__(self) -> None:
        self.overtaking = 0.0
        self._window_ns = 0  # when it began
        self._least_ns, self._least_before_ns = _NEVER, _NEVER

    @property
    def batch_ns(self) -> float:
        """How long a batch may take, so that who comes while it runs can still be answered.

        By the shortest time that a request of the last one to two seconds was given.
        """
        return min(self._least_ns, self._least_before_ns) / _BATCHES

    def came(self, *, left_ns: int, alone_ns: int, now_ns: int) -> None:
        """A request has come with so much time left; alone, it would take `alone_ns`.

        One that is nearly hopeless does not make batches shorter: none would be short enough.
        """
        if now_ns - self._window_ns > _WINDOW_NS:
            follows = now_ns - self._window_ns <= 2 * _WINDOW_NS
            self._least_before_ns = self._least_ns if follows else _NEVER
            self._window_ns, self._least_ns = now_ns, _NEVER
        if left_ns < self._least_ns and left_ns >= _BATCHES * alone_ns:
            self._least_ns = left_ns

    def stands(self, place: float) -> None:
        """A request that has come would wait at that place: from 0, ahead of all, to 1, the end."""
        overtaking = self.overtaking + _STEP * (1.0 - place - self.overtaking)
        self.overtaking = min(_MOST_OVERTAKING, overtaking)

    def overtaken_ns(self, waiting_ns: float, *, place: float = 1.0) -> float:
        """What will come later and go ahead of a request at that place, before which so much waits.

        Where a share s of the engine's time goes to those who overtake, W ahead become W / (1 - s)
        (Cobham 1954, Priority assignment in waiting line problems). Who stands further ahead is
        overtaken by fewer, in proportion.
        """
        share = self.overtaking * place
        return waiting_ns * share / (1.0 - share)
