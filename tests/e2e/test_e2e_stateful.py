"""Language models word by word: trained, exported, served, and asked by every official client."""

import json
import queue
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as grpc_client
import tritonclient.http as http_client

ROOT = Path(__file__).parents[2]
NETWORKS = ("lstm_language", "gru_language", "transformer_language")
PROTOCOLS = {"grpc": grpc_client, "http": http_client}
RECIPE = """
description = "a language model that has read little"
model = "{network}"
task = "language"
dataset = "grammar"
epochs = 1
batch_size = 256
seed = 1
validation_samples = 1000
training_samples = 8000
[required]
excess_entropy = 0.9
[optimizer]
name = "adam"
learning_rate = 0.01
"""
# One process for all commands: TensorFlow is loaded once.
COMMANDS = """
import sys
from ridgeline.__main__ import main
for network in sys.argv[1:]:
    artifact = f"artifacts/{network}"
    for words in (
        ["train", f"{network}.toml"], ["export", artifact], ["export", artifact, "--stateful"]
    ):
        if code := main(words):
            sys.exit(code)
"""
pytestmark = pytest.mark.timeout(400)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where a user has trained and exported all three, as a whole and word by word."""
    folder = tmp_path_factory.mktemp("stateful")
    for network in NETWORKS:
        (folder / f"{network}.toml").write_text(RECIPE.format(network=network))
    command = [sys.executable, "-c", COMMANDS, *NETWORKS]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def gateway(folder, gateway_over):
    gateway = gateway_over(folder / "model_repository", errors=folder / "stderr")
    yield gateway
    gateway.process.kill()
    gateway.process.communicate()


@pytest.fixture(scope="module")
def sentences(folder):
    """Some of the test set: words INT32 [8, 16]."""
    return np.load(folder / "artifacts/lstm_language/evaluation.npz")["words"][::40]


@pytest.fixture
def whole(gateway, sentences):
    """whole(network): the chances [8, 16, 10] that the whole network gives for the sentences."""

    def whole(network):
        with grpc_client.InferenceServerClient(gateway.grpc_url) as client:
            words = _input(grpc_client, "words", sentences)
            return client.infer(network, [words]).as_numpy("probabilities")

    return whole


def _input(module, name, array):
    tensor = module.InferInput(name, list(array.shape), "INT32")
    tensor.set_data_from_numpy(array)
    return tensor


def _step(module, sentences, *, sequence, place):
    """What a client sends for one word of one of the sentences."""
    return {
        "inputs": [_input(module, "word", sentences[sequence, place].reshape(1, 1))],
        "sequence_id": 1000 + sequence,
        "sequence_start": place == 0,
        "sequence_end": place == sentences.shape[1] - 1,
    }


def _check(found, expected):
    """Each step's answer is the whole network's at that place."""
    chances = np.array([[answer.as_numpy("probabilities")[0] for answer in row] for row in found])
    likeliest = np.array([[answer.as_numpy("likeliest")[0, 0] for answer in row] for row in found])
    assert np.abs(chances - expected).max() <= 1e-5
    assert (chances.argmax(axis=-1) == expected.argmax(axis=-1)).all()
    assert (likeliest == expected.argmax(axis=-1)).all()


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_interleaved_sentences_word_by_word_are_answered_as_whole_ones(
    gateway, sentences, whole, network, protocol
):
    module = PROTOCOLS[protocol]
    rows, steps = sentences.shape
    found = [[] for _ in range(rows)]
    with module.InferenceServerClient(getattr(gateway, f"{protocol}_url")) as client:
        for place in range(steps):
            for row in range(rows):
                step = _step(module, sentences, sequence=row, place=place)
                found[row].append(client.infer(f"{network}_step", **step))
    _check(found, whole(network))


@pytest.mark.parametrize("network", NETWORKS)
def test_sentences_share_a_stream(gateway, sentences, whole, network):
    rows, steps = sentences.shape
    answers = queue.SimpleQueue()
    with grpc_client.InferenceServerClient(gateway.grpc_url) as client:
        client.start_stream(lambda result, error: answers.put((result, error)))
        for place in range(steps):
            for row in range(rows):
                step = _step(grpc_client, sentences, sequence=row, place=place)
                client.async_stream_infer(f"{network}_step", request_id=str(row), **step)
        received = [answers.get(timeout=60) for _ in range(rows * steps)]
        client.stop_stream()
    assert {error for _, error in received} == {None}
    found = [
        [result for result, _ in received if result.get_response().id == str(row)]
        for row in range(rows)
    ]
    _check(found, whole(network))


def test_the_transformer_says_that_a_sentence_has_no_seventeenth_place(gateway):
    words = np.zeros((1, 17), np.int32)
    with grpc_client.InferenceServerClient(gateway.grpc_url) as client:
        for place in range(17):
            step = _step(grpc_client, words, sequence=0, place=place)
            answer = client.infer("transformer_language_step", **step).as_numpy("probabilities")
            assert np.isnan(answer).all() == (place == 16)


def test_the_list_of_models_tells_which_are_stateful_and_what_a_step_costs(folder):
    command = [sys.executable, "-m", "ridgeline", "models", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder)
    told = {model["name"]: model for model in json.loads(done.stdout)["models"]}
    for network in NETWORKS:
        whole, step = told[network], told[f"{network}_step"]
        assert (whole["stateful"], step["stateful"]) == (False, True)
        assert step["card"]["parity"]["max_relative_error"] <= 1e-5
        assert step["card"]["parity"]["top1_agreement"] == 1
        assert step["card"]["parity"]["samples"] == 294
    costs = {
        name: model["card"]["cost"]["multiply_adds_per_sample"] for name, model in told.items()
    }
    for network in ("lstm_language", "gru_language"):
        assert costs[network] == 16 * costs[f"{network}_step"]
    # The whole Transformer looks at all 16 places from each, and so does a step, from its own.
    assert costs["transformer_language"] == 16 * costs["transformer_language_step"]


@pytest.mark.parametrize("network", NETWORKS)
def test_a_sentence_goes_on_alike_with_and_without_a_state(gateway, tmp_path, network):
    command = [sys.executable, ROOT / "examples/continue_sentence.py", "the", "dog"]
    flags = ["--model", network, "--url", gateway.grpc_url, "--output", tmp_path / "a.png"]
    told = [
        subprocess.run([*command, *flags, *more], capture_output=True, text=True, check=True).stdout
        for more in ([], ["--stateful"])
    ]
    assert told[0] == told[1]
    assert told[0].startswith("the dog")
