"""Ensembles: models that are made of other models (`platform: "ensemble"`)."""

from dataclasses import dataclass

from tritonclient.grpc import model_config_pb2

from ridgeline.errors import InvalidInput, Unsupported
from ridgeline.model import spec_of
from ridgeline.repository import read_labels
from serving.ensemble import Plan, plan_of
from serving.ensemble_scheduler import EnsembleScheduler
from serving.statistics import ModelStatistics
from serving.version import LoadedVersion, Loading, Started, Surroundings

PLATFORM = "ensemble"


@dataclass(frozen=True, kw_only=True)
class EnsembleVersion(LoadedVersion):
    """An ensemble whose plan is sound; whether its models fit is seen where it starts."""

    plan: Plan

    @property
    def platform(self) -> str:
        """As Triton calls it."""
        return PLATFORM

    def start(self, *, version: str, statistics: ModelStatistics, within: Surroundings) -> Started:
        """Look at the models. Raises Unavailable for one that is not ready, InvalidInput."""
        scheduler = EnsembleScheduler(
            self.plan,
            config=self.config,
            spec=self.spec,
            version=version,
            statistics=statistics,
            within=within,
        )
        scheduler.check()
        return Started(scheduler)


def load(loading: Loading) -> EnsembleVersion:
    """Read the configuration of an ensemble; its folder holds nothing else.

    Raises InvalidInput where the configuration is no plan that could be followed.
    """
    given = loading.given
    if given is None or not given.HasField("ensemble_scheduling"):
        raise InvalidInput(
            f"ensemble scheduling must be set for ensemble {loading.model.name} "
            "whose platform is ensemble"
        )
    if given.instance_group:
        raise InvalidInput(f"instance group should not be specified for ensemble {given.name!r}")
    config = type(given).FromString(given.SerializeToString())
    if not config.HasField("version_policy"):
        config.version_policy.latest.num_versions = 1
    for tensor in (*config.input, *config.output):
        if tensor.HasField("reshape") or getattr(tensor, "optional", False):
            raise Unsupported(
                f"{tensor.name!r} of ensemble {given.name!r} is optional or reshaped, which only a "
                "model's own tensors can be"
            )
    spec = spec_of(config)
    plan = plan_of(config, spec=spec)
    return EnsembleVersion(
        config=config,
        spec=spec,
        plan=plan,
        labels=read_labels(loading.model.directory, config),
        depends_on=plan.models,
    )


def models_of(config: model_config_pb2.ModelConfig | None) -> frozenset[str]:
    """The models that an ensemble's configuration names; none for a model of another kind."""
    if config is None:
        return frozenset()
    return frozenset(step.model_name for step in config.ensemble_scheduling.step)
