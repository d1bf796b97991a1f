"""From a folder of the repository to a loaded version: which versions, and by which backend."""

from collections.abc import Callable, Sequence

from tritonclient.grpc import model_config_pb2

from ridgeline.errors import InvalidInput, NotFound, RidgelineError, Unsupported
from ridgeline.repository import MODEL_FILE, RepositoryModel
from serving.backends import ensemble, onnxruntime, python
from serving.settings import ServeSettings
from serving.version import LoadedVersion, Loading, Stoppable

_BACKENDS: dict[str, Callable[[Loading], LoadedVersion]] = {
    "onnxruntime": onnxruntime.load,
    "ensemble": ensemble.load,
    "python": python.load,
}
_BACKEND_OF_PLATFORM = {"onnxruntime_onnx": "onnxruntime", "ensemble": "ensemble"}


def versions_to_serve(model: RepositoryModel) -> tuple[int, ...]:
    """The versions that the configuration's version policy picks; Triton's default is the newest.

    Raises NotFound where the folder holds no version, or not the one that the policy names.
    """
    if not model.versions:
        raise NotFound(
            f"{model.directory} holds no version; expected {model.directory}/1/{MODEL_FILE}"
        )
    config = model.read_config() or model_config_pb2.ModelConfig()
    policy = config.version_policy
    match policy.WhichOneof("policy_choice"):
        case "all":
            return model.versions
        case "specific":
            if not policy.specific.versions:
                raise InvalidInput(f"the version policy of {model.name!r} names no version")
            if missing := sorted(set(policy.specific.versions) - set(model.versions)):
                raise NotFound(
                    f"the version policy of {model.name!r} names versions {missing}, "
                    f"but {model.directory} holds {list(model.versions)}"
                )
            return tuple(sorted(policy.specific.versions))
        case "latest":
            return model.versions[-max(1, policy.latest.num_versions) :]
        case _:
            return model.versions[-1:]


def load_version(
    model: RepositoryModel,
    *,
    version: int,
    settings: ServeSettings,
    on_engine: Callable[[Stoppable], None],
) -> LoadedVersion:
    """Load one version by the backend that its configuration names. Blocks.

    `on_engine` receives the engine before its first run, so that a long one can be stopped. Raises
    a RidgelineError that says why the version cannot be served.
    """
    given = model.read_config()
    loading = Loading(
        model=model, version=version, given=given, settings=settings, on_engine=on_engine
    )
    return _BACKENDS[_backend_of(given) or _backend_of_files(model, version=version)](loading)


def dependencies_of(model: RepositoryModel) -> frozenset[str]:
    """The models that an ensemble sends requests to; none where its configuration is broken."""
    try:
        return ensemble.models_of(model.read_config())
    except (RidgelineError, OSError):  # it is told when the model is loaded
        return frozenset()


def in_load_order(models: Sequence[RepositoryModel]) -> list[RepositoryModel]:
    """The models, each behind those that its configuration depends on, else in the given order.

    Models that depend on each other come last; they are refused when they start.
    """
    by_name = {model.name: model for model in models}
    ordered: dict[str, RepositoryModel] = {}
    waiting = {model.name: dependencies_of(model) & by_name.keys() for model in models}
    while waiting:
        free = [name for name, names in waiting.items() if names <= ordered.keys()]
        for name in free or list(waiting):
            ordered[name] = by_name[name]
            del waiting[name]
    return list(ordered.values())


def _backend_of(config: model_config_pb2.ModelConfig | None) -> str:
    """The backend that a configuration asks for, "" for any. Raises Unsupported for others."""
    if config is None or not (config.backend or config.platform):
        if config is not None and config.HasField("ensemble_scheduling"):
            raise InvalidInput(
                f"the configuration of {config.name!r} has ensemble_scheduling: "
                'its platform must be "ensemble"'
            )
        return ""
    backend = config.backend or _BACKEND_OF_PLATFORM.get(config.platform, "")
    known = config.platform in ("", *_BACKEND_OF_PLATFORM)
    if backend not in _BACKENDS or not known or (config.backend and backend == "ensemble"):
        raise Unsupported(
            "expected an ONNX model (backend 'onnxruntime'), a Python model (backend 'python') or "
            "an ensemble (platform 'ensemble'), "
            f"the configuration asks for {config.backend or config.platform!r}"
        )
    return backend


def _backend_of_files(model: RepositoryModel, *, version: int) -> str:
    """The backend for the files of a version whose configuration, if any, asks for none."""
    files = {path.name for path in model.version_directory(version).iterdir()}
    return "python" if python.FILE in files and MODEL_FILE not in files else "onnxruntime"
