"""Classify labelled samples through the official clients of the protocol (tritonclient)."""

import importlib
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tritonclient.utils import InferenceServerException

from loadtest import eventloop
from loadtest.protocols import connect
from loadtest.sample_files import LABEL, Array
from loadtest.samples import Samples, read_samples
from loadtest.served import ServedModel, served_model
from ridgeline.datatypes import datatype_of_numpy
from ridgeline.errors import InvalidInput, StepFailed

DEFAULT_BATCH_SIZE = 64
# What the clients raise for refusals, lost connections, half an answer, and an answer of no sense.
_FAILURES = (InferenceServerException, OSError, HTTPException, ValueError)
_TIMEOUT_S = 60.0
_CLIENT_SETTINGS: dict[str, dict[str, Any]] = {
    "grpc": {},
    "http": {"connection_timeout": _TIMEOUT_S, "network_timeout": _TIMEOUT_S},
}
_CALL_SETTINGS: dict[str, dict[str, Any]] = {"grpc": {"client_timeout": _TIMEOUT_S}, "http": {}}

OnProgress = Callable[[int, int], object]


@dataclass(frozen=True)
class Service:
    """Where a model is served; `version` is empty for its newest."""

    url: str
    protocol: str
    model: str
    version: str = ""


def evaluate(
    service: Service,
    *,
    data: Sequence[Path],
    batch_size: int | None = None,
    concurrency: int = 1,
    on_progress: OnProgress,
) -> dict[str, Any]:
    """Send every sample of `data` once and compare the first output's argmax with its label.

    `batch_size` is by default DEFAULT_BATCH_SIZE, or what the model takes if that is less;
    `on_progress` is told the samples done and their total. Raises NotFound or CorruptData for the
    file, Unavailable or NotFound for server and model, InvalidInput where they do not fit together,
    StepFailed where a request fails.
    """
    model = eventloop.run(_read_model(service))
    samples = read_samples(data, model=model)
    if samples.labels is None:
        given = ", ".join(map(str, data))
        raise InvalidInput(f"{given} holds no {LABEL!r}: the right class of each sample")
    size = batch_size or min(DEFAULT_BATCH_SIZE, model.max_batch_size or DEFAULT_BATCH_SIZE)
    model.check_batch_size(size)
    begin = time.monotonic()
    work = _Work(service, model=model, samples=samples, size=size, on_progress=on_progress)
    starts = range(0, samples.count, size)
    with ThreadPoolExecutor(concurrency) as pool:
        parts = (starts[index::concurrency] for index in range(concurrency))
        classes = np.concatenate(list(pool.map(work.classify, parts)))
    correct = int(np.count_nonzero(classes[:, 0] == classes[:, 1]))
    return {
        "accuracy": correct / samples.count,
        "correct": correct,
        "samples": samples.count,
        "protocol": service.protocol,
        "seconds": time.monotonic() - begin,
        "output": model.outputs[0].name,
    }


async def _read_model(service: Service) -> ServedModel:
    connection = connect(
        protocol=service.protocol,
        url=service.url,
        model=service.model,
        version=service.version,
    )
    try:
        return served_model(
            await connection.read_metadata(),
            version=service.version,
            config=await connection.read_config(),
        )
    finally:
        await connection.close()


class _Work:
    """What the threads share; each has a client of its own, since that of HTTP is bound to one."""

    def __init__(
        self,
        service: Service,
        *,
        model: ServedModel,
        samples: Samples,
        size: int,
        on_progress: OnProgress,
    ) -> None:
        self._service, self._samples, self._size = service, samples, size
        self._output = model.outputs[0].name
        self._api = importlib.import_module(f"tritonclient.{service.protocol}")
        self._on_progress = on_progress
        self._lock, self._done, self._failed = threading.Lock(), 0, threading.Event()

    def classify(self, starts: Sequence[int]) -> npt.NDArray[np.int64]:
        """The batches that begin at `starts`, as [samples, 2]: the class found and the right one.

        Raises StepFailed where a request fails; the other threads then stop, too.
        """
        found = [np.empty((0, 2), dtype=np.int64)]
        try:
            settings = _CLIENT_SETTINGS[self._service.protocol]
            with self._api.InferenceServerClient(self._service.url, **settings) as client:
                for start in starts:
                    if self._failed.is_set():
                        break
                    found.append(self._classify_from(start, client=client))
        except BaseException:
            self._failed.set()
            raise
        return np.concatenate(found)

    def _classify_from(self, start: int, *, client: Any) -> npt.NDArray[np.int64]:
        labels = self._labels(start)
        try:
            scores = self._scores(start, size=len(labels), client=client)
        except _FAILURES as error:
            raise StepFailed(
                f"samples {start} to {start + len(labels) - 1} were not classified: {error}"
            ) from error
        if scores is None or scores.ndim < 2 or len(scores) != len(labels):
            found = "none" if scores is None else f"{scores.dtype} {list(scores.shape)}"
            raise StepFailed(
                f"expected {len(labels)} rows of scores in {self._output!r}, received {found}"
            )
        with self._lock:
            self._done += len(labels)
            self._on_progress(self._done, self._samples.count)
        return np.stack([scores.reshape(len(labels), -1).argmax(axis=1), labels], axis=1)

    def _labels(self, start: int) -> npt.NDArray[np.int64]:
        labels = self._samples.labels
        return np.empty(0, dtype=np.int64) if labels is None else labels[start : start + self._size]

    def _scores(self, start: int, *, size: int, client: Any) -> Array | None:
        inputs = []
        for name, array in self._samples.rows(start, size=size).items():
            datatype = datatype_of_numpy(array.dtype).name
            tensor = self._api.InferInput(name, list(array.shape), datatype)
            inputs.append(tensor.set_data_from_numpy(array))  # as raw bytes, in both protocols
        answer = client.infer(
            self._service.model,
            inputs,
            model_version=self._service.version,
            outputs=[self._api.InferRequestedOutput(self._output)],
            **_CALL_SETTINGS[self._service.protocol],
        )
        scores: Array | None = answer.as_numpy(self._output)
        return scores
