"""Runs the requests of a Python model in worker processes, one an instance, and replaces dead ones.

A process that dies is started again at the next request: at once after the first crash, later after
waits that double. Its requests are run again one by one by the batcher, so that the one that kills
processes fails alone.
"""

import json
import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from ridgeline.errors import DeadlineExceeded, RidgelineError, Unavailable
from serving.execution import EngineFault
from serving.model_errors import error_of
from serving.python_process import PythonProcess, Received, WorkerDied, WorkerTask
from serving.python_worker.wire import Message
from serving.request import InferRequest, Tensors
from serving.request_batcher import RequestJob

logger = logging.getLogger(__name__)

_NS_PER_S = 1_000_000_000
_NS_PER_US = 1_000
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.1, 30.0
_WORTH_WAITING_S = 1.0  # longer, and requests are refused until then
# What Triton does not hand on to a model among the parameters.
_RESERVED = (
    "sequence_id", "sequence_start", "sequence_end", "priority", "timeout", "binary_data_output",
    "triton_enable_empty_final_response",
)  # fmt: skip
_SEQUENCE_START, _SEQUENCE_END = 1, 2

Sink = Callable[[Received], None]


class _Instance:
    """The process of one instance, and when it may be started again."""

    def __init__(self, task: WorkerTask, *, on_message: Callable[[PythonProcess, Received], None]):
        self.task = task
        self._on_message = on_message
        self.process: PythonProcess | None = None
        self.crashes = 0
        self._not_before_ns = 0

    def start(self) -> str:
        """Start a process; returns the model's configuration. Raises Unavailable."""
        process = PythonProcess(self.task, on_message=self._on_message)
        try:
            config = process.start()
        except RidgelineError:
            process.close()
            raise
        self.process = process
        return config

    def crashed(self) -> None:
        """Count a crash; the next start has to wait the longer the more there were in a row."""
        self.crashes += 1
        wait_s = 0.0
        if self.crashes > 1:
            wait_s = min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2 ** min(self.crashes - 2, 20))
        self._not_before_ns = time.monotonic_ns() + int(wait_s * _NS_PER_S)

    def ready(self, stopped: threading.Event) -> PythonProcess:
        """The process, started again where it has died. Raises Unavailable while it must wait."""
        if self.process is not None and not self.process.dead:
            return self.process
        wait_ns = self._not_before_ns - time.monotonic_ns()
        if wait_ns > _WORTH_WAITING_S * _NS_PER_S:
            raise Unavailable(
                f"its worker process has ended {self.crashes} times in a row; it is started again "
                f"in {wait_ns / _NS_PER_S:.1f} s",
                retry_after_ns=wait_ns,
            )
        if wait_ns > 0:
            stopped.wait(wait_ns / _NS_PER_S)
        if stopped.is_set():
            raise Unavailable("the server is stopping")
        try:
            self.start()
        except RidgelineError:
            self.crashed()
            raise
        if self.process is None:
            raise Unavailable("it has no worker process")
        return self.process


class PythonEngine:
    """The instances of one Python model. `decoupled` ones answer through `sinks`, by number."""

    def __init__(self, task: WorkerTask, *, name: str, instances: int) -> None:
        self._name = name
        self._instances = [
            _Instance(
                replace(
                    task,
                    name=f"{name}_{number}",
                    arguments={**task.arguments, "model_instance_name": f"{name}_{number}"},
                ),
                on_message=self._told,
            )
            for number in range(instances)
        ]
        self._idle: queue.LifoQueue[_Instance] = queue.LifoQueue()
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._at: dict[int, PythonProcess] = {}  # requests that are not answered to the end
        self._sinks: dict[int, Sink] = {}
        self.on_call: Callable[[PythonProcess, Received], None] | None = None
        self.outputs: tuple[str, ...] = ()
        self.decoupled = False

    def start(self) -> str:
        """Start every instance; returns the completed configuration. Raises Unavailable."""
        completed = ""
        try:
            for instance in self._instances:
                if completed:
                    arguments = {**instance.task.arguments, "model_config": completed}
                    instance.task = replace(instance.task, arguments=arguments)
                completed = instance.start()
                self._idle.put(instance)
        except RidgelineError:
            self.close()
            raise
        return completed

    def run_requests(self, jobs: Sequence[RequestJob], /) -> list[Tensors | Exception]:
        """Hand requests to an instance that is free, and wait until `execute` has returned.

        Raises EngineFault where it failed or died, Unavailable where it cannot be started.
        """
        instance = self._idle.get()
        try:
            return self._run(instance, jobs)
        except (EngineFault, DeadlineExceeded) as error:
            if not self.decoupled:
                raise
            return [error for _ in jobs]  # some may have answers already: no second time
        finally:
            self._idle.put(instance)

    def open(self, number: int, sink: Sink, /) -> None:
        """Take the responses of a request; called in a thread of the process."""
        with self._lock:
            self._sinks[number] = sink

    def close_stream(self, number: int, /) -> None:
        """Take no more of them."""
        with self._lock:
            self._sinks.pop(number, None)
            self._at.pop(number, None)

    def process_of(self, number: int, /) -> PythonProcess | None:
        """The process that works for a request; None where there is none, or none any more."""
        return self._at.get(number)

    def stop(self) -> None:
        """End what is still at work, at once."""
        self._stopped.set()
        idle = set(self._idle.queue)
        for instance in self._instances:
            if instance not in idle and instance.process is not None:
                instance.process.kill()

    def close(self) -> None:
        """Let idle instances finalize, side by side, and end them. Blocks for seconds at most."""
        self._stopped.set()
        threads = [
            threading.Thread(target=instance.process.close)
            for instance in self._instances
            if instance.process is not None
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _run(self, instance: _Instance, jobs: Sequence[RequestJob]) -> list[Tensors | Exception]:
        process = instance.ready(self._stopped)
        arrays: list[np.ndarray] = []
        requests = [self._described(job, arrays) for job in jobs]
        with self._lock:
            self._at.update((job.number, process) for job in jobs)
        try:
            message = {"do": "execute", "requests": requests, "decoupled": self.decoupled}
            received, outputs = process.execute(message, arrays)
        except (WorkerDied, DeadlineExceeded) as error:
            instance.crashed()
            raise EngineFault(f"model {self._name!r}: {error}") from error
        finally:
            if not self.decoupled:
                with self._lock:
                    for job in jobs:
                        self._at.pop(job.number, None)
        instance.crashes = 0
        if "error" in received:
            raise EngineFault(
                f"Failed to process the request(s) for model '{instance.task.name}', "
                f"message: {received['error']}"
            )
        return [outcome_of(answer, outputs) for answer in received["responses"]]

    def _described(self, job: RequestJob, arrays: list[np.ndarray]) -> Message:
        request = job.request
        inputs = []
        for name, array in request.inputs.items():
            inputs.append([name, len(arrays)])
            arrays.append(array)
        return {
            "number": job.number,
            "model": self._name,
            "id": request.id,
            "inputs": inputs,
            "outputs": list(dict.fromkeys(request.outputs or self.outputs)),
            "timeout": (request.timeout_ns or 0) // _NS_PER_US,
            "decoupled": self.decoupled,
            **_sequence(request),
        }

    def _told(self, process: PythonProcess, received: Received) -> None:
        """What a process says beside its answers; in its thread."""
        said = received[0]["say"]
        if said == "call":
            if self.on_call is not None:
                self.on_call(process, received)
            return
        with self._lock:
            if said == "dead":
                numbers = [number for number, at in self._at.items() if at is process]
                sinks = [self._sinks[number] for number in numbers if number in self._sinks]
            else:
                sink = self._sinks.get(received[0]["number"])
                sinks = [sink] if sink else []
        for sink in sinks:
            sink(received)


def outcome_of(answer: Message | None, arrays: Sequence[np.ndarray]) -> Tensors | Exception:
    """The outputs of one response, or its error; none where it comes in a stream."""
    if answer is None:
        return {}
    if "error" in answer:
        return error_of(answer["error"], code=answer["code"])
    return {name: arrays[at] for name, at in answer["outputs"]}


def _sequence(request: InferRequest) -> Message:
    parameters = request.parameters
    own = {key: value for key, value in parameters.items() if key not in _RESERVED}
    flags = _SEQUENCE_START if parameters.get("sequence_start") else 0
    flags |= _SEQUENCE_END if parameters.get("sequence_end") else 0
    return {
        "correlation_id": parameters.get("sequence_id", 0),
        "flags": flags,
        "parameters": json.dumps(own),
    }
