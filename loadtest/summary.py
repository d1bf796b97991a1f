"""The summary of a demo run, read from JSON into checked records for the report.

    {"model": "lenet5", "seconds": 212.5,
     "training": {"test_accuracy", "test_correct", "test_samples", "train_seconds", "curve": [
         {"epoch", "loss", "accuracy", "val_loss", "val_accuracy"}, ...]},
     "export": {"accuracy", "correct", "samples", "cost": {"flops_per_sample", "parameters", ...}},
     "served": {"grpc": result of `ridgeline evaluate`, "http": ...},
     "loadtest": {"grpc": one run of `ridgeline loadtest`, "http": ...},
     "sweep": [one run per batch size, ...],
     "hardware": result of `ridgeline hardware`}

Other keys are ignored. `export` may hold the three figures under "accuracy": {"exported": ...}.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from loadtest.command import how_much
from ridgeline.errors import CorruptData, InvalidInput
from ridgeline.hardware import Hardware

PROTOCOLS = {"grpc": "gRPC", "http": "HTTP"}


@dataclass(frozen=True)
class Accuracy:
    """How many test samples were classified rightly, and where."""

    where: str
    share: float
    correct: int
    samples: int


@dataclass(frozen=True)
class Epoch:
    """One point of the learning curve; accuracies are shares."""

    epoch: int
    loss: float
    accuracy: float
    val_loss: float
    val_accuracy: float


@dataclass(frozen=True)
class Bounded:
    """A percentile in ms and its confidence interval; a bound is None where there is none."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Run:
    """One run of the load test. `floor_ms` and the ratios are None where the floor is unknown."""

    protocol: str
    batch_size: int
    load: str
    p50: Bounded
    p99: Bounded
    curve: tuple[tuple[float, float], ...]
    requests_per_s: float
    samples_per_s: float
    floor_ms: float | None
    floor_note: str | None
    p50_to_floor: float | None
    p99_to_floor: float | None
    share_of_peak: float | None
    verdict: str
    reasons: tuple[str, ...]
    settings: Mapping[str, Any]
    environment: Mapping[str, Any]
    server: str
    client_cpu_s_per_request: float


@dataclass(frozen=True)
class Summary:
    """Everything that the report shows."""

    model: str
    accuracies: tuple[Accuracy, ...]
    curve: tuple[Epoch, ...]
    train_seconds: float
    cost: Mapping[str, int]
    runs: tuple[Run, ...]
    sweep: tuple[Run, ...]
    hardware: Hardware
    seconds: float


def read_summary(table: Mapping[str, Any]) -> Summary:
    """The summary in `table`. Raises InvalidInput naming the part that is missing or wrong."""
    root = _Part(table, "summary")
    try:
        hardware = Hardware.from_table(root.at("hardware").value)
    except CorruptData as error:
        raise InvalidInput(f"summary.hardware: {error}") from error
    training = root.at("training")
    return Summary(
        model=root.at("model").text(),
        accuracies=_accuracies(root),
        curve=tuple(_epoch(part) for part in training.at("curve").items()),
        train_seconds=training.at("train_seconds").number(),
        cost=_cost(root.at("export").at("cost")),
        runs=tuple(_run(root.at("loadtest").at(name)) for name in PROTOCOLS),
        sweep=tuple(sorted(map(_run, root.at("sweep").items()), key=lambda run: run.batch_size)),
        hardware=hardware,
        seconds=root.at("seconds").number(),
    )


@dataclass(frozen=True)
class _Part:
    """A value within the summary, which knows where it stands."""

    value: Any
    path: str

    def at(self, key: str) -> "_Part":
        if not isinstance(self.value, Mapping) or key not in self.value:
            raise InvalidInput(f"the summary lacks {self.path}.{key}")
        return _Part(self.value[key], f"{self.path}.{key}")

    def items(self) -> list["_Part"]:
        if not isinstance(self.value, list) or not self.value:
            raise InvalidInput(f"{self.path} must be a list with something in it")
        return [_Part(item, f"{self.path}[{index}]") for index, item in enumerate(self.value)]

    def number(self) -> float:
        if isinstance(self.value, bool) or not isinstance(self.value, int | float):
            raise InvalidInput(f"{self.path} must be a number, received {self.value!r}")
        return float(self.value)

    def whole(self) -> int:
        number = self.number()
        if not number.is_integer():
            raise InvalidInput(f"{self.path} must be a whole number, received {self.value!r}")
        return int(number)

    def maybe(self) -> float | None:
        return None if self.value is None else self.number()

    def text(self) -> str:
        if not isinstance(self.value, str):
            raise InvalidInput(f"{self.path} must be a text, received {self.value!r}")
        return self.value

    def table(self) -> Mapping[str, Any]:
        if not isinstance(self.value, Mapping):
            raise InvalidInput(f"{self.path} must be a table, received {self.value!r}")
        return self.value


def _accuracies(root: _Part) -> tuple[Accuracy, ...]:
    training, exported = root.at("training"), root.at("export")
    if isinstance(exported.at("accuracy").value, Mapping):
        exported = exported.at("accuracy").at("exported")
    served = root.at("served")
    return (
        _accuracy(training, where="trained (TensorFlow)", prefix="test_"),
        _accuracy(exported, where="exported (ONNX Runtime)"),
        *(
            _accuracy(served.at(protocol), where=f"served over {name}")
            for protocol, name in PROTOCOLS.items()
        ),
    )


def _accuracy(part: _Part, *, where: str, prefix: str = "") -> Accuracy:
    return Accuracy(
        where=where,
        share=part.at(prefix + "accuracy").number(),
        correct=part.at(prefix + "correct").whole(),
        samples=part.at(prefix + "samples").whole(),
    )


def _epoch(part: _Part) -> Epoch:
    return Epoch(
        epoch=part.at("epoch").whole(),
        loss=part.at("loss").number(),
        accuracy=part.at("accuracy").number(),
        val_loss=part.at("val_loss").number(),
        val_accuracy=part.at("val_accuracy").number(),
    )


def _cost(part: _Part) -> Mapping[str, int]:
    names = "flops_per_sample", "multiply_adds_per_sample", "parameters", "weight_bytes"
    return {name: part.at(name).whole() for name in names}


def _run(part: _Part) -> Run:
    load, throughput = part.at("settings").at("load"), part.at("throughput")
    ratio = part.at("ratio_to_floor")
    known = ratio.value is not None
    protocol = part.at("protocol").text()
    return Run(
        protocol=PROTOCOLS.get(protocol, protocol),
        batch_size=part.at("batch_size").whole(),
        load=_load(load),
        p50=_bounded(part.at("latency_ms").at("p50")),
        p99=_bounded(part.at("latency_ms").at("p99")),
        curve=tuple(_point(point) for point in part.at("latency_curve_ms").items()),
        requests_per_s=throughput.at("requests_per_s").number(),
        samples_per_s=throughput.at("samples_per_s").number(),
        floor_ms=part.at("floor_ms").maybe(),
        floor_note=part.at("floor_note").value,
        p50_to_floor=ratio.at("p50").number() if known else None,
        p99_to_floor=ratio.at("p99").number() if known else None,
        share_of_peak=part.at("share_of_peak").maybe(),
        verdict=part.at("verdict").text(),
        reasons=tuple(str(reason) for reason in part.at("reasons").value),
        settings=part.at("settings").table(),
        environment=part.at("environment").table(),
        server=f"{part.at('server').at('name').text()} {part.at('server').at('version').text()}",
        client_cpu_s_per_request=part.at("client").at("cpu_s_per_request").number(),
    )


def _load(part: _Part) -> str:
    if part.at("kind").text() == "open":
        return f"open loop, {part.at('rate_per_s').number():g} requests/s (Poisson)"
    if part.at("kind").text() != "closed":
        return how_much(part.table())
    concurrency = part.at("concurrency").whole()
    return f"closed loop, {concurrency} request{'s' if concurrency > 1 else ''} at a time"


def _bounded(part: _Part) -> Bounded:
    return Bounded(
        value=part.at("value").number(),
        low=part.at("low").maybe(),
        high=part.at("high").maybe(),
    )


def _point(part: _Part) -> tuple[float, float]:
    pair = [item.number() for item in part.items()]
    if len(pair) != 2:
        raise InvalidInput(f"{part.path} must be a pair (percentile, ms), received {part.value!r}")
    return pair[0], pair[1]
