"""A network as it is before any training: what it costs and how it exports do not depend on it."""

from pathlib import Path
from typing import Any

import keras
import numpy as np

from training import artifact, zoo
from training.tasks import classification


def write(network: str, /, *, seed: int, output: Path) -> dict[str, Any]:
    """Write the artifact <network>_untrained; returns its training.json and the folder.

    The network answers what it computes: logits, not boxes or words. Biases and averages of
    batches are random too: zeros and ones would hide what an export made of them. Raises NotFound.
    """
    keras.utils.set_random_seed(seed)
    built = _served(zoo.build(network))
    _randomise_constants(built, random=np.random.default_rng(seed))
    name = f"{built.name}_untrained"
    report = {
        "model": name,
        "network": network,
        "untrained": True,
        "seed": seed,
        "reached": True,  # nothing was required
        "parameters": built.count_params(),
        "labels": {},
        "packages": artifact.versions(),
    }
    with artifact.staging(output, model=name) as stage:
        new = stage / "new"
        new.mkdir()
        artifact.write_json(new / "training.json", report)
        step = zoo.build_step(network, network=built)
        artifact.save_network(built, step=step, folder=new / "saved_model")
        artifact.put(new, place=output / name, old=stage / "old")
    return {**report, "artifact": str(output / name)}


def _served(network: keras.Model) -> keras.Model:
    """Without the heads that are there for training alone."""
    return classification.served(network) if "probabilities" in network.output_names else network


def _randomise_constants(network: keras.Model, *, random: np.random.Generator) -> None:
    for weight in network.weights:
        value = np.asarray(weight)
        if not value.any():
            weight.assign(random.normal(0, 0.1, value.shape))
        elif (value == 1).all():
            weight.assign(random.uniform(0.5, 1.5, value.shape))
