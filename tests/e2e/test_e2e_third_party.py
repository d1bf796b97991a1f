"""ONNX models that others trained and packed, served unmodified: the file dropped, no config."""

import importlib.util
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import tritonclient.grpc as grpc_client

from ridgeline.datatypes import datatype_of_numpy


def model_file(package, path):
    """The file inside an installed package, which is not imported. Skips where it is not there."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None or not (Path(spec.origin).parent / path).is_file():
        pytest.skip(f"the package {package} with its {path} is not installed")
    return Path(spec.origin).parent / path


def magika():
    """File types from bytes: whole numbers, a free batch axis."""
    rng = np.random.default_rng(0)
    return {"bytes": rng.integers(0, 257, size=(3, 2048), dtype=np.int32)}


def silero_vad():
    """Speech in audio: three inputs, among them a scalar of 64 bits and a state that comes back."""
    rng = np.random.default_rng(0)
    return {
        "input": rng.normal(0, 0.1, size=(1, 576)).astype(np.float32),
        "state": np.zeros((2, 1, 128), dtype=np.float32),
        "sr": np.array(16000, dtype=np.int64),
    }


@pytest.mark.parametrize(
    ("package", "path", "inputs"),
    [
        ("magika", "models/standard_v3_3/model.onnx", magika),
        ("silero_vad", "data/silero_vad.onnx", silero_vad),
    ],
)
def test_a_model_of_others_answers_as_in_its_own_runtime(package, path, inputs, repository, start):
    file, arrays = model_file(package, path), inputs()
    repository.add(package, file.read_bytes())
    session = onnxruntime.InferenceSession(str(file))
    names = [output.name for output in session.get_outputs()]
    expected = dict(zip(names, session.run(names, arrays), strict=True))
    gateway = start()

    tensors = []
    for name, array in arrays.items():
        datatype = datatype_of_numpy(array.dtype).name
        tensor = grpc_client.InferInput(name, list(array.shape), datatype)
        tensors.append(tensor.set_data_from_numpy(array))
    with grpc_client.InferenceServerClient(gateway.grpc_url) as client:
        answer = client.infer(package, tensors)

    for name, array in expected.items():
        np.testing.assert_allclose(answer.as_numpy(name), array, rtol=1e-4, atol=1e-6)
