"""Other model servers over a model of our repository, to measure beside the gateway.

`triton` is NVIDIA's server out of the wheel nvidia-pytriton, over gRPC; `mosec` is mosec with one
stage that runs ONNX Runtime, over HTTP with raw bodies. Each lives in an environment of its own
(`make bench-peers` sets them up), listens on free ports of the loopback, and ends with its block.
"""

import contextlib
import http.client
import os
import shutil
import socket
import tempfile
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tritonclient.grpc import model_config_pb2

from loadtest.bench.mosec_server import READY
from loadtest.bench.processes import server_process, session_process_ids, wait_until
from ridgeline.errors import InvalidInput, StepFailed
from ridgeline.model import format_config
from ridgeline.repository import CONFIG_FILE, MODEL_FILE, RepositoryModel, scan

_ROOT = Path(__file__).parents[2]
_LOOPBACK = "127.0.0.1"
_ANSWER_SECONDS = 5


@dataclass(frozen=True)
class Peer:
    """A running server: where its model is reached, and which processes it consists of.

    `protocol` "grpc" is the Open Inference Protocol; "http" takes one raw sample (little-endian
    float32, no batch axis) by POST to `path`, and answers in kind.
    """

    name: str
    protocol: str
    port: int
    path: str
    session_id: int

    @property
    def address(self) -> str:
        """host:port."""
        return f"{_LOOPBACK}:{self.port}"

    def process_ids(self) -> tuple[int, ...]:
        """All its processes that run now, workers included, by rising number."""
        return session_process_ids(self.session_id)


def _cores() -> int:
    return len(os.sched_getaffinity(0))


@dataclass(frozen=True)
class TritonSettings:
    """What a user may set in config.pbtxt; the defaults are Triton's own: an endless queue.

    0 stands for no bound and no timeout. A request that waits longer than the timeout is rejected;
    `allow_timeout_override` lets a request ask for a shorter one (`timeout`, in microseconds).
    Best for small networks on CPUs was one instance for each core and no delay. Any bound or
    timeout has a price in the Triton of that wheel: of 8,000 requests sent one by one, 17 to 41
    waited 500 ms for its batcher to look again (and were rejected by a timeout); by default, none.
    """

    instances: int = 1
    max_queued_requests: int = 0
    queue_timeout_us: int = 0
    allow_timeout_override: bool = False
    max_queue_delay_us: int = 0

    def __post_init__(self) -> None:
        _refuse_negative(self, positive=("instances",))


@dataclass(frozen=True)
class MosecSettings:
    """What a user may set; queue (`capacity` requests) and `timeout_ms` as mosec has them.

    The number of workers (processes), their threads and the batches are the best that were found
    for small networks on CPUs: one worker of one thread for each core. `max_wait_ms` 0 stands for
    mosec's own 10 ms.
    """

    workers: int = field(default_factory=_cores)
    threads: int = 1
    max_batch_size: int = 32
    max_wait_ms: int = 0
    capacity: int = 1024
    timeout_ms: int = 3000

    def __post_init__(self) -> None:
        positive = ("workers", "max_batch_size", "capacity", "timeout_ms")
        _refuse_negative(self, positive=positive)


def _refuse_negative(settings: TritonSettings | MosecSettings, *, positive: Sequence[str]) -> None:
    for name, value in asdict(settings).items():
        if value < (least := 1 if name in positive else 0):
            raise InvalidInput(f"{name} must be at least {least}, received {value}")


@contextlib.contextmanager
def triton(
    repository: Path,
    *,
    model: str,
    settings: TritonSettings | None = None,
    venv: Path = _ROOT / ".triton-venv",
) -> Iterator[Peer]:
    """Triton over the newest version of a model. Raises StepFailed where it does not start."""
    published = _published(repository, model=model)
    with tempfile.TemporaryDirectory(prefix="ridgeline-triton-") as folder:
        copy = Path(folder) / "repository"
        write_triton_repository(published, settings=settings or TritonSettings(), root=copy)
        grpc_port, http_port = _free_ports(2)
        words = triton_words(venv, repository=copy, grpc_port=grpc_port, http_port=http_port)
        with server_process(words, log=Path(folder) / "log") as server:
            url = f"http://{_LOOPBACK}:{http_port}/v2/models/{model}/ready"
            wait_until(lambda: _answers(url), server=server, name="Triton")
            yield Peer("triton", "grpc", grpc_port, path="", session_id=server.session_id)


@contextlib.contextmanager
def mosec(
    repository: Path,
    *,
    model: str,
    settings: MosecSettings | None = None,
    venv: Path = _ROOT / ".mosec-venv",
) -> Iterator[Peer]:
    """mosec over the newest version of a model. Raises StepFailed where it does not start."""
    published = _published(repository, model=model)
    settings = settings or MosecSettings()
    with tempfile.TemporaryDirectory(prefix="ridgeline-mosec-") as folder:
        (port,) = _free_ports(1)
        file = published.version_directory(published.versions[-1]) / MODEL_FILE
        words = mosec_words(venv, model=file, port=port, work=Path(folder), settings=settings)
        with server_process(words, log=Path(folder) / "log") as server:
            url = f"http://{_LOOPBACK}:{port}/"
            wait_until(
                lambda: server.log_text().count(READY) >= settings.workers and _answers(url),
                server=server,
                name="mosec",
            )
            yield Peer("mosec", "http", port, path="/inference", session_id=server.session_id)


def write_triton_repository(
    model: RepositoryModel, *, settings: TritonSettings, root: Path
) -> None:
    """Copy the model's newest version to an empty repository, its configuration adapted."""
    config = model.read_config()
    if config is None:
        raise StepFailed(f"{model.directory} has no {CONFIG_FILE}, and Triton needs one")
    copy = root / model.name
    older = shutil.ignore_patterns(*map(str, model.versions[:-1]))
    shutil.copytree(model.directory, copy, ignore=older)
    text = format_config(triton_config(config, settings=settings))
    (copy / CONFIG_FILE).write_text(text, encoding="utf-8")


def triton_config(
    config: model_config_pb2.ModelConfig, *, settings: TritonSettings
) -> model_config_pb2.ModelConfig:
    """The configuration with the instances and the queue of `settings`, all else as it is."""
    variant = model_config_pb2.ModelConfig.FromString(config.SerializeToString())
    del variant.instance_group[:]
    variant.instance_group.add(count=settings.instances)
    variant.dynamic_batching.Clear()
    variant.dynamic_batching.SetInParent()
    if settings.max_queue_delay_us:
        variant.dynamic_batching.max_queue_delay_microseconds = settings.max_queue_delay_us
    if settings.max_queued_requests or settings.queue_timeout_us or settings.allow_timeout_override:
        policy = variant.dynamic_batching.default_queue_policy
        policy.timeout_action = model_config_pb2.ModelQueuePolicy.REJECT
        policy.default_timeout_microseconds = settings.queue_timeout_us
        policy.allow_timeout_override = settings.allow_timeout_override
        policy.max_queue_size = settings.max_queued_requests
    return variant


def triton_words(venv: Path, *, repository: Path, grpc_port: int, http_port: int) -> list[str]:
    """The command line of Triton over a repository. Raises StepFailed where it is not installed."""
    _refuse_missing(venv)
    start = _ROOT / "tests" / "triton" / "start"
    return [str(word) for word in (start, venv, repository, grpc_port, http_port)]


def mosec_words(
    venv: Path, *, model: Path, port: int, work: Path, settings: MosecSettings
) -> list[str]:
    """The command line of mosec over an ONNX file; its sockets are put below the folder `work`.

    Raises StepFailed where it is not installed.
    """
    _refuse_missing(venv)
    flags = {
        "model": model.resolve(),
        "workers": settings.workers,
        "max-batch-size": settings.max_batch_size,
        "max-wait-ms": settings.max_wait_ms,
        "threads": settings.threads,
        "address": _LOOPBACK,
        "port": port,
        "path": work / "sockets",
        "capacity": settings.capacity,
        "timeout": settings.timeout_ms,
        "log-level": "warning",
    }
    script = Path(__file__).with_name("mosec_server.py")
    # -P: nothing beside the script may take the place of a library.
    words = [venv / "bin" / "python", "-P", script, *(f"--{k}={v}" for k, v in flags.items())]
    return [str(word) for word in words]


def _refuse_missing(venv: Path) -> None:
    if not (venv / "bin" / "python").exists():
        raise StepFailed(f"there is no environment {venv}; `make bench-peers` sets it up")


def _published(repository: Path, *, model: str) -> RepositoryModel:
    for found in scan(repository):
        if found.name == model and found.versions:
            return found
    raise StepFailed(f"{repository} holds no model {model!r}")


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=_ANSWER_SECONDS) as answer:  # noqa: S310 - ours
            return bool(answer.status == http.client.OK)
    except (OSError, http.client.HTTPException):  # not listening yet, or not ready
        return False


def _free_ports(count: int) -> list[int]:
    """Different ports that are free now; a peer must be told its port, it cannot choose."""
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind((_LOOPBACK, 0))
        return [probe.getsockname()[1] for probe in probes]
