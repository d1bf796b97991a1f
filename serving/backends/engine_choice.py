"""Which CPU engine runs a model: tried side by side while it loads, and recorded with figures."""

import functools
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnxruntime
from tritonclient.grpc import model_config_pb2

from ridgeline.errors import InvalidInput, Unsupported
from ridgeline.model import ModelSpec
from serving.backends.trial_inputs import trial_inputs
from serving.backends.warm_up import measured_times, zeros
from serving.engine import Engine, EngineSettings, built_nicely
from serving.openvino_engine import OpenVinoEngine, version
from serving.service_time import ServiceTime
from serving.settings import CPU_ENGINES, ServeSettings
from serving.side_by_side import side_by_side_ns
from serving.widened_engine import WidenedEngine

logger = logging.getLogger(__name__)

PARAMETER = "ridgeline_cpu_engine"
_LEAST_GAIN = 1.1  # per row, each engine at its best batch size
_LEAST_GAIN_OF_ONE = 0.9  # of a single row: what the batches win must not be lost there
_TOLERANCE = 1e-4  # of the largest magnitude: float32 summed in another order, through many layers
_WARM_UP_NS = 3_000_000_000


@dataclass(frozen=True)
class Choice:
    """The engine that runs a model, what is known of its times, and what to record of the trial."""

    engine: Engine
    service_time: ServiceTime | None
    parameters: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Trial:
    """One model in ONNX Runtime, `onnx`, and in OpenVINO: how it is to be tried.

    `instances` batches run at once. `on_engine` receives what can be stopped.
    """

    path: Path
    spec: ModelSpec
    onnx: Choice
    settings: EngineSettings
    instances: int
    on_engine: Callable[[Engine], None]

    def openvino(self, *, threads: int, streams: int) -> OpenVinoEngine:
        """The model in OpenVINO. Raises Unsupported."""
        return built_nicely(
            functools.partial(
                OpenVinoEngine, self.path, like=self.onnx.engine, threads=threads, streams=streams
            )
        )


def wished_engine(config: model_config_pb2.ModelConfig | None, *, settings: ServeSettings) -> str:
    """What the model's configuration asks for, else the server's. Raises InvalidInput."""
    # Reading a parameter that is not there would make it.
    if config is None or PARAMETER not in config.parameters:
        return settings.cpu_engine
    given = str(config.parameters[PARAMETER].string_value)
    if given not in CPU_ENGINES:
        raise InvalidInput(
            f"{PARAMETER} must be one of {', '.join(CPU_ENGINES)}, received {given!r}"
        )
    return given


def chosen_engine(trial: Trial, *, wish: str) -> Choice:
    """The engine for a model: the one wished for, or the faster, where OpenVINO can take its place.

    It cannot where it does not answer as ONNX Runtime does; why it is not chosen is recorded.
    """
    if wish == "onnxruntime":
        return trial.onnx
    parameters = {"ridgeline_engine": f"onnxruntime {onnxruntime.__version__}"}
    try:
        engine, times = _candidate(trial)
        figures = _figures(trial, engine=engine, times=times)
        reason = figures.reason
        parameters |= figures.parameters
        if figures.pays or wish == "openvino":
            parameters["ridgeline_engine"] = f"openvino {version()}"
            _run_every_size(trial.spec, engine=engine, most=times.best_rows)
            trial.onnx.engine.stop()
            trial.on_engine(engine)
            result = Choice(engine, times, parameters)
        else:
            result = Choice(trial.onnx.engine, trial.onnx.service_time, parameters)
    except Unsupported as error:
        reason = str(error)
        level = logging.WARNING if wish == "openvino" else logging.INFO
        logger.log(level, "model %r stays with ONNX Runtime: %s", trial.spec.name, reason)
        result = Choice(trial.onnx.engine, trial.onnx.service_time, parameters)
    parameters["ridgeline_engine_reason"] = reason
    logger.info("model %r runs on %s: %s", trial.spec.name, parameters["ridgeline_engine"], reason)
    return result


def _candidate(trial: Trial) -> tuple[OpenVinoEngine, ServiceTime]:
    """The model in OpenVINO, which answers as ONNX Runtime does. Raises Unsupported."""
    known = trial.onnx.service_time
    if trial.settings.execution_provider != "cpu":
        raise Unsupported(f"it runs on {trial.settings.execution_provider}, not on the CPU")
    if known is None:
        raise Unsupported("its shapes are free, or it refuses zeros: it cannot be tried")
    engine = trial.openvino(threads=trial.settings.threads, streams=trial.instances)
    trial.on_engine(WidenedEngine(trial.onnx.engine, engine))  # stops both
    for rows in sorted({1, known.best_rows}):
        _check_answers(trial, engine=engine, rows=rows)
    times = measured_times(trial.spec, engine=engine)
    if times is None:
        raise Unsupported("OpenVINO fails on zeros, which ONNX Runtime takes")
    return engine, times


def _check_answers(trial: Trial, *, engine: Engine, rows: int) -> None:
    names = [tensor.name for tensor in trial.spec.outputs]
    inputs = trial_inputs(trial.spec, directory=trial.path.parent, rows=rows)
    try:
        expected = trial.onnx.engine.run(inputs, outputs=names)
        found = engine.run(inputs, outputs=names)
    except Exception as error:
        raise Unsupported(f"an engine fails on the trial inputs: {error}") from error
    for name, one, other in zip(names, expected, found, strict=True):
        if one.dtype != other.dtype or one.shape != other.shape:
            raise Unsupported(
                f"output {name!r} is {other.dtype} {list(other.shape)} in OpenVINO, "
                f"{one.dtype} {list(one.shape)} in ONNX Runtime"
            )
        if (error_of := _difference(one, other)) > (_TOLERANCE if one.dtype.kind == "f" else 0):
            raise Unsupported(
                f"output {name!r} differs by {error_of:.1e} of its largest magnitude from ONNX "
                f"Runtime's for {rows} rows; allowed are {_TOLERANCE:.0e}"
            )


def _difference(expected: np.ndarray, found: np.ndarray) -> float:
    """The largest difference over the largest magnitude; infinite where NaNs or infinities are."""
    one, other = expected.astype(np.float64), found.astype(np.float64)
    if np.array_equal(one, other, equal_nan=True):
        return 0.0
    if not (np.isfinite(one).all() and np.isfinite(other).all()):
        return float("inf")
    return float(np.abs(one - other).max() / (np.abs(one).max() or 1.0))


@dataclass(frozen=True)
class _Figures:
    pays: bool
    reason: str
    parameters: Mapping[str, str]


def _figures(trial: Trial, *, engine: Engine, times: ServiceTime) -> _Figures:
    """Both engines at their best batch sizes and at one row, side by side."""
    names = [tensor.name for tensor in trial.spec.outputs]
    known = trial.onnx.service_time or times
    engines = {"onnxruntime": trial.onnx.engine, "openvino": engine}
    best_rows = {"onnxruntime": known.best_rows, "openvino": times.best_rows}

    def took_ns(rows: Mapping[str, int]) -> dict[str, int]:
        inputs = {
            name: trial_inputs(trial.spec, directory=trial.path.parent, rows=count)
            for name, count in rows.items()
        }
        ways = [
            functools.partial(engines[name].run, inputs[name], outputs=names) for name in engines
        ]
        return dict(zip(engines, side_by_side_ns(ways), strict=True))

    best_ns, one_ns = took_ns(best_rows), took_ns(dict.fromkeys(engines, 1))
    row_ns = {name: best_ns[name] / best_rows[name] for name in engines}
    gain = row_ns["onnxruntime"] / row_ns["openvino"]
    gain_of_one = one_ns["onnxruntime"] / one_ns["openvino"]
    parameters = {}
    for name in engines:
        parameters[f"ridgeline_trial_{name}_best_rows"] = str(best_rows[name])
        parameters[f"ridgeline_trial_{name}_best_us"] = f"{best_ns[name] / 1000:.1f}"
        parameters[f"ridgeline_trial_{name}_one_row_us"] = f"{one_ns[name] / 1000:.1f}"
    return _Figures(
        pays=gain >= _LEAST_GAIN and gain_of_one >= _LEAST_GAIN_OF_ONE,
        reason=f"OpenVINO is {gain:.2f} times as fast in batches, "
        f"{gain_of_one:.2f} times on one row",
        parameters=parameters,
    )


def _run_every_size(spec: ModelSpec, *, engine: Engine, most: int) -> None:
    """OpenVINO prepares kernels when a batch size first comes: let that not be a request's."""
    names = [tensor.name for tensor in spec.outputs]
    begin_ns = time.perf_counter_ns()
    for rows in range(1, most + 1):
        engine.run(zeros(spec, rows=rows), outputs=names)
        if time.perf_counter_ns() - begin_ns > _WARM_UP_NS:
            break
