"""The memory that requests take which have not come as a whole: bounded over all connections.

One body is bounded by itself, but many clients may each begin one and pause. Where they hold too
much together, the one that has been silent for longest is given up: it goes on being so, or its
client can send it again, and all that keep sending come to their end.
"""

from collections import OrderedDict

from mypy_extensions import mypyc_attr

from ridgeline.errors import Overloaded

BODIES = 4  # of the largest size, that may be on their way at once
PIECE_BYTES = 256  # what a piece takes beside its bytes, about


@mypyc_attr(allow_interpreted_subclasses=True)
class Upload:
    """A request on its way. What it holds is for `Uploads` to count."""

    held_bytes: int = 0

    def give_up(self, error: Overloaded) -> None:
        """Let go of what has come, and tell the client."""
        raise NotImplementedError


class Uploads:
    """All requests that are on their way, which may hold `most_bytes` in all."""

    def __init__(self, *, most_bytes: int) -> None:
        if most_bytes < 1:
            raise ValueError(f"most_bytes must be positive, received {most_bytes}")
        self._most_bytes = most_bytes
        self.held_bytes = 0
        self._on_their_way: OrderedDict[Upload, None] = OrderedDict()  # the silent ones first

    @property
    def requests(self) -> int:
        """How many hold something."""
        return len(self._on_their_way)

    def hold(self, upload: Upload, *, held_bytes: int) -> None:
        """A request has moved on, and holds so much now; 0: it ends, or is given up.

        Others are given up to make room. Raises Overloaded where it is this one that must be,
        since it takes more than half of all.
        """
        if held_bytes == upload.held_bytes:
            return
        self.held_bytes += held_bytes - upload.held_bytes
        upload.held_bytes = held_bytes
        if not held_bytes:
            self._on_their_way.pop(upload, None)
            return
        self._on_their_way[upload] = None
        self._on_their_way.move_to_end(upload)
        if self.held_bytes > self._most_bytes:
            self._make_room(upload)

    def release(self, upload: Upload) -> None:
        """A request has come to its end, or was given up."""
        self.hold(upload, held_bytes=0)

    def _make_room(self, upload: Upload) -> None:
        if upload.held_bytes > self._most_bytes >> 1:
            self.release(upload)
            raise self._refusal()
        while self.held_bytes > self._most_bytes:
            silent = next(iter(self._on_their_way))
            self.release(silent)
            silent.give_up(self._refusal())

    def _refusal(self) -> Overloaded:
        return Overloaded(
            f"requests that are still on their way hold more than {self._most_bytes} bytes, and "
            f"this one had to be given up; send it again later"
        )
