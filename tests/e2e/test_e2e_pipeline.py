"""From a published classifier to image files in and labels out, as users have it."""

import gzip
import io
import json
import struct
import subprocess
import sys
import zlib

import numpy as np
import onnx
import pytest
import tritonclient.grpc as grpc_client
import tritonclient.http as http_client
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from tritonclient.utils import InferenceServerException

from ridgeline.model import ModelSpec, TensorSpec, config_of
from ridgeline.repository import ModelCard, publish
from training.datasets import mnist

PROTOCOLS = {"grpc": grpc_client, "http": http_client}
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def idx(name):
    data = gzip.decompress((mnist.FOLDER / f"{name}.gz").read_bytes())
    return mnist.parse_idx(data, source=name)


@pytest.fixture(scope="module")
def digits():
    """The test set as it was published: uint8 [10000, 28, 28], and what it shows."""
    return idx("t10k-images-idx3-ubyte"), idx("t10k-labels-idx1-ubyte")


def tensor_of(image):
    """What a network of `training/` is given for a digit."""
    return (np.pad(image, 2)[..., np.newaxis] / np.float32(255)).astype(np.float32)


def linear_classifier(images, labels):
    """Softmax of a linear map, fitted to some digits by least squares: a real, small classifier."""
    pixels = np.stack([tensor_of(image).ravel() for image in images])
    targets = 10 * np.eye(10, dtype=np.float32)[labels]
    gram = pixels.T @ pixels + 50 * np.eye(1024, dtype=np.float32)
    weights = np.linalg.solve(gram, pixels.T @ targets).astype(np.float32)
    nodes = [
        helper.make_node("Flatten", ["image"], ["pixels"]),
        helper.make_node("MatMul", ["pixels", "w"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["probabilities"]),
    ]
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 32, 32, 1])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 10])],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def png(image, **options):
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG", **options)
    return stream.getvalue()


def bomb():
    """A PNG of some bytes that says it has 50,000 x 50,000 pixels."""

    def chunk(kind, data):
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    head = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 0, 0, 0, 0)
    data = zlib.compress(bytes(100_000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


TRUNCATED = png(np.arange(9999).astype(np.uint8).reshape(99, 101))[:150]


def ridgeline(*words):
    command = [sys.executable, "-m", "ridgeline", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def served(tmp_path_factory, gateway_over, digits):
    """A gateway over the classifier "linear" and the pipelines "digits" and "paper" (inverted)."""
    root = tmp_path_factory.mktemp("pipeline") / "repository"
    images, labels = digits
    image, output = (
        TensorSpec("image", "FP32", (32, 32, 1)),
        TensorSpec("probabilities", "FP32", (10,)),
    )
    publish(
        {"model.onnx": linear_classifier(images[:5000], labels[:5000])},
        config=config_of(ModelSpec("linear", 8, (image,), (output,))),
        card=ModelCard(),
        labels={"probabilities": WORDS},
        root=root,
    )
    for words in (["digits"], ["paper", "--invert"]):
        done = ridgeline("pipeline", *words, "--model=linear", f"--repository={root}", "--json")
        assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["labels"] == {"probabilities": 10}
    gateway = gateway_over(root, errors=root.parent / "stderr")
    yield gateway
    gateway.process.kill()
    gateway.process.communicate()


@pytest.fixture(params=PROTOCOLS)
def ask(request, served):
    """ask(model, input, array, classes=0): the output, by the official client."""
    module = PROTOCOLS[request.param]
    url = served.grpc_url if request.param == "grpc" else served.http_url
    client = module.InferenceServerClient(url)

    def ask(model, name, array, *, classes=0):
        datatype = "BYTES" if array.dtype == np.object_ else "FP32"
        tensor = module.InferInput(name, list(array.shape), datatype)
        tensor.set_data_from_numpy(array)
        wanted = module.InferRequestedOutput("probabilities", class_count=classes)
        return client.infer(model, [tensor], outputs=[wanted]).as_numpy("probabilities")

    yield ask
    client.close()


def files(*contents):
    return np.array([[content] for content in contents], dtype=np.object_)


def test_files_of_digits_are_answered_as_their_tensors_are(ask, digits):
    images = digits[0][-8:]
    expected = ask("linear", "image", np.stack([tensor_of(image) for image in images]))

    answer = ask("digits", "image_file", files(*map(png, images)))

    np.testing.assert_array_equal(answer, expected)


def test_labels_come_out_with_the_classification_extension(ask, digits):
    images, labels = digits[0][-48:], digits[1][-48:]
    right = 0
    for eight, truth in zip(np.split(images, 6), np.split(labels, 6), strict=True):
        tensors = np.stack([tensor_of(image) for image in eight])
        expected = ask("linear", "image", tensors, classes=1)

        answer = ask("digits", "image_file", files(*map(png, eight)), classes=1)

        assert answer.tolist() == expected.tolist()
        told = [text.decode().split(":")[1:] for text in answer.ravel()]
        right += sum(
            one == [str(label), WORDS[label]] for one, label in zip(told, truth, strict=True)
        )
    assert right > 30  # of a linear map no more can be asked; guessing gives 5


def test_a_digit_on_paper_is_inverted_where_the_pipeline_says_so(ask, digits):
    image = digits[0][-1]
    expected = ask("digits", "image_file", files(png(image)))
    np.testing.assert_array_equal(ask("paper", "image_file", files(png(255 - image))), expected)


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        (b"", "row 1: the file is empty"),
        (b"GIF89a, says the file", "beginning with 47 49 46 38 39 61 2c 20"),
        (bomb(), "50000 x 50000 pixels; at most 25000000 are accepted"),
        (
            png(np.arange(9999).astype(np.uint8).reshape(99, 101))[:150],
            "row 1: the PNG image is damaged",
        ),
    ],
    ids=["empty", "no image", "bomb", "truncated"],
)
def test_what_is_no_image_is_told_so_and_the_next_request_is_answered(ask, digits, file, reason):
    good = png(digits[0][0])
    with pytest.raises(InferenceServerException, match=reason) as raised:
        ask("digits", "image_file", files(good, file))
    assert raised.value.status() in ("StatusCode.INVALID_ARGUMENT", "400")
    assert ask("digits", "image_file", files(good)).shape == (1, 10)


def test_the_models_of_a_pipeline_are_listed_without_a_problem(served):
    root = served.errors.parent / "repository"
    listed = json.loads(ridgeline("models", f"--repository={root}", "--json").stdout)["models"]
    assert {model["name"]: model["problem"] for model in listed} == {
        "digits": None,
        "digits_preprocess": None,
        "linear": None,
        "paper": None,
        "paper_preprocess": None,
    }


def test_a_folder_of_images_is_put_under_load_and_held_to_the_answers_beside_them(
    served, ask, digits, machine, tmp_path
):
    images, labels = digits
    folder = tmp_path / "digits"
    folder.mkdir()
    tensors = np.stack([tensor_of(image) for image in images[:12]])
    expected = np.concatenate([ask("linear", "image", part) for part in (tensors[:6], tensors[6:])])
    for number in range(12):
        (folder / f"{number:02}.png").write_bytes(png(images[number]))
        told = {"label": int(labels[number]), "probabilities": expected[number].tolist()}
        (folder / f"{number:02}.png.json").write_text(json.dumps(told))
    words = ["loadtest", "--url", served.grpc_url, "--protocol", "grpc", "--model", "digits"]
    words += ["--data", folder, "--hardware", machine, "--json"]
    words += ["--duration", "0.5", "--warmup", "0.1", "--min-requests", "1"]

    done = ridgeline(*words)
    assert done.returncode == 0, done.stderr
    (run,) = json.loads(done.stdout)["runs"]
    assert "sending 12 of 12 samples in turn" in done.stderr
    assert run["answers"]["compared"] > 0
    assert run["answers"]["wrong"] == 0

    (folder / "00.png.json").write_text(
        json.dumps({"label": 0, "probabilities": np.eye(10)[0].tolist()})
    )
    (run,) = json.loads(ridgeline(*words).stdout)["runs"]
    assert run["verdict"] == "INVALID"
    assert run["answers"]["wrong"] > 0
    assert "away from what is right" in run["answers"]["first_wrong"]
