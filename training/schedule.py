"""Optimizers, and the schedule that their learning rate follows."""

from typing import Any

import keras
from keras import ops

from training.recipe import Optimizer
from training.workers import Workers, shared

_DROPS = (0.5, 0.75)  # of the run: where `steps` divides the learning rate by ten


def make_optimizer(
    settings: Optimizer, *, steps: int, steps_per_epoch: int = 1, team: Workers | None = None
) -> keras.optimizers.Optimizer:
    """The optimizer, with its learning rate on the schedule over `steps` steps.

    In a team of workers it applies the mean of all their gradients.
    """
    team = team or Workers()
    warm_up_steps = round(settings.warm_up_epochs * steps_per_epoch)
    schedule = Schedule(settings, steps=steps, warm_up_steps=warm_up_steps)
    extras: dict[str, Any] = {"global_clipnorm": settings.clip_norm}
    if settings.weight_decay:
        extras["weight_decay"] = settings.weight_decay
    if settings.name == "adam":
        optimizer = shared(keras.optimizers.Adam, workers=team)(schedule, **extras)
    else:
        optimizer = shared(keras.optimizers.SGD, workers=team)(
            schedule, momentum=settings.momentum, **extras
        )
    if settings.weight_decay:
        optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer


class Schedule(keras.optimizers.schedules.LearningRateSchedule):  # type: ignore[misc]  # no types
    """Warm-up, then half a cosine, steps, or nothing; see `training.recipe.Optimizer`."""

    def __init__(self, settings: Optimizer, *, steps: int, warm_up_steps: int = 0) -> None:
        super().__init__()
        self._settings, self._steps, self._warm_up_steps = settings, steps, warm_up_steps

    def __call__(self, step: Any) -> Any:
        """The learning rate of that step, counted from 0."""
        step = ops.cast(step, "float32")
        rest = max(self._steps - self._warm_up_steps, 1)
        progress = ops.clip((step - self._warm_up_steps) / rest, 0.0, 1.0)
        rate = self._settings.learning_rate * self._share(progress)
        if not self._warm_up_steps:
            return rate
        rising = self._settings.learning_rate * (step + 1) / self._warm_up_steps
        return ops.where(step < self._warm_up_steps, rising, rate)

    def _share(self, progress: Any) -> Any:
        settings = self._settings
        if settings.schedule == "steps":
            return sum(
                ops.where(progress >= drop, 0.0, 1.0) * 0.9 * 0.1**place
                for place, drop in enumerate(_DROPS)
            ) + 0.1 ** len(_DROPS)
        if settings.schedule == "constant":
            return ops.ones_like(progress)
        last = settings.final_learning_rate / settings.learning_rate
        return last + (1 - last) * 0.5 * (1 + ops.cos(3.141592653589793 * progress))

    def get_config(self) -> dict[str, Any]:
        """What Keras asks of every schedule; networks here are saved without their optimizer."""
        return {"steps": self._steps, "warm_up_steps": self._warm_up_steps}
