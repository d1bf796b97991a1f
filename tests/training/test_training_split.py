"""The split that keeps validation apart from training."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ridgeline.errors import InvalidInput
from training.datasets import Samples, split


def numbered(count: int) -> Samples:
    """Samples that are all different, so that each can be followed."""
    numbers = np.arange(count)
    return Samples(inputs=numbers.astype(np.float32), labels=numbers.astype(np.int64))


@given(st.data(), st.integers(2, 60), st.integers(0, 2**32 - 1))
def test_no_sample_is_in_both_parts_and_none_is_lost(
    data: st.DataObject, count: int, seed: int
) -> None:
    validation_samples = data.draw(st.integers(1, count - 1))
    training, validation = split(numbered(count), validation_samples=validation_samples, seed=seed)
    assert len(validation) == validation_samples
    assert sorted([*training.labels, *validation.labels]) == list(range(count))
    assert (training.inputs == training.labels).all()


def test_the_same_seed_draws_the_same_samples_and_another_does_not() -> None:
    first, again, other = (
        split(numbered(100), validation_samples=20, seed=seed)[1].labels for seed in (1, 1, 2)
    )
    assert (first == again).all()
    assert (first != other).any()


def test_a_cap_on_training_samples_leaves_validation_as_it_was() -> None:
    _, whole = split(numbered(100), validation_samples=20, seed=1)
    training, capped = split(numbered(100), validation_samples=20, training_samples=30, seed=1)
    assert len(training) == 30
    assert (whole.labels == capped.labels).all()


@pytest.mark.parametrize(("validation", "training"), [(0, None), (10, None), (5, 6), (5, 0)])
def test_a_split_that_does_not_add_up_is_refused(validation: int, training: int | None) -> None:
    with pytest.raises(InvalidInput, match="10 samples cannot be split"):
        split(numbered(10), validation_samples=validation, training_samples=training, seed=1)


def test_samples_without_a_label_each_are_refused() -> None:
    with pytest.raises(InvalidInput, match="one label each"):
        Samples(inputs=np.zeros((3, 2), np.float32), labels=np.zeros(2, np.int64))
