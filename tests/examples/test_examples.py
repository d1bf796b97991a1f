"""The examples, each as a user calls it, against tiny models with the contracts of the zoo's."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from ridgeline.model import ModelSpec, TensorSpec, config_of
from ridgeline.repository import ModelCard, publish

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
KINDS = {"FP32": TensorProto.FLOAT, "INT32": TensorProto.INT32}
DIGITS = tuple("0123456789")

# The likeliest next word: EOS -> the, the -> dog, dog -> sleeps, sleeps -> EOS, else EOS.
FOLLOWS = {0: 7, 7: 5, 5: 3, 3: 0}


def tensors_of(shapes):
    return tuple(TensorSpec(name, kind, shape) for name, (kind, shape) in shapes.items())


def add(root, name, nodes, *, inputs, outputs, constants, labels=()):
    """Publish a graph; shapes are those of a row."""

    def values(shapes):
        return [
            helper.make_tensor_value_info(key, KINDS[kind], ["batch", *shape])
            for key, (kind, shape) in shapes.items()
        ]

    initializers = [numpy_helper.from_array(np.asarray(a), key) for key, a in constants.items()]
    graph = helper.make_graph(nodes, name, values(inputs), values(outputs), initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(model)
    spec = ModelSpec(name, 8, tensors_of(inputs), tensors_of(outputs))
    publish(
        {"model.onnx": model.SerializeToString()},
        config=config_of(spec),
        card=ModelCard(),
        labels={"probabilities": labels} if labels else {},
        root=root,
    )


def constant_rows(source, outputs):
    """Nodes that give every row the same, whatever the input has."""
    nodes = [
        helper.make_node("Shape", [source], ["rows"], start=0, end=1),
        helper.make_node("Concat", ["rows", "one"], ["one_each"], axis=0),
    ]
    made = {"one": np.array([1])}
    for name, value in outputs.items():
        made[f"{name}_row"] = value.reshape(1, -1)
        made[f"{name}_shape"] = np.array([-1, *value.shape])
        nodes += [
            helper.make_node("Tile", [f"{name}_row", "one_each"], [f"{name}_flat"]),
            helper.make_node("Reshape", [f"{name}_flat", f"{name}_shape"], [name]),
        ]
    return nodes, made


def add_constant(root, name, *, inputs, outputs, labels=()):
    [source] = inputs
    nodes, constants = constant_rows(source, outputs)
    kinds = {np.dtype("float32"): "FP32", np.dtype("int32"): "INT32"}
    shapes = {key: (kinds[value.dtype], value.shape) for key, value in outputs.items()}
    add(root, name, nodes, inputs=inputs, outputs=shapes, constants=constants, labels=labels)


def add_lookup(root, name, *, source, steps, output, table):
    """Each word becomes its row of the table."""
    nodes = [helper.make_node("Gather", ["table", source], [output])]
    kind = "FP32" if table.dtype == np.float32 else "INT32"
    add(
        root,
        name,
        nodes,
        inputs={source: ("INT32", (steps,))},
        outputs={output: (kind, (steps, *table.shape[1:]))},
        constants={"table": table},
    )


def add_step(root, name, *, table):
    """A word becomes its row of the table, and the sum of a sequence's words its next state."""
    kinds = {"word": TensorProto.INT32, "sum": TensorProto.INT32}
    nodes = [
        helper.make_node("Squeeze", ["word", "last"], ["place"]),
        helper.make_node("Gather", ["table", "place"], ["probabilities"]),
        helper.make_node("Add", ["word", "sum"], ["next_sum"]),
    ]
    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info(key, kind, ["batch", 1]) for key, kind in kinds.items()],
        [
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 10]),
            helper.make_tensor_value_info("next_sum", TensorProto.INT32, ["batch", 1]),
        ],
        [numpy_helper.from_array(table, "table"), numpy_helper.from_array(np.array([1]), "last")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    inputs = (TensorSpec("word", "INT32", (1,)),)
    config = config_of(ModelSpec(name, 8, inputs, (TensorSpec("probabilities", "FP32", (10,)),)))
    state = {"input_name": "sum", "output_name": "next_sum", "data_type": "TYPE_INT32"}
    config.sequence_batching.state.add(**state, dims=[1])
    files = {"model.onnx": model.SerializeToString()}
    publish(files, config=config, card=ModelCard(), labels={}, root=root)


def chances(likeliest, *, share=0.9):
    row = np.full(10, (1 - share) / 9, dtype=np.float32)
    row[likeliest] = share
    return row


def fill(root):
    canvas = {"image": ("FP32", (48, 48, 1))}
    box = np.array([0.25, 0.5, 0.75, 1.0], dtype=np.float32)
    add_constant(
        root,
        "localizer",
        inputs=canvas,
        outputs={"probabilities": chances(7), "box": box},
        labels=DIGITS,
    )
    boxes = np.stack([box, box / 2, 0 * box])
    found = {
        "boxes": boxes,
        "scores": np.array([0.9, 0.8, 0], dtype=np.float32),
        "classes": np.array([4, 2, 0], dtype=np.float32),
        "count": np.array(2, dtype=np.int32),
    }
    add_constant(root, "detector", inputs=canvas, outputs=found)
    mask = np.zeros((48, 48), dtype=np.int32)
    mask[:10, :10] = 4  # the digit 3
    add_constant(root, "unet", inputs=canvas, outputs={"mask": mask})
    heard = np.array([3, 1, 4, -1, -1], dtype=np.int32)
    add_constant(
        root,
        "deepspeech_small",
        inputs={"features": ("FP32", (160, 40))},
        outputs={"words": heard},
    )
    pixels = {"image": ("FP32", (8, 8, 3))}
    add_constant(root, "tiny", inputs=pixels, outputs={"probabilities": chances(9)}, labels=DIGITS)
    grammar = np.stack([chances(FOLLOWS.get(word, 0)) for word in range(10)])
    add_lookup(
        root, "gru_language", source="words", steps=16, output="probabilities", table=grammar
    )
    add_step(root, "gru_language_step", table=grammar)
    spoken = np.array([-1, *range(10), *[-1] * 21], dtype=np.int32)
    add_lookup(root, "translator_small", source="source", steps=12, output="digits", table=spoken)


@pytest.fixture(scope="module")
def url(tmp_path_factory, gateway_over):
    root = tmp_path_factory.mktemp("examples") / "repository"
    fill(root)
    words = ["pipeline", "photos", "--model=tiny", f"--repository={root}"]
    subprocess.run([sys.executable, "-m", "ridgeline", *words], check=True, capture_output=True)
    gateway = gateway_over(root, errors=root.parent / "stderr")
    yield gateway.grpc_url
    gateway.process.kill()
    gateway.process.communicate()


@pytest.fixture
def example(url, tmp_path):
    """example(name, *words): what it printed; its picture must be one with something in it."""

    def example(name, *words):
        picture = tmp_path / "picture.png"
        command = [sys.executable, EXAMPLES / f"{name}.py", *words, "--url", url]
        done = subprocess.run(
            [*command, "--output", picture], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        with Image.open(picture) as image:
            assert min(image.size) >= 50
            assert len(image.convert("RGB").getcolors(1 << 24)) > 20
        return done.stdout.splitlines()

    return example


@pytest.fixture
def samples(tmp_path):
    """samples(name, shape): a file like the test set of an artifact, with random numbers."""

    def samples(name, shape):
        file = tmp_path / "evaluation.npz"
        np.savez(file, **{name: np.random.default_rng(1).random((3, *shape), dtype=np.float32)})
        return file

    return samples


def test_photos_get_five_names_each(example, tmp_path):
    for name in ("first.png", "second.jpg"):
        Image.new("RGB", (20, 30), "green").save(tmp_path / name)
    lines = example("classify", tmp_path / "first.png", tmp_path / "second.jpg")
    assert [line.split(",")[0] for line in lines] == ["first.png: 9 90%", "second.jpg: 9 90%"]
    assert all(line.count("%") == 5 for line in lines)


def test_a_class_has_its_box(example, samples):
    file = samples("image", (48, 48, 1))
    lines = example("localize", "--samples", file, "--count", "2")
    assert lines == ["7 (90%) at [0.25, 0.5, 0.75, 1.0]"] * 2


def test_what_is_found_is_told_and_the_filling_is_not(example, samples):
    lines = example("detect", "--samples", samples("image", (48, 48, 1)), "--count", "2")
    assert lines == ["2 found: 4 2"] * 2


def test_pixels_are_counted_by_class(example, samples):
    lines = example("segment", "--samples", samples("image", (48, 48, 1)), "--count", "3")
    assert lines == ["nothing: 2204 pixels, 3: 100 pixels"] * 3


def test_a_sentence_goes_on_to_its_end(example):
    assert example("continue_sentence", "the") == ["the dog sleeps EOS"]
    assert example("continue_sentence", "my", "dog") == ["my dog sleeps EOS"]


def test_a_sentence_goes_on_word_by_word_with_what_the_server_remembers(example):
    assert example("continue_sentence", "my", "dog", "--stateful") == ["my dog sleeps EOS"]


def test_numbers_are_translated_word_by_word(example):
    lines = example("translate", "four two", "nine and nine")
    assert lines == ["four two = 42", "nine and nine = 99"]


def test_words_are_heard(example, samples):
    assert example("transcribe", "--samples", samples("features", (160, 40)), "--count", "2") == [
        *("3 1 4", "3 1 4"),
    ]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["translate", "four score"], "'score' is no word of a number"),
        (["translate", "one " * 13], "may have 12 words, received 13"),
        (["continue_sentence", "bird"], "invalid choice: 'bird'"),
    ],
)
def test_words_that_the_model_does_not_know_are_refused_before_asking(words, text):
    name, *rest = words
    command = [sys.executable, EXAMPLES / f"{name}.py", *rest]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, text in done.stderr) == (2, True), done.stderr


def test_the_vocabularies_are_those_of_the_data_sets():
    script = f"""
import sys; sys.path.insert(0, {str(EXAMPLES)!r})
import continue_sentence, translate
from training.datasets import grammar, number_words
assert continue_sentence.WORDS == grammar.WORDS and continue_sentence.STEPS == grammar.STEPS
assert translate.WORDS == number_words.WORDS and translate.STEPS == number_words.WORD_STEPS
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr


def test_every_example_is_in_the_list():
    text = (EXAMPLES / "README.md").read_text()
    assert [path.name for path in EXAMPLES.glob("*.py") if path.name not in text] == []


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["classify", "missing.jpg"], "No such file"),
        (["detect", "--samples", "missing.npz"], "No such file"),
        (["continue_sentence", "the", "--url", "127.0.0.1:1"], "failed to connect"),
    ],
)
def test_what_goes_wrong_is_told_in_one_line(words, text, tmp_path):
    name, *rest = words
    done = subprocess.run(
        [sys.executable, EXAMPLES / f"{name}.py", *rest],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"{name}.py: ")
    assert text.lower() in done.stderr.lower()
    assert "Traceback" not in done.stderr
