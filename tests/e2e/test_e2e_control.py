"""Models that come and go under load, and the model repository through the official clients."""

import base64
import contextlib
import json
import shutil
import threading
import time
import urllib.error
import urllib.request

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from tritonclient.utils import InferenceServerException

_PATIENCE_S = 60


def _ask(client, triton, model="m"):
    tensor = triton.InferInput("x", [1, 2], "FP32")
    tensor.set_data_from_numpy(np.ones((1, 2), np.float32))
    answer = client.infer(model, [tensor])
    response = answer.get_response()
    version = response["model_version"] if isinstance(response, dict) else response.model_version
    return int(version), float(answer.as_numpy("y").flat[0])


class Load:
    """Threads that ask a model without a pause; every answer is kept, every error too."""

    def __init__(self, gateway, *models):
        self.answers = {model: [] for model in models}
        self.errors = []
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=self._work, args=(gateway, model, over_grpc))
            for model in models
            for over_grpc in (True, False)
        ]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_what):
        self._over.set()
        for thread in self._threads:
            thread.join()

    def until(self, model, version):
        """Wait until that version has answered."""
        end = time.monotonic() + _PATIENCE_S
        while not any(answer[0] == version for answer in self.answers[model]):
            assert not self.errors
            assert time.monotonic() < end, self.answers[model][-1]
            time.sleep(0.002)

    def _work(self, gateway, model, over_grpc):
        triton, url = (
            (triton_grpc, gateway.grpc_url) if over_grpc else (triton_http, gateway.http_url)
        )
        with triton.InferenceServerClient(url) as client:
            while not self._over.is_set():
                try:
                    self.answers[model].append(_ask(client, triton, model))
                except InferenceServerException as error:
                    self.errors.append(error)


def test_versions_are_replaced_under_load_without_one_failed_request(repository, models, start):
    repository.add("m", models.dense(2, 1, weight=1))
    repository.add("other", models.dense(2, 1, weight=1))
    gateway = start("--repository-poll-secs=0.05")

    with Load(gateway, "m", "other") as load:
        for version in (2, 3):
            load.until("m", version - 1)
            staged = repository.root.parent / str(version)
            staged.mkdir()
            (staged / "model.onnx").write_bytes(models.dense(2, 1, weight=version))
            staged.rename(repository.root / "m" / str(version))
            load.until("m", version)
        before = len(load.answers["other"])
        shutil.rmtree(repository.root / "m" / "3")
        while load.answers["m"][-1][0] != 2:
            assert not load.errors
        assert len(load.answers["other"]) > before

    assert load.errors == []
    assert set(load.answers["m"]) == {(1, 2.0), (2, 4.0), (3, 6.0)}
    assert set(load.answers["other"]) == {(1, 2.0)}


def test_a_version_is_loaded_anew_under_load_without_one_failed_request(repository, models, start):
    repository.add("m", models.dense(2, 1, weight=1))
    gateway = start("--model-control-mode=explicit", "--load-model=m")
    client = triton_grpc.InferenceServerClient(gateway.grpc_url)

    with Load(gateway, "m") as load:
        load.until("m", 1)
        for version in range(2, 8):
            files = {f"file:{version}/model.onnx": models.dense(2, 1, weight=version)}
            client.load_model("m", config="{}", files=files)
            load.until("m", version)
        client.load_model("m")

    assert load.errors == []
    assert set(load.answers["m"]) == {(version, 2.0 * version) for version in range(1, 8)}
    code, _, errors = gateway.stop()
    assert code == 0
    assert "Traceback" not in errors


@pytest.fixture
def explicit(repository, models, start):
    """A gateway that loads what it is told to; two models, of which one is loaded."""
    for name in ("a", "b"):
        repository.add(name, models.dense(2, 1))
    return start("--model-control-mode=explicit", "--load-model=a")


@pytest.fixture
def clients():
    """Makes the official clients of a gateway, over gRPC and HTTP; closed at the end."""
    with contextlib.ExitStack() as stack:
        yield lambda gateway: (
            stack.enter_context(triton_grpc.InferenceServerClient(gateway.grpc_url)),
            stack.enter_context(triton_http.InferenceServerClient(gateway.http_url)),
        )


def _index(grpc, http):
    over_http = http.get_model_repository_index()
    over_grpc = grpc.get_model_repository_index(as_json=True).get("models", [])
    assert over_grpc == over_http
    return [(e["name"], e.get("version"), e.get("state")) for e in over_http]


def test_the_official_clients_load_and_unload_models(explicit, models, clients):
    grpc, http = clients(explicit)
    assert _index(grpc, http) == [("a", "1", "READY"), ("b", None, None)]

    for client in (grpc, http):
        client.load_model("b")
        assert client.is_model_ready("b")
        client.unload_model("b")
        assert not client.is_model_ready("b")
        with pytest.raises(InferenceServerException, match="no available versions"):
            client.get_model_metadata("b")
        files = {"file:5/model.onnx": models.dense(2, 1, weight=4)}
        client.load_model("b", config=json.dumps({"max_batch_size": 3}), files=files)
        config = http.get_model_config("b")
        assert (config["name"], config["max_batch_size"]) == ("b", 3)
        assert _ask(http, triton_http, "b") == (5, 8.0)
        client.unload_model("b", unload_dependents=True)

    ready = grpc._client_stub.RepositoryIndex(
        triton_grpc.service_pb2.RepositoryIndexRequest(ready=True)
    )
    assert [(entry.name, entry.state) for entry in ready.models] == [("a", "READY")]


def test_what_cannot_be_loaded_is_refused_with_tritons_codes(explicit, repository, clients):
    grpc, http = clients(explicit)
    repository.add("garbage", b"no model")
    for name, words, code, status in (
        ("nowhere", "failed to load 'nowhere'", "INTERNAL", "500"),
        ("../a", "failed to load '../a'", "INTERNAL", None),
        ("garbage", "load failed for model 'garbage': version 1", "INVALID_ARGUMENT", "400"),
    ):
        with pytest.raises(InferenceServerException, match=words) as error:
            grpc.load_model(name)
        assert error.value.status() == f"StatusCode.{code}"
        if status:
            with pytest.raises(InferenceServerException, match=words) as error:
                http.load_model(name)
            assert error.value.status() == status
    with pytest.raises(InferenceServerException, match="config") as error:
        grpc.load_model("a", files={"file:1/model.onnx": b"x"})
    assert error.value.status() == "StatusCode.INTERNAL"
    for client in (grpc, http):
        client.unload_model("nowhere")
        with pytest.raises(InferenceServerException, match="must be 'file:<version>/<name>'"):
            client.load_model("a", config="{}", files={"file:../../a": b"x"})
        assert client.is_model_ready("a")


def _post(gateway, path, body):
    url = f"http://{gateway.http_url}/v2/repository/{path}"
    request = urllib.request.Request(url, data=body, method="POST")
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as refused:
        return refused.code, refused.read()


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("index", b"", 200, b'"a"'),
        ("index", b'{"ready": true, "more": 1}', 200, b'"READY"'),
        ("any/index", b"{}", 200, b'"a"'),
        ("index", b"{", 400, b"is no JSON"),
        ("index", b"[" * 100_000, 400, b"is no JSON"),
        ("index", b"[]", 400, b"must be an object"),
        ("index", b'{"ready": 1}', 400, b"ready must be true or false"),
        ("any/models/a/load", b"", 501, b"'repository_name'"),
        ("models/a/load", b"\xff", 400, b"is no JSON"),
        ("models/a/load", b'{"parameters": 5}', 400, b"parameters must be an object"),
        ("models/a/load", b'{"parameters": {"config": 5}}', 400, b"must be a text"),
        ("models/a/load", b'{"parameters": {"x": "y"}}', 400, b"unrecognized load parameter 'x'"),
        ("models/a/load", b'{"parameters": {"config": "{"}}', 500, b"failed to load 'a'"),
        ("models/a/load", b'{"parameters": {"config": "{}", "file:1/a": "!"}}', 400, b"base64"),
        ("models/a/unload", b'{"parameters": {"unload_dependents": 1}}', 400, b"true or false"),
        ("models/a/unload", b'{"parameters": {"x": "y"}}', 200, b""),
    ],
)
def test_every_body_has_a_defined_answer(explicit, path, body, status, words):
    answered, text = _post(explicit, path, body)

    assert answered == status, text
    assert words in text


def test_a_file_over_http_is_base64(explicit, models):
    model = base64.b64encode(models.dense(2, 1, weight=3)).decode()
    parameters = {"config": "{}", "file:1/model.onnx": model}

    status, text = _post(
        explicit, "models/new/load", json.dumps({"parameters": parameters}).encode()
    )

    assert (status, text) == (200, b"")
    with triton_http.InferenceServerClient(explicit.http_url) as http:
        assert _ask(http, triton_http, "new") == (1, 6.0)


def test_parameters_of_the_wrong_kind_are_refused_over_grpc(explicit, clients):
    grpc, _ = clients(explicit)
    stub = grpc._client_stub
    pb = triton_grpc.service_pb2
    kinds = pb.ModelRepositoryParameter
    for request, words in (
        (pb.RepositoryModelLoadRequest(model_name="a", repository_name="r"), "repository_name"),
        (
            pb.RepositoryModelLoadRequest(
                model_name="a", parameters={"config": kinds(bytes_param=b"{}")}
            ),
            "must be a string_param, received bytes_param",
        ),
        (
            pb.RepositoryModelLoadRequest(model_name="a", parameters={"x": kinds()}),
            "unrecognized load parameter",
        ),
    ):
        with pytest.raises(Exception, match=words):
            stub.RepositoryModelLoad(request)
    with pytest.raises(Exception, match="must be a bool_param, received int64_param"):
        stub.RepositoryModelUnload(
            pb.RepositoryModelUnloadRequest(
                model_name="a", parameters={"unload_dependents": kinds(int64_param=1)}
            )
        )


def test_by_default_models_are_not_loaded_by_request(repository, models, start, clients):
    repository.add("a", models.dense(2, 1))
    for client in clients(start()):
        with pytest.raises(InferenceServerException, match="'poll', expected 'explicit'"):
            client.load_model("a")
