"""The test repository: what `ridgeline conformance --write-repository` writes, for any server.

Every model has a complete config.pbtxt, so that a server needs to guess nothing.
"""

from dataclasses import dataclass, field
from pathlib import Path

from ridgeline.datatypes import DATATYPES
from ridgeline.errors import InvalidInput

LABELS = ("cat", "dog", "bird", "fish")
_PYTHON_MODELS = Path(__file__).with_name("python-models")


@dataclass(frozen=True)
class TestModel:
    """One model folder: `files` maps paths below it to contents; config.pbtxt is one of them."""

    __test__ = False  # no test class, whatever pytest makes of the name

    name: str
    config: str
    files: dict[str, bytes] = field(default_factory=dict)


def write(root: Path) -> list[str]:
    """Write every model below `root`, which must be empty or absent; returns their names.

    Raises InvalidInput where `root` holds something already.
    """
    if root.exists() and any(root.iterdir()):
        raise InvalidInput(f"expected an empty folder for the test repository, {root} is not")
    models = test_models()
    for model in models:
        for path, data in {**model.files, "config.pbtxt": model.config.encode()}.items():
            target = root / model.name / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
    for ensemble in (model for model in models if "ensemble" in model.config.split("\n")[0]):
        (root / ensemble.name / "1").mkdir()
    return [model.name for model in models]


def test_models() -> list[TestModel]:
    """Every model of the repository."""
    return [*_identities(), *_arithmetic(), *_special(), *_python(), *_ensembles()]


test_models.__test__ = False  # type: ignore[attr-defined]


def _identities() -> list[TestModel]:
    from conformance import onnx_models

    made = []
    for datatype in DATATYPES:
        name = datatype.lower()
        batched = onnx_models.identity(datatype=datatype, shape=("batch", "n"))
        plain = onnx_models.identity(datatype=datatype, shape=("rows", "columns"))
        made += [
            _onnx(f"identity_{name}", batched, config=_identity(datatype, dims="-1", most=8)),
            _onnx(f"plain_{name}", plain, config=_identity(datatype, dims="-1, -1", most=0)),
        ]
    fixed = onnx_models.identity(datatype="FP32", shape=("batch", 2, 3))
    scalar = onnx_models.identity(datatype="FP32", shape=("batch",))
    reshape = "[ 1 ] reshape { shape: [ ] }"
    cube = onnx_models.identity(datatype="FP32", shape=("a", "b", "c", "d"))
    return [
        *made,
        _onnx("fixed", fixed, config=_identity("FP32", dims="2, 3", most=4)),
        _onnx("cube", cube, config=_identity("FP32", dims="-1, -1, -1, -1", most=0)),
        _onnx(
            "reshaped",
            scalar,
            config="max_batch_size: 8\n"
            f'input {{ name: "INPUT0" data_type: TYPE_FP32 dims: {reshape} }}\n'
            f'output {{ name: "OUTPUT0" data_type: TYPE_FP32 dims: {reshape} }}\n',
        ),
    ]


def _arithmetic() -> list[TestModel]:
    from conformance import onnx_models

    pair = (
        "max_batch_size: 8\n"
        'input [ {{ name: "INPUT0" data_type: {0} dims: [ 16 ] }}, '
        '{{ name: "INPUT1" data_type: {0} dims: [ 16 ] }} ]\n'
        'output [ {{ name: "OUTPUT0" data_type: {0} dims: [ 16 ] }}, '
        '{{ name: "OUTPUT1" data_type: {0} dims: [ 16 ] }} ]\n'
    )
    versions = {f"{number}/model.onnx": onnx_models.plus(number) for number in (1, 2, 3)}
    plus_config = _identity("FP32", dims="-1", most=8)
    return [
        _onnx("simple", onnx_models.simple(), config=pair.format("TYPE_INT32")),
        _onnx("simple_string", onnx_models.simple_string(), config=pair.format("TYPE_STRING")),
        TestModel(
            "versioned",
            _HEAD + plus_config + "version_policy { specific { versions: [ 1, 3 ] } }\n",
            versions,
        ),
        TestModel("newest", _HEAD + plus_config, versions),
        TestModel("every", _HEAD + plus_config + "version_policy { all { } }\n", versions),
        _onnx("controlled", onnx_models.plus(1), config=plus_config),
        _onnx("supporting", onnx_models.plus(1), config=plus_config),
        _onnx("counted", onnx_models.plus(1), config=plus_config),
    ]


def _special() -> list[TestModel]:
    from conformance import onnx_models

    classes = onnx_models.identity(datatype="FP32", shape=("batch", 4))
    labels = "".join(f"{label}\n" for label in LABELS).encode()
    slow = onnx_models.slow()
    row = _identity("FP32", dims="2", most=1)
    queue = (
        "dynamic_batching {{ default_queue_policy {{ max_queue_size: {} "
        "default_timeout_microseconds: 60000000 allow_timeout_override: true }} }}\n"
    )
    return [
        TestModel(
            "labelled",
            _HEAD
            + "max_batch_size: 8\n"
            + 'input { name: "INPUT0" data_type: TYPE_FP32 dims: [ 4 ] }\n'
            + 'output { name: "OUTPUT0" data_type: TYPE_FP32 dims: [ 4 ] '
            + 'label_filename: "labels.txt" }\n',
            {"1/model.onnx": classes, "labels.txt": labels},
        ),
        _onnx("unlabelled", classes, config=_identity("FP32", dims="4", most=8)),
        _onnx(
            "optional",
            onnx_models.optional_addend(),
            config="max_batch_size: 0\n"
            'input [ { name: "INPUT0" data_type: TYPE_FP32 dims: [ -1 ] },'
            ' { name: "INPUT1" data_type: TYPE_FP32 dims: [ 1 ] optional: true } ]\n'
            'output { name: "OUTPUT0" data_type: TYPE_FP32 dims: [ -1 ] }\n',
        ),
        _onnx(
            "lookup",
            onnx_models.lookup(),
            config='max_batch_size: 8\ninput { name: "INPUT0" data_type: TYPE_INT64 dims: [ 1 ] }\n'
            'output { name: "OUTPUT0" data_type: TYPE_FP32 dims: [ 1 ] }\n',
        ),
        _onnx("slow", slow, config=row),
        _onnx("crowded", slow, config=row + queue.format(1)),
        _onnx("patient", slow, config=row + queue.format(100)),
        _onnx("accumulator", onnx_models.accumulator(), config=_ACCUMULATOR),
        _onnx("größe%20", onnx_models.plus(1), config=_identity("FP32", dims="-1", most=8)),
    ]


def _python() -> list[TestModel]:
    decoupled = "model_transaction_policy { decoupled: true }\n"
    text = _identity("BYTES", dims="1", most=0)
    number = (
        'max_batch_size: 0\ninput { name: "INPUT0" data_type: TYPE_INT32 dims: [ 1 ] }\n'
        'output { name: "OUTPUT0" data_type: TYPE_INT32 dims: [ 1 ] }\n'
    )
    greeting = 'parameters { key: "greeting" value { string_value: "hello" } }\n'
    generator = (
        'max_batch_size: 0\ninput [ { name: "text_input" data_type: TYPE_STRING dims: [ 1 ] }, '
        '{ name: "limit" data_type: TYPE_INT32 dims: [ 1 ] optional: true } ]\n'
        'output { name: "text_output" data_type: TYPE_STRING dims: [ 1 ] }\n'
    )
    return [
        _python_model("repeat", "repeat", config=number + decoupled),
        _python_model("tell", "tell", config=text + greeting),
        _python_model("fail", "fail", config=text),
        _python_model("write", "write", config=generator + decoupled),
    ]


def _ensembles() -> list[TestModel]:
    return [
        TestModel("sum_of_sums", _ENSEMBLE),
        TestModel("failing_ensemble", _FAILING_ENSEMBLE),
        TestModel("dependent", _DEPENDENT),
    ]


# One instance each: a server that runs these in processes needs no two of them.
_HEAD = 'backend: "onnxruntime"\ninstance_group { count: 1 kind: KIND_CPU }\n'

_ACCUMULATOR = """max_batch_size: 4
input { name: "INPUT" data_type: TYPE_INT32 dims: [ 1 ] }
output { name: "OUTPUT" data_type: TYPE_INT32 dims: [ 1 ] }
sequence_batching {
  max_sequence_idle_microseconds: 2000000
  direct { }
  control_input [
    { name: "START" control [ { kind: CONTROL_SEQUENCE_START int32_false_true: [ 0, 1 ] } ] }
  ]
  state {
    input_name: "INPUT_STATE" output_name: "OUTPUT_STATE" data_type: TYPE_INT32 dims: [ 1 ]
  }
}
"""

# (a + b) + (a - b) and (a + b) - (a - b): two steps, the second of which waits for the first.
_ENSEMBLE = """platform: "ensemble"
max_batch_size: 8
input { name: "INPUT0" data_type: TYPE_INT32 dims: [ 16 ] }
input { name: "INPUT1" data_type: TYPE_INT32 dims: [ 16 ] }
output { name: "OUTPUT0" data_type: TYPE_INT32 dims: [ 16 ] }
output { name: "OUTPUT1" data_type: TYPE_INT32 dims: [ 16 ] }
ensemble_scheduling {
  step [
    {
      model_name: "simple" model_version: -1
      input_map { key: "INPUT0" value: "INPUT0" } input_map { key: "INPUT1" value: "INPUT1" }
      output_map { key: "OUTPUT0" value: "sum" } output_map { key: "OUTPUT1" value: "difference" }
    },
    {
      model_name: "simple" model_version: -1
      input_map { key: "INPUT0" value: "sum" } input_map { key: "INPUT1" value: "difference" }
      output_map { key: "OUTPUT0" value: "OUTPUT0" } output_map { key: "OUTPUT1" value: "OUTPUT1" }
    }
  ]
}
"""

_FAILING_ENSEMBLE = """platform: "ensemble"
max_batch_size: 8
input { name: "INPUT0" data_type: TYPE_INT64 dims: [ 1 ] }
output { name: "OUTPUT0" data_type: TYPE_FP32 dims: [ 1 ] }
ensemble_scheduling {
  step [
    {
      model_name: "identity_int64" model_version: -1
      input_map { key: "INPUT0" value: "INPUT0" } output_map { key: "OUTPUT0" value: "index" }
    },
    {
      model_name: "lookup" model_version: -1
      input_map { key: "INPUT0" value: "index" } output_map { key: "OUTPUT0" value: "OUTPUT0" }
    }
  ]
}
"""


_DEPENDENT = """platform: "ensemble"
max_batch_size: 8
input { name: "INPUT0" data_type: TYPE_FP32 dims: [ -1 ] }
output { name: "OUTPUT0" data_type: TYPE_FP32 dims: [ -1 ] }
ensemble_scheduling {
  step [
    {
      model_name: "supporting" model_version: -1
      input_map { key: "INPUT0" value: "INPUT0" } output_map { key: "OUTPUT0" value: "OUTPUT0" }
    }
  ]
}
"""


def _identity(datatype: str, *, dims: str, most: int) -> str:
    kind = DATATYPES[datatype].config
    return (
        f"max_batch_size: {most}\n"
        f'input {{ name: "INPUT0" data_type: {kind} dims: [ {dims} ] }}\n'
        f'output {{ name: "OUTPUT0" data_type: {kind} dims: [ {dims} ] }}\n'
    )


def _onnx(name: str, model: bytes, *, config: str) -> TestModel:
    return TestModel(name, _HEAD + config, {"1/model.onnx": model})


def _python_model(name: str, source: str, *, config: str) -> TestModel:
    text = (_PYTHON_MODELS / f"{source}.py").read_bytes()
    return TestModel(name, 'backend: "python"\n' + config, {"1/model.py": text})
