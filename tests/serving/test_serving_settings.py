"""Settings of the gateway: what is refused, and how that is said."""

import pytest

from ridgeline.errors import InvalidInput
from serving.settings import ServeSettings


def test_the_defaults_are_the_well_known_ports_on_the_loopback():
    settings = ServeSettings()

    assert (settings.grpc_port, settings.http_port, settings.metrics_port) == (8001, 8000, 8002)
    assert settings.host == "127.0.0.1"


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("grpc_port", 70_000, r"grpc_port must lie in 0\.\.65535, received 70000"),
        ("http_port", -1, r"http_port must lie in 0\.\.65535, received -1"),
        ("metrics_port", 65_536, "metrics_port must lie"),
        ("default_max_batch_size", 0, "default_max_batch_size must be positive, received 0"),
        ("max_queue_size", 0, "max_queue_size must be positive"),
        ("max_queue_bytes", 0, "max_queue_bytes must be positive, received 0"),
        ("patience_seconds", 0, "patience_seconds must be positive, received 0"),
        ("patience_seconds", float("inf"), "patience_seconds must be finite, received inf"),
        ("patience_seconds", float("nan"), "patience_seconds must be finite, received nan"),
        ("status_codes", "busy", "must be precise or triton, received 'busy'"),
        ("max_request_bytes", -5, "max_request_bytes must be positive, received -5"),
        ("engine_threads", -1, "engine_threads must not be negative, received -1"),
        ("drain_seconds", -0.5, r"drain_seconds must not be negative, received -0\.5"),
        ("drain_seconds", float("nan"), "drain_seconds must be finite, received nan"),
        ("drain_seconds", float("inf"), "drain_seconds must be finite, received inf"),
        ("execution_provider", "gpu", "must be auto, cpu, cuda or tensorrt, received 'gpu'"),
        ("repository_poll_secs", 0, "repository_poll_secs must be positive, received 0"),
        ("model_control_mode", "manual", "must be none, poll or explicit, received 'manual'"),
        ("load_model", ("m",), "load_model needs model_control_mode explicit"),
        ("front_end", "nginx", "front_end must be direct or grpcio, received 'nginx'"),
    ],
)
def test_nonsense_is_refused(name, value, words):
    with pytest.raises(InvalidInput, match=words):
        ServeSettings(**{name: value})


def test_the_star_that_loads_every_model_stands_alone():
    with pytest.raises(InvalidInput, match=r"load_model \* stands alone, received \['\*', 'm'\]"):
        ServeSettings(model_control_mode="explicit", load_model=("*", "m"))
