"""What the tests of training share: a run small enough to repeat, on real digits."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from training import framework

framework.load()  # before any test module imports keras, as `ridgeline train` does

from training import datasets  # noqa: E402
from training.datasets import DataSet  # noqa: E402
from training.recipe import Optimizer, Recipe  # noqa: E402


@pytest.fixture(scope="session")
def mnist() -> DataSet:
    """The data set, read once."""
    return datasets.load("mnist")


@pytest.fixture(scope="session")
def few(mnist: DataSet) -> DataSet:
    """The first 1,500 training and 400 test images."""
    return DataSet(
        training=mnist.training.take(np.arange(1500)),
        test=mnist.test.take(np.arange(400)),
        classes=mnist.classes,
    )


@pytest.fixture
def few_digits(few: DataSet, monkeypatch: pytest.MonkeyPatch) -> DataSet:
    """A copy of the few images, which training takes for all of MNIST during the test."""
    copy = dataclasses.replace(few, training=few.training.take(np.arange(1500)))
    monkeypatch.setattr(datasets, "load", lambda _name: copy)
    return copy


@pytest.fixture(scope="session")
def recipe() -> Callable[..., Recipe]:
    """A quick recipe, with the given fields instead of its own."""

    def make(**fields: Any) -> Recipe:
        quick = Recipe(
            description="a quick run",
            model="mlp",
            dataset="mnist",
            epochs=2,
            batch_size=50,
            seed=7,
            validation_samples=500,
            required_accuracy=0.5,
            optimizer=Optimizer(learning_rate=0.05),
        )
        return dataclasses.replace(quick, **fields)

    return make
