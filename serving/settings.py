"""The settings of `ridgeline serve`: the one place that names them."""

import math
import re
from dataclasses import dataclass
from pathlib import Path

from ridgeline.errors import InvalidInput
from ridgeline.settings import setting


@dataclass(frozen=True)
class ServeSettings:
    """Flags, RIDGELINE_SERVE_* variables and the [serve] table of a TOML file become this."""

    repository: Path = setting(Path("model_repository"), help="folder of the models to serve")
    model_control_mode: str = setting(
        "poll",
        help="which models are served: none (all of the start), poll (what the repository holds, "
        "also later), or explicit (as clients ask)",
    )
    load_model: tuple[str, ...] = setting(
        (), help="a model to load at the start in mode explicit; may be repeated; * loads all"
    )
    repository_poll_secs: float = setting(
        5.0, help="seconds between two looks at the repository in mode poll"
    )
    server_name: str = setting(
        "ridgeline", help="what the server metadata calls the server; some clients insist on triton"
    )
    host: str = setting("127.0.0.1", help="address to listen on; 0.0.0.0 for every interface")
    grpc_port: int = setting(8001, help="port of the gRPC front end; 0 picks a free one")
    http_port: int = setting(8000, help="port of the HTTP front end; 0 picks a free one")
    metrics_port: int = setting(8002, help="port of /metrics for Prometheus; 0 picks a free one")
    front_end: str = setting(
        "direct", help="what reads the sockets: direct (our own), or grpcio, the reference"
    )
    execution_provider: str = setting(
        "auto", help="where models run: cpu, cuda, tensorrt, or auto for cuda where it works"
    )
    cpu_engine: str = setting(
        "onnxruntime",
        help="what runs models on CPUs: onnxruntime, openvino where it answers the same, or the "
        "fastest of both, tried while loading",
    )
    engine_threads: int = setting(
        0, help="threads that one inference may use; 0 divides the cores by a model's instances"
    )
    graph_cache: Path | None = setting(
        None, help="folder where optimised graphs are kept, so that a restart is fast"
    )
    graph_cache_bytes: int = setting(
        8 * 1024**3, help="size of that folder beyond which what was not used for long is removed"
    )
    default_max_batch_size: int = setting(
        32, help="largest batch, in rows, of a model without config.pbtxt whose batch axis is free"
    )
    max_queue_size: int = setting(
        16384, help="requests of one model version that may wait; one more is refused at once"
    )
    max_queue_bytes: int = setting(
        256 * 1024 * 1024, help="bytes of one model version's requests that may wait"
    )
    patience_seconds: float = setting(
        10.0, help="a request without a deadline is refused where it would wait longer than this"
    )
    python_start_seconds: float = setting(
        120.0, help="longest time that a Python model may take to initialize"
    )
    python_execute_seconds: float = setting(
        300.0,
        help="longest time that a Python model may take in execute; longer ends it",
    )
    status_codes: str = setting(
        "precise",
        help="how errors are told: precise, or as triton does: malformed JSON is 500, a model that "
        "is not ready 400, a refusal UNAVAILABLE or 503, and NaN is a number of JSON",
    )
    max_request_bytes: int = setting(
        64 * 1024 * 1024, help="largest request that is read; a larger one is refused"
    )
    shared_memory_pattern: str = setting(
        ".+",
        help="regular expression of the keys of shared memory that clients may register; "
        "an empty one refuses all",
    )
    grpc_header_forward_pattern: str = setting(
        "", help="regular expression of the gRPC metadata that become parameters of a request"
    )
    http_header_forward_pattern: str = setting(
        "", help="regular expression of the HTTP header fields that become parameters of a request"
    )
    tls_certificate: Path | None = setting(
        None,
        help="certificate chain (PEM) of the gRPC and HTTP ports; without it they speak plainly",
    )
    tls_key: Path | None = setting(None, help="private key (PEM) of the certificate")
    tls_client_ca: Path | None = setting(
        None, help="certificate authority (PEM) that must have signed the clients' certificates"
    )
    trace_file: Path | None = setting(
        None, help="file that requests are traced into; without it, nothing can be traced"
    )
    trace_level: tuple[str, ...] = setting(
        (), help="what is traced from the start: TIMESTAMPS, TENSORS; may be repeated"
    )
    trace_rate: int = setting(1000, help="one of so many requests is traced")
    trace_count: int = setting(-1, help="so many requests are traced, then no more; -1 for any")
    trace_log_frequency: int = setting(
        0, help="traces of one file, then the next one begins; 0 writes one file"
    )
    drain_seconds: float = setting(
        30.0, help="after SIGTERM, the longest wait for the requests that were accepted"
    )

    def __post_init__(self) -> None:
        for name in ("grpc_port", "http_port", "metrics_port"):
            port = getattr(self, name)
            if not 0 <= port <= 65535:
                raise InvalidInput(f"{name} must lie in 0..65535, received {port}")
        for name in (
            "default_max_batch_size",
            "graph_cache_bytes",
            "max_queue_size",
            "max_queue_bytes",
            "max_request_bytes",
            "patience_seconds",
            "repository_poll_secs",
            "python_start_seconds",
            "python_execute_seconds",
        ):
            if getattr(self, name) <= 0:
                raise InvalidInput(f"{name} must be positive, received {getattr(self, name)}")
        for name in ("engine_threads", "drain_seconds"):
            if getattr(self, name) < 0:
                raise InvalidInput(f"{name} must not be negative, received {getattr(self, name)}")
        for name in (
            "drain_seconds",
            "patience_seconds",
            "repository_poll_secs",
            "python_start_seconds",
            "python_execute_seconds",
        ):
            if not math.isfinite(getattr(self, name)):
                raise InvalidInput(f"{name} must be finite, received {getattr(self, name)}")
        self._check_choices()
        self._check_models()
        self._check_patterns()
        self._check_tls()

    def _check_choices(self) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise InvalidInput(
                    f"{name} must be {_or(choices)}, received {getattr(self, name)!r}"
                )

    def _check_models(self) -> None:
        if self.load_model and self.model_control_mode != "explicit":
            raise InvalidInput("load_model needs model_control_mode explicit")
        if "*" in self.load_model and len(self.load_model) > 1:
            raise InvalidInput(f"load_model * stands alone, received {list(self.load_model)}")

    def _check_patterns(self) -> None:
        for name in _PATTERNS:
            try:
                re.compile(getattr(self, name))
            except re.error as error:
                raise InvalidInput(
                    f"{name} must be a regular expression, received {getattr(self, name)!r}: "
                    f"{error}"
                ) from error

    def _check_tls(self) -> None:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise InvalidInput("tls_certificate and tls_key must be given together")
        if self.tls_client_ca is not None and self.tls_certificate is None:
            raise InvalidInput("tls_client_ca needs tls_certificate and tls_key")


CPU_ENGINES = ("onnxruntime", "openvino", "fastest")
_PATTERNS = (
    "shared_memory_pattern",
    "grpc_header_forward_pattern",
    "http_header_forward_pattern",
)
_CHOICES = {
    "cpu_engine": CPU_ENGINES,
    "front_end": ("direct", "grpcio"),
    "model_control_mode": ("none", "poll", "explicit"),
    "status_codes": ("precise", "triton"),
    "execution_provider": ("auto", "cpu", "cuda", "tensorrt"),
}


def _or(choices: tuple[str, ...]) -> str:
    return f"{', '.join(choices[:-1])} or {choices[-1]}"


SECTION = "serve"
