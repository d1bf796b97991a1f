"""Where traces are written: Triton's JSON, one object per event, by a thread of its own."""

import logging
import queue
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import orjson

from ridgeline.datatypes import datatype_of_numpy

logger = logging.getLogger(__name__)

_MAX_WAITING = 4096  # traces
_MAX_WAITING_BYTES = 256 * 1024 * 1024  # of their tensors
_CHUNK = 4096  # elements that become text at once: between two chunks the event loop has its turn

Timestamp = tuple[str, int]  # what happened, and when, in monotonic nanoseconds
TracedTensor = tuple[str, str, np.ndarray]  # the activity, the tensor's name, its elements


@dataclass(frozen=True)
class TraceRecord:
    """What was seen of one request; its arrays belong to it alone.

    After `log_frequency` traces the next file begins; 0 writes all into one.
    """

    id: int
    model_name: str
    model_version: str
    request_id: str
    log_frequency: int
    parent_id: int = 0  # 0 where the request is no step of another
    begin: tuple[Timestamp, ...] = ()
    tensors: tuple[TracedTensor, ...] = ()
    end: tuple[Timestamp, ...] = ()

    @property
    def size_bytes(self) -> int:
        """Roughly what it takes in memory."""
        return sum(_size_bytes(array) for _, _, array in self.tensors)

    def pieces(self) -> Iterator[bytes]:
        """Its events as JSON objects with commas between them, in pieces of bounded size."""
        about = {"id": self.id, "model_name": self.model_name}
        version = int(self.model_version) if self.model_version.isdigit() else self.model_version
        about["model_version"] = version
        if self.parent_id:
            about["parent_id"] = self.parent_id
        if self.request_id:
            about["request_id"] = self.request_id
        yield orjson.dumps(about)
        for timestamp in self.begin:
            yield self._event(timestamp)
        for tensor in self.tensors:
            yield from self._tensor(*tensor)
        for timestamp in self.end:
            yield self._event(timestamp)

    def _event(self, timestamp: Timestamp) -> bytes:
        name, ns = timestamp
        return b"," + orjson.dumps({"id": self.id, "timestamps": [{"name": name, "ns": ns}]})

    def _tensor(self, activity: str, name: str, array: np.ndarray) -> Iterator[bytes]:
        head: Mapping[str, object] = {"id": self.id, "activity": activity}
        yield b"," + orjson.dumps(head)[:-1] + b',"tensor":{"name":' + orjson.dumps(name)
        yield b',"data":"'
        flat = array.reshape(-1)
        for first in range(0, flat.size, _CHUNK):
            text = ",".join(_texts(flat[first : first + _CHUNK]))
            yield (b"," if first else b"") + orjson.dumps(text)[1:-1]
        shape = ",".join(map(str, array.shape))
        kind = datatype_of_numpy(array.dtype).name
        yield b'","shape":"%s","dtype":"%s"}}' % (shape.encode(), kind.encode())


class TraceWriter:
    """Writes records into a file, or several, by a thread that the first record starts.

    Each file is a JSON list, whole after every record. Nobody waits for the disk: where more is
    waiting than the bounds allow, records are left out, and the log says so.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._waiting: queue.Queue[TraceRecord | None] = queue.Queue()
        self._waiting_bytes = 0
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._lists: dict[Path, _JsonList] = {}
        self._index, self._in_file = 0, 0  # of the files that have numbers
        self._failed = False
        self.lost = 0

    def put(self, record: TraceRecord) -> None:
        """Have it written soon. Called in the event loop only."""
        if self._closed:
            return
        if self._waiting.qsize() >= _MAX_WAITING or self._waiting_bytes > _MAX_WAITING_BYTES:
            self.lost += 1
            if self.lost == 1:
                logger.warning("traces come faster than %s can be written: some are lost", self)
            return
        with self._lock:
            self._waiting_bytes += record.size_bytes
        self._waiting.put_nowait(record)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="trace", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Write what waits, and end the thread; blocks until then."""
        self._closed = True
        if self._thread is not None:
            self._waiting.put_nowait(None)
            self._thread.join()
            self._thread = None
        if self.lost:
            logger.warning("%d traces could not be written to %s in time", self.lost, self)

    def __str__(self) -> str:
        return str(self._path)

    def _run(self) -> None:
        while (record := self._waiting.get()) is not None:
            try:
                self._write(record)
            except Exception as error:
                if not self._failed:  # a full disk is told once, not with every request
                    logger.exception("a trace cannot be written to %s: %s", self, error)
                self._failed = True
            with self._lock:
                self._waiting_bytes -= record.size_bytes
        for file in self._lists.values():
            file.close()

    def _write(self, record: TraceRecord) -> None:
        path = self._path
        if record.log_frequency:
            if self._in_file >= record.log_frequency:
                self._finish()
            path = path.with_name(f"{path.name}.{self._index}")
            self._in_file += 1
        if path not in self._lists:
            self._lists[path] = _JsonList(path)
        self._lists[path].append(record.pieces())

    def _finish(self) -> None:
        """The file with a number that is being written is full: the next one follows."""
        file = self._lists.pop(self._path.with_name(f"{self._path.name}.{self._index}"), None)
        if file is not None:
            file.close()
        self._index, self._in_file = self._index + 1, 0


class _JsonList:
    """A file that holds a JSON list and grows; begun anew where it was there."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self._end = 0  # where the bracket stands that closes the list

    def append(self, pieces: Iterator[bytes]) -> None:
        """Add items, which come as text with commas between them."""
        self._file.seek(self._end)
        self._file.write(b"," if self._end else b"[")
        for piece in pieces:
            self._file.write(piece)
        end = self._file.tell()
        self._file.write(b"]")
        self._file.flush()
        self._end = end

    def close(self) -> None:
        """Let the file go."""
        try:
            self._file.close()
        except OSError as error:
            logger.error("a trace file was not written to its end: %s", error)


def _size_bytes(array: np.ndarray) -> int:
    if array.dtype != np.object_:
        return array.nbytes
    return sum(len(element) for element in array.reshape(-1).tolist())


def _text(element: bytes | str) -> str:
    return element.decode("utf-8", "backslashreplace") if isinstance(element, bytes) else element


def _texts(flat: np.ndarray) -> list[str]:
    """Every element as Triton writes it; floating-point numbers in as many digits as they have."""
    if flat.dtype.kind in "OSU":  # texts are quoted; what is no UTF-8 is escaped
        return [f'"{_text(element)}"' for element in flat.tolist()]
    if flat.dtype == np.bool_:
        flat = flat.astype(np.uint8)
    elif flat.dtype.kind == "V":  # bfloat16
        flat = flat.astype(np.float32)
    return [str(text) for text in flat.astype(str).tolist()]
