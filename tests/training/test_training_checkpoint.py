"""Checkpoints: whole or not there, of one recipe, and never taken for what they are not."""

from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest

from ridgeline.errors import CorruptData
from training.checkpoint import Checkpoint, State, restore
from training.recipe import Recipe, Required

STATE = State(variables=[np.arange(3)], best=[np.ones(2)], curve=[{"epoch": 1}], seconds=1.5)


def test_what_was_written_is_read_until_it_is_removed(
    tmp_path: Path, recipe: Callable[..., Recipe]
) -> None:
    kept = Checkpoint(tmp_path, recipe=recipe())
    assert kept.read() is None
    kept.write(STATE)
    kept.write(STATE)
    found = kept.read()
    assert found is not None
    assert (found.variables[0] == np.arange(3)).all()
    assert (found.best[0] == 1).all()
    assert (found.curve, found.seconds) == ([{"epoch": 1}], 1.5)
    kept.remove()
    assert list(tmp_path.iterdir()) == []


def test_another_recipe_does_not_go_on_from_it_but_another_text_does(
    tmp_path: Path, recipe: Callable[..., Recipe]
) -> None:
    def path(**changed: object) -> Path:
        return Checkpoint(tmp_path, recipe=recipe(**changed)).path

    assert path() == path(description="told otherwise", required=Required(exact=0.5))
    assert len({path(), path(seed=9), path(epochs=3), path(precision="mixed_bfloat16")}) == 4


def test_a_damaged_file_is_told_with_its_name(
    tmp_path: Path, recipe: Callable[..., Recipe]
) -> None:
    kept = Checkpoint(tmp_path, recipe=recipe())
    kept.path.write_bytes(b"no archive")
    with pytest.raises(CorruptData, match=r"\.checkpoint is no checkpoint, remove it"):
        kept.read()


def test_arrays_of_another_network_are_refused() -> None:
    with pytest.raises(CorruptData, match="a checkpoint of 1 arrays does not fit"):
        restore([keras.Variable(np.zeros(3)), keras.Variable(np.zeros(1))], values=[np.zeros(3)])
