"""The peer mosec over one ONNX file: POST /inference, float32 in, float32 out, both raw.

Runs with the interpreter of mosec's own environment (requirements/mosec.txt) and needs nothing of
ours. The body is one sample, little-endian, without its batch axis; so is the answer. mosec itself
reads --address, --port, --path, --capacity, --timeout and --log-level from the same command line.
"""

import argparse
from typing import Any

READY = "a worker of mosec is ready"  # printed once by each worker that has loaded the model


def main() -> None:
    """Serve until SIGTERM."""
    from mosec import Server  # only mosec's own environment has it

    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--model", required=True)
    parser.add_argument("--workers", type=int, required=True)
    parser.add_argument("--max-batch-size", type=int, required=True)
    parser.add_argument("--max-wait-ms", type=int, required=True, help="0: mosec's own, 10 ms")
    parser.add_argument("--threads", type=int, required=True, help="of each worker; 0: all cores")
    arguments, _ = parser.parse_known_args()
    server = Server()
    server.append_worker(
        _worker(arguments),
        num=arguments.workers,
        max_batch_size=arguments.max_batch_size,
        max_wait_time=arguments.max_wait_ms,
        start_method="fork",  # the class closes over the arguments; nothing is loaded before
    )
    server.run()


def _worker(arguments: argparse.Namespace) -> type:
    """The one stage: a session of ONNX Runtime, loaded in the process that runs it."""
    from mosec import ValidationError, Worker

    class Engine(Worker):  # type: ignore[misc]
        resp_mime_type = "application/octet-stream"

        def __init__(self) -> None:
            import numpy as np
            import onnxruntime

            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = arguments.threads
            self._session = onnxruntime.InferenceSession(
                arguments.model, options, providers=["CPUExecutionProvider"]
            )
            (tensor,) = self._session.get_inputs()
            self._name, self._shape = tensor.name, tuple(tensor.shape[1:])
            self._numpy = np
            self._run(np.zeros((arguments.max_batch_size, *self._shape), dtype="<f4"))
            print(READY, flush=True)

        def deserialize(self, data: bytes) -> Any:
            try:
                return self._numpy.frombuffer(data, dtype="<f4").reshape(self._shape)
            except ValueError as error:
                raise ValidationError(str(error)) from error

        def forward(self, data: Any) -> Any:
            if arguments.max_batch_size > 1:  # else mosec hands over one sample, not a list of one
                return self._run(self._numpy.stack(data))
            return self._run(data[None])[0]

        def serialize(self, data: Any) -> bytes:
            answer: bytes = data.tobytes()
            return answer

        def _run(self, batch: Any) -> Any:
            return self._session.run(None, {self._name: batch})[0]

    return Engine


if __name__ == "__main__":
    main()
