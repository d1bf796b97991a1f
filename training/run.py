"""A run, epoch after epoch: what each is trained on, and how it goes on after a kill."""

import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ridgeline.errors import InvalidInput
from training import checkpoint, multiply_adds, tasks, transfer, workers
from training.augmentation import augmentation_layers, mix_up
from training.checkpoint import Checkpoint, State
from training.datasets import DataSet, Samples
from training.epoch import Epoch, Progress, Watcher, write_logs
from training.recipe import Recipe
from training.schedule import make_optimizer

_EVALUATION_BATCH_SIZE = 1000
_LARGEST_EVALUATION = 4_000_000  # numbers in a batch: larger samples are evaluated in fewer


class Run:
    """The learner with its data: makes epochs, and can be put back to the end of any of them."""

    def __init__(
        self,
        recipe: Recipe,
        *,
        task: tasks.Task,
        network: keras.Model,
        training: Samples,
        data: DataSet,
        team: workers.Workers,
    ) -> None:
        if recipe.redrawn and not data.redraw:
            raise InvalidInput(
                f"redrawn must be false: {recipe.dataset} has no samples but its own"
            )
        self._recipe, self._training, self._team = recipe, training, team
        self._redraw = data.redraw if recipe.redrawn else None
        self._mixed = recipe.augmentation is not None and recipe.augmentation.mix_up > 0
        self._classes = len(data.classes)
        self._samples = team.whole(len(training), batch_size=recipe.batch_size)
        self._steps = -(-self._samples // recipe.batch_size)
        layers = augmentation_layers(recipe.augmentation)
        # Augmentation is wrapped around the network, so that what is exported is the network alone.
        learner = task.learner(network)
        self._learner = keras.Sequential([*layers, learner]) if layers else learner
        self._task, self._network, self._stage = task, network, -1
        # Gradients of inputs and weights cost as much as the pass itself, each.
        self._sample_flops = 2 * multiply_adds.FORWARD_AND_BACKWARD * multiply_adds.of(learner)

    @property
    def epoch_flops(self) -> int:
        """What an epoch computes: forward and backward, of all its samples."""
        return self._sample_flops * len(self._training)

    def go(
        self,
        validation: Samples,
        *,
        watch: Watcher,
        kept: Checkpoint | None,
        logs: Path | None,
    ) -> State:
        """All epochs, from the checkpoint on where there is one; the weights are then the best."""
        self._team.wait()  # where it begins anew, the checkpoint is gone by now
        state = kept.read() if kept else None
        self._team.check_same(len(state.curve) if state else 0)
        if state:
            self._enter_stage(len(state.curve) - 1)
            checkpoint.restore(self._variables, values=state.variables)
        state = state or State(variables=[], best=[], curve=[], seconds=0.0)
        curve, best = [Epoch(**point) for point in state.curve], state.best
        seconds = state.seconds
        while len(curve) < self._recipe.epochs and not self._is_over(curve):
            start_ns = time.monotonic_ns()
            self._enter_stage(len(curve))
            curve.append(self._epoch(curve, validation=validation, watch=watch))
            seconds += (time.monotonic_ns() - start_ns) / 1e9
            if self._recipe.patience and curve[-1].val_loss <= min(p.val_loss for p in curve):
                best = checkpoint.snapshot(self._learner.variables)
            points = [asdict(point) for point in curve]
            state = State(checkpoint.snapshot(self._variables), best, points, seconds)
            write_logs(logs if self._team.is_chief else None, point=curve[-1])
            if kept and self._team.is_chief:
                kept.write(state)
        if best:
            checkpoint.restore(self._learner.variables, values=best)
        return state

    def _enter_stage(self, epoch: int) -> None:
        """Compile the learner for the stage of that epoch, where it is not that already."""
        place = transfer.place_of(epoch, stages=transfer.stages(self._recipe))
        if place == self._stage:
            return
        self._stage, stage = place, transfer.stages(self._recipe)[place]
        transfer.freeze(self._network, stage=stage)
        self._learner.compile(
            optimizer=make_optimizer(
                transfer.optimizer_of(stage, recipe=self._recipe),
                steps=transfer.length(place, recipe=self._recipe) * self._steps,
                steps_per_epoch=self._steps,
                team=self._team,
            ),
            loss=self._task.loss(),
            metrics=self._task.metrics(),
        )
        self._learner.optimizer.build(self._learner.trainable_variables)

    @property
    def _variables(self) -> list[Any]:
        """Weights, averages, the states of the random generators, those of the optimizer."""
        return [*self._learner.variables, *self._learner.optimizer.variables]

    def _is_over(self, curve: Sequence[Epoch]) -> bool:
        """Whether the run diverged, or has been without progress for as long as it may."""
        if not curve:
            return False
        losses = [point.val_loss for point in curve]
        stale = len(losses) - 1 - int(np.argmin(losses))
        diverged = not np.isfinite(curve[-1].loss)
        return diverged or (self._recipe.patience is not None and stale >= self._recipe.patience)

    def _epoch(self, curve: Sequence[Epoch], *, validation: Samples, watch: Watcher) -> Epoch:
        epoch, start_ns = len(curve), time.monotonic_ns()
        callbacks = [_Teller(self, watch=watch, curve=curve)]
        if self._team.count == 1:  # else all of them end together, with the epoch
            callbacks.append(keras.callbacks.TerminateOnNaN())
        learner = self._learner
        history = learner.fit(
            self._batches(epoch),
            epochs=epoch + 1,
            initial_epoch=epoch,
            shuffle=False,  # the order is drawn above
            callbacks=callbacks,
            verbose=0,
        ).history
        figures = self._team.agreed({name: float(values[-1]) for name, values in history.items()})
        self._team.even_out(learner.non_trainable_variables)
        found = learner.evaluate(
            validation.inputs,
            self._shares(validation.labels),
            batch_size=evaluation_batch(validation),
            verbose=0,
            return_dict=True,
        )
        return Epoch(
            epoch=epoch + 1,
            learning_rate=float(learner.optimizer.learning_rate),
            seconds=(time.monotonic_ns() - start_ns) / 1e9,
            **{name: figures[name] for name in ("loss", "accuracy") if name in figures},
            **{f"val_{name}": float(value) for name, value in self._team.agreed(found).items()},
        )

    def _batches(self, epoch: int) -> tf.data.Dataset:
        """The epoch's batches; the seed and the epoch alone decide what is in them."""
        recipe = self._recipe
        if self._redraw and epoch:
            self._training = self._redraw(len(self._training), recipe.seed * 2**20 + epoch)
        inputs = tf.constant(self._training.inputs)
        labels = tf.constant(self._shares(self._training.labels))
        order = np.random.default_rng([recipe.seed, epoch]).permutation(len(self._training))
        order = order[: self._samples]
        places = tf.data.Dataset.from_tensor_slices(order).batch(recipe.batch_size).enumerate()

        def gathered(step: tf.Tensor, batch: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            chosen = self._team.part(batch)
            images, told = tf.gather(inputs, chosen), tf.gather(labels, chosen)
            if recipe.augmentation is None or not self._mixed:
                return images, told
            seed = tf.stack([tf.constant(recipe.seed % 2**31, tf.int64), epoch * 2**20 + step])
            return mix_up(images, told, most=recipe.augmentation.mix_up, seed=seed)

        return places.map(gathered).prefetch(2).with_options(_untuned())

    def _shares(self, labels: Any) -> Any:
        """Numbers of labels as shares of each, where images are mixed."""
        return np.eye(self._classes, dtype=np.float32)[labels] if self._mixed else labels

    def told(self, step: int, *, curve: Sequence[Epoch], elapsed_ns: int) -> Progress:
        """Where the run stands after that many steps of the epoch."""
        samples = min(step * self._recipe.batch_size, self._samples)
        return Progress(
            epoch=len(curve) + 1,
            epochs=self._recipe.epochs,
            step=step,
            steps=self._steps,
            flops_per_s=samples * self._sample_flops / max(elapsed_ns / 1e9, 1e-9),
            last=curve[-1] if curve else None,
        )


class _Teller(keras.callbacks.Callback):  # type: ignore[misc]  # keras publishes no types
    """Tells the watcher of each step."""

    def __init__(self, run: Run, *, watch: Watcher, curve: Sequence[Epoch]) -> None:
        super().__init__()
        self._run, self._watch, self._curve = run, watch, curve
        self._start_ns = time.monotonic_ns()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:  # noqa: ARG002
        """Keras counts batches from 0."""
        elapsed_ns = time.monotonic_ns() - self._start_ns
        self._watch(self._run.told(batch + 1, curve=self._curve, elapsed_ns=elapsed_ns))


def _untuned() -> tf.data.Options:
    """Options of a data set whose end is its end.

    tf.data's tuner, which has nothing to tune here, sleeps 10 ms, then 20, 40 and so on, and what
    ends the iterator waits till it wakes: 5.2 s of steps took 10.2, an epoch of 25 s would take 41.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return options


def evaluation_batch(samples: Samples) -> int:
    """How many samples to evaluate at once."""
    size = max(1, int(np.prod(samples.inputs.shape[1:])))
    return max(1, min(_EVALUATION_BATCH_SIZE, _LARGEST_EVALUATION // size))
