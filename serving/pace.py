"""By how much longer a backlog takes than its batches: what else the process does between them.

Reading requests, refusing them and sending answers takes the same cores as the engine does. Under
overload that can be most of the work, and none of it is in the time of a batch.
"""

import math
from typing import Final

_STEP: Final = 0.2  # share of a surprise that is believed
_MOST_SURPRISE: Final = math.log(2.0)
_MOST: Final = 10.0


class Pace:
    """Learns from the ends of batches between which requests were waiting all the time.

    `factor`: the time from one end to the next, by the time that the batch was expected to take.
    """

    def __init__(self, *, instances: int) -> None:
        self._instances = instances
        self._last_end_ns = 0
        self._backlog = False
        self.factor = 1.0

    def batch_ended(self, *, now_ns: int, expected_ns: int, backlog: bool) -> None:
        """Take note of an end; `backlog`: the next batch need not wait for requests."""
        if self._backlog and expected_ns:
            cycle_ns = max(1, now_ns - self._last_end_ns) * self._instances
            surprise = math.log(cycle_ns / (expected_ns * self.factor))
            surprise = max(-_MOST_SURPRISE, min(_MOST_SURPRISE, surprise))
            self.factor = max(1.0, min(_MOST, self.factor * math.exp(_STEP * surprise)))
        self._last_end_ns, self._backlog = now_ns, backlog
