"""Python models (`backend: "python"`): a model.py with the interface of Triton's Python backend.

It runs in worker processes with this server's interpreter and packages.
"""

import json
from dataclasses import dataclass

from google.protobuf import json_format
from tritonclient.grpc import model_config_pb2

from ridgeline.errors import InvalidInput, NotFound, Overloaded, Unavailable, Unsupported
from ridgeline.model import spec_of
from ridgeline.repository import read_labels
from serving.policy import BatchPolicy, batch_policy
from serving.protocol.config_json import config_table
from serving.python_engine import PythonEngine
from serving.python_process import WorkerTask
from serving.python_scheduler import PythonScheduler
from serving.request_batcher import RequestBatcher
from serving.reshape import reshapes_of
from serving.statistics import ModelStatistics
from serving.version import LoadedVersion, Loading, Started, Surroundings

BACKEND = "python"
FILE = "model.py"
_ENVIRONMENT = "EXECUTION_ENV_PATH"
_UNSUPPORTED_PARTS = ("sequence_batching", "ensemble_scheduling", "batch_input", "batch_output")


@dataclass(frozen=True, kw_only=True)
class PythonVersion(LoadedVersion):
    """A version whose worker processes are there and have initialized the model."""

    engine: PythonEngine
    instances: int
    policy: BatchPolicy

    @property
    def platform(self) -> str:
        """As Triton calls it."""
        return BACKEND

    def start(self, *, version: str, statistics: ModelStatistics, within: Surroundings) -> Started:
        """Put a batcher before the workers; without `dynamic_batching`, one request at a time."""
        precise = within.settings.status_codes == "precise"
        batcher = RequestBatcher(
            self.engine,
            together=self.config.HasField("dynamic_batching"),
            spec=self.spec,
            policy=self.policy,
            statistics=statistics,
            instances=self.instances,
            refusal=Overloaded if precise else Unavailable,
        )
        return Started(
            PythonScheduler(
                batcher,
                engine=self.engine,
                version=version,
                spec=self.spec,
                reshapes=reshapes_of(self.config),
                statistics=statistics,
                find=within.find,
            )
        )


def load(loading: Loading) -> PythonVersion:
    """Start the workers and let the model initialize. Blocks.

    Raises Unavailable with what the model raised, Unsupported, NotFound where there is no model.py.
    """
    config = _given(loading)
    _refuse_unsupported(config)
    directory = loading.model.version_directory(loading.version)
    path = directory / (config.default_model_filename or FILE)
    if not path.is_file():
        raise NotFound(f"version {loading.version} of {config.name!r} has no file {path}")
    config.default_model_filename = path.name
    instances = sum(max(1, group.count) for group in config.instance_group) or 1
    settings = loading.settings
    task = WorkerTask(
        name=config.name,
        path=path.resolve(),
        arguments={
            "model_config": json.dumps(config_table(config)),
            "model_instance_kind": "CPU",
            "model_instance_name": f"{config.name}_0",
            "model_instance_device_id": "0",
            "model_repository": str(loading.model.directory.resolve()),
            "model_version": str(loading.version),
            "model_name": config.name,
        },
        start_s=settings.python_start_seconds,
        execute_s=settings.python_execute_seconds,
    )
    engine = PythonEngine(task, name=config.name, instances=instances)
    loading.on_engine(engine)
    completed = engine.start()
    try:
        config = json_format.Parse(completed, model_config_pb2.ModelConfig())
        return _loaded(config, engine=engine, instances=instances, loading=loading)
    except json_format.ParseError as error:
        engine.close()
        raise InvalidInput(f"auto_complete_config gave no configuration: {error}") from error
    except Exception:
        engine.close()
        raise


def _loaded(
    config: model_config_pb2.ModelConfig,
    *,
    engine: PythonEngine,
    instances: int,
    loading: Loading,
) -> PythonVersion:
    settings, spec = loading.settings, spec_of(config)
    reshapes_of(config)  # refuses those that cannot be
    engine.outputs = tuple(tensor.name for tensor in spec.outputs)
    engine.decoupled = config.model_transaction_policy.decoupled
    return PythonVersion(
        config=config,
        spec=spec,
        engine=engine,
        instances=instances,
        labels=read_labels(loading.model.directory, config),
        policy=batch_policy(
            config,
            max_queue_size=settings.max_queue_size,
            max_queue_bytes=settings.max_queue_bytes,
            patience_s=settings.patience_seconds,
        ),
    )


def _given(loading: Loading) -> model_config_pb2.ModelConfig:
    config = model_config_pb2.ModelConfig()
    if loading.given is not None:
        config.CopyFrom(loading.given)
    config.name, config.backend = loading.model.name, BACKEND
    if not config.HasField("version_policy"):
        config.version_policy.latest.num_versions = 1
    return config


def _refuse_unsupported(config: model_config_pb2.ModelConfig) -> None:
    for part in _UNSUPPORTED_PARTS:
        field = config.DESCRIPTOR.fields_by_name[part]
        if getattr(config, part) if field.is_repeated else config.HasField(part):
            raise Unsupported(f"Python models do not support {part!r} in this server")
    if _ENVIRONMENT in config.parameters:
        raise Unsupported(
            f"the parameter {_ENVIRONMENT!r} is not supported: Python models run in the server's "
            "own environment; install there what they need"
        )
    kinds = {group.kind for group in config.instance_group}
    if model_config_pb2.ModelInstanceGroup.KIND_GPU in kinds:
        raise Unsupported("Python models get no GPU from this server: use KIND_CPU")
