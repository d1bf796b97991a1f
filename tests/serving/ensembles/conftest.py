"""A registry, and what loads ensembles into it."""

import pytest

from serving.registry import Registry
from tests.serving.ensembles.diamond import plan


@pytest.fixture
def add(repository):
    def add(config: str, name: str = "e") -> None:
        (repository.root / name / "1").mkdir(parents=True)
        (repository.root / name / "config.pbtxt").write_text(config)

    return add


@pytest.fixture
async def registry(settings):
    registry = Registry(settings)
    yield registry
    await registry.close(drain_seconds=60)


@pytest.fixture
def diamond(repository, models, add, registry):
    """What loads the ensemble of `diamond.py`, and its models, and returns the registry."""
    repository.add("pair", models.two_inputs(), config="max_batch_size: 8")
    repository.add("copy", models.identity(shape=("batch", 3)), config="max_batch_size: 8")

    async def load(**what) -> Registry:
        add(plan(**what))
        await registry.load()
        return registry

    return load
