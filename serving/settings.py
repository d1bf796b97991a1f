"""The settings of `ridgeline serve`: the one place that names them."""

import math
from dataclasses import dataclass
from pathlib import Path

from ridgeline.errors import InvalidInput
from ridgeline.settings import setting


@dataclass(frozen=True)
class ServeSettings:
    """Flags, RIDGELINE_SERVE_* variables and the [serve] table of a TOML file become this."""

    repository: Path = setting(Path("model_repository"), help="folder of the models to serve")
    host: str = setting("127.0.0.1", help="address to listen on; 0.0.0.0 for every interface")
    grpc_port: int = setting(8001, help="port of the gRPC front end; 0 picks a free one")
    http_port: int = setting(8000, help="port of the HTTP front end; 0 picks a free one")
    metrics_port: int = setting(8002, help="port of /metrics for Prometheus; 0 picks a free one")
    front_end: str = setting(
        "grpcio", help="what reads the sockets: grpcio (the reference, with uvicorn) or h2corn"
    )
    execution_provider: str = setting(
        "auto", help="where models run: cpu, cuda, tensorrt, or auto for cuda where it works"
    )
    engine_threads: int = setting(
        0, help="threads that one inference may use; 0 divides the cores by a model's instances"
    )
    default_max_batch_size: int = setting(
        32, help="largest batch, in rows, of a model without config.pbtxt whose batch axis is free"
    )
    max_queue_size: int = setting(
        1024, help="requests of one model version that may wait; one more is refused at once"
    )
    max_request_bytes: int = setting(
        64 * 1024 * 1024, help="largest request that is read; a larger one is refused"
    )
    drain_seconds: float = setting(
        30.0, help="after SIGTERM, the longest wait for the requests that were accepted"
    )

    def __post_init__(self) -> None:
        for name in ("grpc_port", "http_port", "metrics_port"):
            port = getattr(self, name)
            if not 0 <= port <= 65535:
                raise InvalidInput(f"{name} must lie in 0..65535, received {port}")
        for name in ("default_max_batch_size", "max_queue_size", "max_request_bytes"):
            if getattr(self, name) < 1:
                raise InvalidInput(f"{name} must be positive, received {getattr(self, name)}")
        for name in ("engine_threads", "drain_seconds"):
            if getattr(self, name) < 0:
                raise InvalidInput(f"{name} must not be negative, received {getattr(self, name)}")
        if not math.isfinite(self.drain_seconds):
            raise InvalidInput(f"drain_seconds must be finite, received {self.drain_seconds}")
        if self.front_end not in ("grpcio", "h2corn"):
            raise InvalidInput(f"front_end must be grpcio or h2corn, received {self.front_end!r}")
        if self.execution_provider not in ("auto", "cpu", "cuda", "tensorrt"):
            raise InvalidInput(
                "execution_provider must be auto, cpu, cuda or tensorrt, "
                f"received {self.execution_provider!r}"
            )


SECTION = "serve"
