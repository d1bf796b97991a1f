"""Budgets of latency, throughput, start and memory, as `budgets.toml` holds them.

    [server]                        # of the process that serves all models below
    cold_start_s = 5                # from its start to the first answer of every model
    memory_mib = 500                # resident, after loading

    [models.lenet5]
    load_time_s = 1

    [models.lenet5.single-stream]   # a scenario of `ridgeline loadtest`
    p50_to_floor = 60               # ratios mean the same on every machine
    p99_ms = 5                      # milliseconds do not

    [models.lenet5.server]
    rate_per_s = 500                # what the scenario is told
    p99_ms = 10

    [regression]                    # for --against
    p50 = 1.05                      # times that of the baseline, at the most
    throughput = 0.95               # times that of the baseline, at the least

Keys that are not known are refused.
"""

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ridgeline.errors import InvalidInput, NotFound

SINGLE_STREAM, MULTI_STREAM, SERVER, OFFLINE = "single-stream", "multi-stream", "server", "offline"
SCENARIOS = (SINGLE_STREAM, MULTI_STREAM, SERVER, OFFLINE)
# Limits that must not be exceeded, and those that must be reached.
AT_MOST = ("p50_ms", "p95_ms", "p99_ms", "p50_to_floor", "p95_to_floor", "p99_to_floor")
AT_LEAST = ("throughput_per_s", "share_of_peak")
_LOAD_KEYS = ("rate_per_s", "concurrency", "batch_size")
_SERVER_KEYS, _MODEL_KEYS = ("cold_start_s", "memory_mib"), ("load_time_s",)
_REGRESSION_KEYS = ("p50", "throughput")


@dataclass(frozen=True)
class ScenarioBudget:
    """One model in one scenario: limits by the names of AT_MOST and AT_LEAST.

    `load` holds rate_per_s, concurrency and batch_size where the file gives them.
    """

    model: str
    scenario: str
    limits: Mapping[str, float]
    load: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Budgets:
    """A whole file. `server` and `load_times_s` are limits; `regression` holds ratios."""

    scenarios: tuple[ScenarioBudget, ...]
    server: Mapping[str, float]
    load_times_s: Mapping[str, float]
    regression: Mapping[str, float]

    @property
    def models(self) -> tuple[str, ...]:
        """Every model that is named, in the order of the file."""
        return tuple(dict.fromkeys([each.model for each in self.scenarios] + [*self.load_times_s]))


def read_budgets(path: Path) -> Budgets:
    """Read a file. Raises NotFound, or InvalidInput naming the key that is wrong."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise NotFound(f"cannot read {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path} is not TOML: {error}") from error
    try:
        return parse_budgets(table)
    except InvalidInput as error:
        raise InvalidInput(f"{path}: {error}") from error


def parse_budgets(table: Mapping[str, Any]) -> Budgets:
    """The budgets in a table as TOML gives it. Raises InvalidInput."""
    _refuse_unknown(table, known=("server", "models", "regression"), where="the file")
    scenarios, load_times = [], {}
    for model, entry in _table(table, "models").items():
        where = f"models.{model}"
        own = _refuse_unknown(entry, known=(*_MODEL_KEYS, *SCENARIOS), where=where)
        if "load_time_s" in own:
            load_times[model] = _positive(own["load_time_s"], name=f"{where}.load_time_s")
        scenarios += [_scenario(model, name, own[name]) for name in SCENARIOS if name in own]
    budgets = Budgets(
        scenarios=tuple(scenarios),
        server=_numbers(_table(table, "server"), known=_SERVER_KEYS, where="server"),
        load_times_s=load_times,
        regression=_numbers(
            _table(table, "regression"), known=_REGRESSION_KEYS, where="regression"
        ),
    )
    if not budgets.models:
        raise InvalidInput("no model has a budget: expected [models.NAME.SCENARIO] with limits")
    _check_regression(budgets.regression)
    return budgets


def _check_regression(regression: Mapping[str, float]) -> None:
    if regression.get("p50", 1.1) <= 1 or regression.get("throughput", 0.9) >= 1:
        raise InvalidInput(
            "regression.p50 must be above 1 and regression.throughput below 1, or two identical "
            f"versions could never pass; received {dict(regression)}"
        )


def _scenario(model: str, name: str, entry: Any) -> ScenarioBudget:
    where = f"models.{model}.{name}"
    known = (*AT_MOST, *AT_LEAST, *_LOAD_KEYS)
    numbers = _numbers(entry, known=known, where=where)
    load = {key: value for key, value in numbers.items() if key in _LOAD_KEYS}
    if name == SERVER and "rate_per_s" not in load:
        raise InvalidInput(f"{where} needs rate_per_s: how many requests arrive a second")
    for key in ("concurrency", "batch_size"):
        if not float(load.get(key, 1)).is_integer():
            raise InvalidInput(f"{where}.{key} must be a whole number, received {load[key]}")
    limits = {key: value for key, value in numbers.items() if key not in _LOAD_KEYS}
    return ScenarioBudget(model, name, limits, load)


def _table(table: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = table.get(name, {})
    if not isinstance(value, Mapping):
        raise InvalidInput(f"{name} must be a table, received {value!r}")
    return value


def _refuse_unknown(entry: Any, *, known: tuple[str, ...], where: str) -> Mapping[str, Any]:
    if not isinstance(entry, Mapping):
        raise InvalidInput(f"{where} must be a table, received {entry!r}")
    if unknown := [key for key in entry if key not in known]:
        raise InvalidInput(f"{where} has no key {unknown[0]!r}; there are {', '.join(known)}")
    return entry


def _numbers(entry: Any, *, known: tuple[str, ...], where: str) -> dict[str, float]:
    table = _refuse_unknown(entry, known=known, where=where)
    return {key: _positive(value, name=f"{where}.{key}") for key, value in table.items()}


def _positive(value: Any, *, name: str) -> float:
    number = value if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    if not (math.isfinite(number) and number > 0):
        raise InvalidInput(f"{name} must be a positive number, received {value!r}")
    return float(number)
