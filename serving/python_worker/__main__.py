"""The worker process of one instance of a Python model: runs model.py, speaks with the server.

The main thread runs the model; another reads what the server sends, so that neither side ever waits
for the other with full pipes.
"""

import ctypes
import importlib.util
import itertools
import json
import os
import queue
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np

from serving.python_worker.wire import Channel, Message

sys.path.append(str(Path(__file__).parent / "api"))
import triton_python_backend_utils as pb  # type: ignore[import-not-found]

_PR_SET_PDEATHSIG = 1


class Worker:
    """One model instance and its way to the server."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._work: queue.SimpleQueue[tuple[Message, list[np.ndarray]]] = queue.SimpleQueue()
        self._open: dict[int, Any] = {}  # requests that are not yet answered to the end
        self._calls: dict[int, Future[tuple[Message, list[np.ndarray]]]] = {}
        self._numbers = itertools.count()
        self._model: Any = None
        pb._SERVER.call, pb._SERVER.log, pb._SERVER.ready = self._call, self._log, self._ready

    def run(self) -> None:
        """Do what the server says, until it says that it is over."""
        threading.Thread(target=self._read, daemon=True, name="server").start()
        while True:
            message, arrays = self._work.get()
            match message["do"]:
                case "load":
                    self._load(message)
                case "execute":
                    self._execute(message, arrays)
                case _:
                    self._finish()
                    return

    # --- what the server sends -------------------------------------------------------------------

    def _read(self) -> None:
        while True:
            try:
                received = self._channel.receive()
            except OSError:
                received = None
            if received is None:  # the server has gone: nobody needs this process
                os._exit(1)
            message = received[0]
            match message["do"]:
                case "cancel":
                    if request := self._open.get(message["number"]):
                        request._cancelled = True
                        request._sender.give_credit(1_000_000)
                case "credit":
                    if request := self._open.get(message["number"]):
                        request._sender.give_credit(message["count"])
                case "answer":
                    self._calls.pop(message["call"]).set_result(received)
                case _:
                    self._work.put(received)

    # --- the model -------------------------------------------------------------------------------

    def _load(self, message: Message) -> None:
        try:
            path, arguments = Path(message["path"]), message["arguments"]
            pb._SERVER.directory = str(path.parent)
            kind = _module(path).TritonPythonModel
            if hasattr(kind, "auto_complete_config"):
                completed = kind.auto_complete_config(pb.ModelConfig(arguments["model_config"]))
                if not isinstance(completed, pb.ModelConfig):
                    raise TypeError(
                        "auto_complete_config function in model "
                        f"{arguments['model_name']!r} must return a valid pb.ModelConfig object."
                    )
                arguments["model_config"] = json.dumps(completed.as_dict())
            self._model = kind()
            if hasattr(self._model, "initialize"):
                self._model.initialize(arguments)
        except BaseException as error:  # noqa: BLE001 - whatever the model raises is told
            self._channel.send({"say": "failed", "text": _told(error)})
            return
        self._channel.send({"say": "loaded", "config": arguments["model_config"]})

    def _execute(self, message: Message, arrays: list[np.ndarray]) -> None:
        requests = [self._request(one, arrays) for one in message["requests"]]
        try:
            responses = self._model.execute(requests)
            answers, sent = self._answers(message, requests, responses)
        except BaseException as error:  # noqa: BLE001 - whatever the model raises is told
            for request in requests:
                self._open.pop(request.number, None)
            self._channel.send({"say": "executed", "error": _told(error)})
            return
        self._channel.send({"say": "executed", "responses": answers}, sent)

    def _answers(
        self, message: Message, requests: Sequence[Any], responses: Any
    ) -> tuple[list[Message | None], list[np.ndarray]]:
        """What execute returned, checked. Raises TypeError, ValueError."""
        if message["decoupled"]:
            if responses is not None:
                raise TypeError("a decoupled model must return None from execute")
            return [None] * len(requests), []
        if not isinstance(responses, list):
            raise TypeError(
                f"Expected a list in the execute return, found type '{type(responses)}'."
            )
        if len(responses) != len(requests):
            raise ValueError(
                "Number of InferenceResponse objects do not match the number of InferenceRequest "
                f"objects. InferenceRequest(s) size is:{len(requests)}, and InferenceResponse(s) "
                f"size is:{len(responses)}"
            )
        answers: list[Message | None] = []
        sent: list[np.ndarray] = []
        for request, response in zip(requests, responses, strict=True):
            self._open.pop(request.number, None)
            response = request.sent if response is None else response
            if not isinstance(response, pb.InferenceResponse):
                raise TypeError(f"Expected an InferenceResponse for each request, found {response}")
            answers.append(_described(response, sent, request.requested_output_names()))
        return answers, sent

    def _request(self, one: Message, arrays: list[np.ndarray]) -> Any:
        tensors = [pb.Tensor(name, arrays[at]) for name, at in one["inputs"]]
        request = pb.InferenceRequest(
            inputs=tensors,
            requested_output_names=one["outputs"],
            model_name=one["model"],
            request_id=one["id"],
            correlation_id=one["correlation_id"],
            flags=one["flags"],
            timeout=one["timeout"],
            parameters=one["parameters"],
        )
        request.number, request.sent, decoupled = one["number"], None, one["decoupled"]

        def send(response: Any, final: bool) -> None:
            if not decoupled:
                request.sent = response if response is not None else request.sent
                return
            arrays: list[np.ndarray] = []
            told = None
            if response is not None:
                told = _described(response, arrays, one["outputs"])
            said = {"say": "response", "number": one["number"], "final": final, "response": told}
            if final:
                self._open.pop(one["number"], None)
            self._channel.send(said, arrays)

        request._sender = pb.InferenceResponseSender(request, send)
        self._open[one["number"]] = request
        return request

    def _finish(self) -> None:
        if self._model is not None and hasattr(self._model, "finalize"):
            try:
                self._model.finalize()
            except Exception:  # noqa: BLE001 - it goes into the log, and the process ends anyway
                traceback.print_exc()

    # --- what the model asks of the server -------------------------------------------------------

    def _call(self, request: Any) -> Any:
        message = {
            "say": "call",
            "what": "infer",
            "model": request._model,
            "version": "" if request._version == -1 else str(request._version),
            "id": request.request_id(),
            "outputs": request.requested_output_names(),
            "timeout": request.timeout(),
            "parameters": json.loads(request.parameters()),
            "inputs": [tensor.name() for tensor in request.inputs()],
        }
        if request.correlation_id():
            message["parameters"]["sequence_id"] = request.correlation_id()
            message["parameters"]["sequence_start"] = bool(request.flags() & 1)
            message["parameters"]["sequence_end"] = bool(request.flags() & 2)
        answer, arrays = self._asked(message, [one.as_numpy() for one in request.inputs()])
        if "error" in answer:
            return pb.InferenceResponse(
                error=pb.TritonError(answer["error"], pb.TritonError.INTERNAL)
            )
        named = zip(answer["outputs"], arrays, strict=True)
        return pb.InferenceResponse([pb.Tensor(name, array) for name, array in named])

    def _ready(self, model: str, version: str) -> bool:
        message = {"say": "call", "what": "ready", "model": model, "version": version}
        return bool(self._asked(message, [])[0]["ready"])

    def _asked(
        self, message: Message, arrays: list[np.ndarray]
    ) -> tuple[Message, list[np.ndarray]]:
        number = next(self._numbers)
        future = self._calls[number] = Future()
        self._channel.send({**message, "call": number}, arrays)
        return future.result()

    def _log(self, level: str, text: str) -> None:
        self._channel.send({"say": "log", "level": level, "text": text})


def _described(response: Any, arrays: list[np.ndarray], outputs: Sequence[str]) -> Message:
    if response.has_error():
        error = response.error()
        return {"error": error.message(), "code": error.code().name}
    names = []
    for tensor in response.output_tensors():
        if tensor.name() in outputs:
            names.append([tensor.name(), len(arrays)])
            arrays.append(tensor.as_numpy())
    return {"outputs": names}


def _module(path: Path) -> Any:
    for folder in (path.parent, path.parent.parent):
        sys.path.append(str(folder))
    name = f"{path.parent.name}.{path.stem}"
    found = importlib.util.spec_from_file_location(name, path)
    if found is None or found.loader is None:
        raise ImportError(f"{path} is no Python module")
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module
    found.loader.exec_module(module)
    return module


def _told(error: BaseException) -> str:
    """The error with the place in the model where it was raised, as Triton tells it."""
    lines = [f"{type(error).__name__}: {error}", "", "At:"]
    lines += [
        f"  {frame.filename}({frame.lineno}): {frame.name}"
        for frame in reversed(traceback.extract_tb(error.__traceback__))
        if not frame.filename.startswith(str(Path(__file__).parent))
    ]
    traceback.print_exception(error)
    return "\n".join(lines if len(lines) > 3 else lines[:1])


def main() -> None:
    """Work for the server at the other end of the socket whose number is given."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the server says when it is over
    Worker(Channel(socket.socket(fileno=int(sys.argv[1])))).run()


if __name__ == "__main__":
    main()
