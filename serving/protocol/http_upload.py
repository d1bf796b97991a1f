"""Bodies of HTTP requests, while the application waits for the rest of them."""

import asyncio
import contextlib
from collections.abc import Iterator

from ridgeline.errors import Overloaded
from serving.protocol.uploads import PIECE_BYTES, Upload, Uploads


class AwaitedUpload(Upload):
    """A body that the current task waits for."""

    def __init__(self, uploads: Uploads) -> None:
        self._uploads = uploads
        self.task = asyncio.current_task()
        self.error: Overloaded | None = None

    def grow(self, size_bytes: int) -> None:
        """A piece has come. Raises Overloaded."""
        self._uploads.hold(self, held_bytes=self.held_bytes + size_bytes + PIECE_BYTES)

    def give_up(self, error: Overloaded) -> None:
        """Wake the task: it waits, since it is not the one that asks for room."""
        self.error = error
        if self.task is not None:
            self.task.cancel()


@contextlib.contextmanager
def awaited(uploads: Uploads) -> Iterator[AwaitedUpload]:
    """Counts what comes of a body inside, which waits for it alone.

    Raises Overloaded where it was given up for others.
    """
    upload = AwaitedUpload(uploads)
    try:
        yield upload
    except asyncio.CancelledError:
        if upload.error is None:
            raise
        if upload.task is not None:
            upload.task.uncancel()
        raise upload.error from None
    finally:
        uploads.release(upload)
