"""ONNX models made on the spot, a model repository to put them into, a gateway that serves it."""

import importlib
import itertools
import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from prometheus_client.parser import text_string_to_metric_families

# In the process of the tests the sources themselves run, which may be patched and whose coverage is
# measured; servers that tests start run what users run: compiled modules, where they are built.
os.environ["RIDGELINE_COMPILED"] = "0"
importlib.import_module("serving.protocol")
del os.environ["RIDGELINE_COMPILED"]

# A test says what holds, not how fast: busy machines are no failure.
hypothesis.settings.register_profile(
    "untimed", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("untimed")

ONNX_TYPES = {
    "BOOL": TensorProto.BOOL,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
    "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "FP16": TensorProto.FLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "BF16": TensorProto.BFLOAT16,
    "BYTES": TensorProto.STRING,
}

_STOP_TIMEOUT_S = 60  # half the time limit of a test: a server that hangs is seen as such


class Models:
    """ONNX files, as bytes; a text in a shape is a free axis."""

    @staticmethod
    def identity(datatype: str = "FP32", shape: tuple[int | str, ...] = ("batch", 2)) -> bytes:
        """y = x."""
        return _onnx(
            [helper.make_node("Identity", ["x"], ["y"])], x=(datatype, shape), y=(datatype, shape)
        )

    @staticmethod
    def two_inputs() -> bytes:
        """sum = a + b, difference = a - b, over three numbers a row."""
        row = ("FP32", ("batch", 3))
        nodes = [
            helper.make_node("Add", ["a", "b"], ["sum"]),
            helper.make_node("Sub", ["a", "b"], ["difference"]),
        ]
        return _onnx(nodes, a=row, b=row, sum=row, difference=row, outputs=2)

    @staticmethod
    def lookup(*, offset: int = 0) -> bytes:
        """y = (10, 20, 30)[index + offset]: beyond the table's end the kernel fails."""
        nodes = [
            helper.make_node("Add", ["index", "offset"], ["place"]),
            helper.make_node("Gather", ["table", "place"], ["y"]),
        ]
        weights = {"table": np.array([10, 20, 30], dtype=np.float32), "offset": np.array(offset)}
        return _onnx(nodes, weights, index=("INT64", ("batch", 1)), y=("FP32", ("batch", 1)))

    @staticmethod
    def doubled_rows() -> bytes:
        """Every row twice: the first axis is free, but it is no batch axis."""
        nodes = [helper.make_node("Concat", ["x", "x"], ["y"], axis=0)]
        return _onnx(nodes, x=("FP32", ("n", 2)), y=("FP32", ("m", 2)))

    @staticmethod
    def cast(datatype: str, to: str, *, beside: str | None = None) -> bytes:
        """y = x as another datatype; and, where told, a second input t and output u = t."""
        nodes = [helper.make_node("Cast", ["x"], ["y"], to=ONNX_TYPES[to])]
        given, made = {"x": datatype}, {"y": to}
        if beside:
            nodes.append(helper.make_node("Identity", ["t"], ["u"]))
            given["t"] = made["u"] = beside
        tensors = {name: (kind, ("batch", 2)) for name, kind in (given | made).items()}
        return _onnx(nodes, outputs=len(made), **tensors)

    @staticmethod
    def slow(multiplications: int) -> bytes:
        """y = x, by products with the unit matrix: as many as told, times the largest x."""
        row = helper.make_tensor_value_info("row", TensorProto.FLOAT, None)
        product = helper.make_tensor_value_info("product", TensorProto.FLOAT, None)
        step = helper.make_tensor_value_info("step", TensorProto.INT64, [])
        go_on, going_on = (
            helper.make_tensor_value_info(name, TensorProto.BOOL, []) for name in ("c", "d")
        )
        body = helper.make_graph(
            [
                helper.make_node("MatMul", ["row", "unit"], ["product"]),
                helper.make_node("Identity", ["c"], ["d"]),
            ],
            "body",
            [step, go_on, row],
            [going_on, product],
        )
        nodes = [
            helper.make_node("ReduceMax", ["x"], ["largest"], keepdims=0),
            helper.make_node("Mul", ["largest", "multiplications"], ["products"]),
            helper.make_node("Cast", ["products"], ["times"], to=TensorProto.INT64),
            helper.make_node("Loop", ["times", "", "x"], ["looped"], body=body),
            helper.make_node("Shape", ["x"], ["shape"]),
            helper.make_node("Reshape", ["looped", "shape"], ["y"]),
        ]
        weights = {
            "multiplications": np.array(multiplications, dtype=np.float32),
            "unit": np.eye(2, dtype=np.float32),
        }
        return _onnx(nodes, weights, x=("FP32", ("batch", 2)), y=("FP32", ("batch", 2)))

    @staticmethod
    def dense(inputs: int, outputs: int, *, weight: float = 1.0) -> bytes:
        """One matrix product: inputs * outputs multiply-adds a row, as many parameters."""
        weights = {"w": np.full((inputs, outputs), weight, dtype=np.float32)}
        nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
        return _onnx(nodes, weights, x=("FP32", ("batch", inputs)), y=("FP32", ("batch", outputs)))

    @staticmethod
    def there_and_back(datatype: str) -> bytes:
        """y = x + x, computed in another datatype."""
        nodes = [
            helper.make_node("Cast", ["x"], ["wide"], to=ONNX_TYPES[datatype]),
            helper.make_node("Add", ["wide", "wide"], ["twice"]),
            helper.make_node("Cast", ["twice"], ["y"], to=ONNX_TYPES["FP32"]),
        ]
        return _onnx(nodes, x=("FP32", ("batch", 2)), y=("FP32", ("batch", 2)))

    @staticmethod
    def deep(layers: int, width: int) -> bytes:
        """So many products with one square matrix, one after the other."""
        names = ["x", *(f"layer_{number}" for number in range(1, layers)), "y"]
        nodes = [
            helper.make_node("MatMul", [given, "w"], [made])
            for given, made in itertools.pairwise(names)
        ]
        weights = {"w": np.eye(width, dtype=np.float32)}
        row = ("FP32", ("batch", width))
        return _onnx(nodes, weights, x=row, y=row)

    @staticmethod
    def accumulator(*, rows: bool = True) -> bytes:
        """next = state + x; y = next where ready, 100 more at the start, 1000 at the end."""
        batch = ["batch", 1] if rows else [1]
        kinds = {
            "x": TensorProto.FLOAT,
            "start": TensorProto.INT32,
            "end": TensorProto.FLOAT,
            "ready": TensorProto.BOOL,
            "id": TensorProto.INT64,
            "state": TensorProto.FLOAT,
        }
        inputs = [helper.make_tensor_value_info(name, kind, batch) for name, kind in kinds.items()]
        outputs = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, batch) for name in ("y", "next")
        ]
        weights = [
            helper.make_tensor("hundred", TensorProto.FLOAT, [], [100]),
            helper.make_tensor("thousand", TensorProto.FLOAT, [], [1000]),
            helper.make_tensor("nothing", TensorProto.FLOAT, [], [0]),
        ]
        nodes = [
            helper.make_node("Add", ["state", "x"], ["next"]),
            helper.make_node("Cast", ["start"], ["starts"], to=TensorProto.FLOAT),
            helper.make_node("Cast", ["ready"], ["is_ready"], to=TensorProto.FLOAT),
            helper.make_node("Cast", ["id"], ["number"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["number", "nothing"], ["no_number"]),
            helper.make_node("Mul", ["starts", "hundred"], ["of_start"]),
            helper.make_node("Mul", ["end", "thousand"], ["of_end"]),
            helper.make_node("Mul", ["next", "is_ready"], ["of_next"]),
            helper.make_node("Sum", ["of_next", "of_start", "of_end", "no_number"], ["y"]),
        ]
        graph = helper.make_graph(nodes, "graph", inputs, outputs, weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
        onnx.checker.check_model(model)
        serialized: bytes = model.SerializeToString()
        return serialized


def _onnx(
    nodes: list[onnx.NodeProto],
    weights: dict[str, np.ndarray] | None = None,
    *,
    outputs: int = 1,
    **tensors: tuple[str, tuple[int | str, ...]],
) -> bytes:
    """A model over the named tensors (datatype, shape), of which the last are the outputs."""
    infos = [
        helper.make_tensor_value_info(name, ONNX_TYPES[datatype], shape)
        for name, (datatype, shape) in tensors.items()
    ]
    initializers = [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()]
    graph = helper.make_graph(nodes, "graph", infos[:-outputs], infos[-outputs:], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(model)
    serialized: bytes = model.SerializeToString()
    return serialized


@dataclass(frozen=True)
class Repository:
    """A model repository, filled as by hand."""

    root: Path

    def add(self, name: str, model: bytes, *, version: int = 1, config: str | None = None) -> Path:
        """Put a file model.onnx into a version, and config.pbtxt beside it; returns the version."""
        folder = self.root / name / str(version)
        folder.mkdir(parents=True)
        (folder / "model.onnx").write_bytes(model)
        if config is not None:
            (self.root / name / "config.pbtxt").write_text(config)
        return folder


@dataclass(frozen=True)
class RunningGateway:
    """A process of `ridgeline serve`, and its first line: ports, and the state of each model."""

    process: subprocess.Popen[str]
    ready: dict[str, Any]
    errors: Path

    @property
    def grpc_url(self) -> str:
        """Where gRPC is answered, as the official client wants it."""
        return f"127.0.0.1:{self.ready['grpc_port']}"

    @property
    def http_url(self) -> str:
        """Where HTTP is answered, as the official client wants it."""
        return f"127.0.0.1:{self.ready['http_port']}"

    def metrics(self) -> str:
        """What /metrics says now."""
        url = f"http://127.0.0.1:{self.ready['metrics_port']}/metrics"
        with urllib.request.urlopen(url) as answer:
            text: str = answer.read().decode()
            return text

    def metric(self, name: str, **labels: str) -> float:
        """The value of one sample of /metrics, found by its name and some of its labels."""
        [value] = [
            sample.value
            for family in text_string_to_metric_families(self.metrics())
            for sample in family.samples
            if sample.name.removesuffix("_total") == name
            and labels.items() <= sample.labels.items()
        ]
        return float(value)

    def stop(self) -> tuple[int, dict[str, Any], str]:
        """SIGTERM; returns the exit code, the result on standard output, what was logged."""
        self.process.send_signal(signal.SIGTERM)
        result, _ = self.process.communicate(timeout=_STOP_TIMEOUT_S)
        return self.process.returncode, json.loads(result), self.errors.read_text()


def launch_gateway(repository: Path, *flags: str, errors: Path) -> subprocess.Popen[str]:
    """Start `python -m ridgeline serve` on free ports; warnings are errors there, too."""
    ports = [f"--{name}-port=0" for name in ("grpc", "http", "metrics")]
    command = [sys.executable, "-W", "error", "-m", "ridgeline", "serve", "--json", *ports]
    with errors.open("w") as stream:
        return subprocess.Popen(
            [*command, f"--repository={repository}", *flags],
            stdout=subprocess.PIPE,
            stderr=stream,
            text=True,
            env={
                **os.environ,
                "PYTHONPATH": str(Path(__file__).parents[1]),
                "RIDGELINE_STOP_WITH_PARENT": "1",  # however the tests end, it ends too
            },
        )


def start_gateway(repository: Path, *flags: str, errors: Path) -> RunningGateway:
    """Start it and wait for its first line."""
    process = launch_gateway(repository, *flags, errors=errors)
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, errors.read_text()
    return RunningGateway(process, json.loads(line), errors)


@pytest.fixture(scope="session")
def gateway_over() -> Callable[..., RunningGateway]:
    """`start_gateway`, for fixtures that serve a repository of their own."""
    return start_gateway


@pytest.fixture(scope="session")
def models() -> type[Models]:
    return Models


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """An empty repository."""
    root = tmp_path / "repository"
    root.mkdir()
    return Repository(root)


@pytest.fixture(scope="session", params=["direct", "grpcio"])
def front_end(request: pytest.FixtureRequest) -> str:
    """Each front end in turn: they must be alike to every client."""
    return str(request.param)


@pytest.fixture
def start(
    repository: Repository, tmp_path: Path, front_end: str
) -> Iterator[Callable[..., RunningGateway]]:
    """Starts gateways over `repository`, with further flags; none outlives the test."""
    started: list[RunningGateway] = []

    def start(*flags: str) -> RunningGateway:
        errors = tmp_path / f"stderr-{len(started)}"
        words = (f"--front-end={front_end}", *flags)
        started.append(start_gateway(repository.root, *words, errors=errors))
        return started[-1]

    yield start
    for gateway in started:
        gateway.process.kill()
        gateway.process.communicate()


@pytest.fixture(scope="session")
def gateway(tmp_path_factory: pytest.TempPathFactory, front_end: str) -> Iterator[RunningGateway]:
    """One gateway for the whole run: an identity model for each datatype, and a few others."""
    folder = tmp_path_factory.mktemp("gateway")
    repository = Repository(folder / "repository")
    for datatype in ONNX_TYPES:
        repository.add(f"identity_{datatype}", Models.identity(datatype))
    repository.add("scalar", Models.identity(shape=()))
    repository.add("free_axis", Models.identity(shape=("batch", "length")))
    repository.add("two_inputs", Models.two_inputs())
    repository.add("lookup", Models.lookup())
    for version in (1, 3):
        model = Models.dense(2, 1, weight=version)
        repository.add("versioned", model, version=version, config="version_policy { all {} }")
    repository.add("größe mit %20", Models.identity())
    repository.add("garbage", b"not a model")
    repository.add(
        "mismatched", Models.identity(), config='input { name: "q" data_type: TYPE_FP32 }'
    )
    repository.add("foreign", Models.identity(), config='backend: "tensorrt"')
    running = start_gateway(repository.root, f"--front-end={front_end}", errors=folder / "stderr")
    yield running
    code, _, errors = running.stop()
    assert code == 0, errors
    assert "Traceback" not in errors
