"""The running server does what its description says: schemathesis asks, and checks the answers.

A bounded run: each operation is asked some dozen times, with the same seed each time, half of them
as the description wants it, half not.
"""

from multiprocessing.shared_memory import SharedMemory

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.specs.openapi import checks as openapi_checks

from serving.protocol.openapi import description

_CHECKS = [
    openapi_checks.status_code_conformance,
    openapi_checks.content_type_conformance,
    openapi_checks.response_headers_conformance,
    openapi_checks.response_schema_conformance,
    openapi_checks.negative_data_rejection,
]
_BOUNDED = settings(
    max_examples=10,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
SCHEMA = schemathesis.openapi.from_dict(description())
OPERATIONS = [found.ok() for found in SCHEMA.get_all_operations()]
_X = {"name": "x", "datatype": "FP32", "shape": [2, 2], "data": [[1, 2], [3, 4]]}
ANSWERED = [
    ("infer", {"inputs": [_X], "id": "7"}),
    ("infer", {"inputs": [_X], "parameters": {"binary_data_output": True}}),
    ("infer", {"inputs": [_X], "outputs": [{"name": "y", "parameters": {"classification": 1}}]}),
    ("generate", {"x": [1, 2], "id": "7"}),
    ("generate_stream", {"x": [1, 2]}),
]


@pytest.fixture(scope="module")
def url(gateway_over, models, tmp_path_factory):
    """A gateway where models may be loaded and unloaded, with one that answers what it is asked."""
    folder = tmp_path_factory.mktemp("described")
    (folder / "repository/identity/1").mkdir(parents=True)
    (folder / "repository/identity/1/model.onnx").write_bytes(models.identity())
    flags = ("--model-control-mode=explicit", "--load-model=identity")
    gateway = gateway_over(folder / "repository", *flags, errors=folder / "stderr")
    yield f"http://{gateway.http_url}"
    gateway.stop()


# Without a body there is hardly anything that could be wrong in a request.
ASKED = [(one, GenerationMode.POSITIVE) for one in OPERATIONS]
ASKED += [(one, GenerationMode.NEGATIVE) for one in OPERATIONS if list(one.body)]


@pytest.mark.parametrize(
    ("operation", "mode"),
    ASKED,
    ids=[f"{mode.value}-{one.method}-{one.path}" for one, mode in ASKED],
)
def test_the_server_answers_as_described(url, operation, mode):
    session = requests.Session()

    @_BOUNDED
    @given(data=st.data())
    def ask(data):
        case = data.draw(operation.as_strategy(generation_mode=mode))
        if data.draw(st.booleans()) and "unload" not in case.path:
            _ask_what_is_there(case, plainly=mode is GenerationMode.POSITIVE)
        answer = case.call(base_url=url, session=session, timeout=30)
        case.validate_response(answer, checks=_CHECKS)

    ask()
    session.close()


def _ask_what_is_there(case, *, plainly):
    """Name the model and the version that are there, so that not only 404 is checked."""
    for name, value in (("model", "identity"), ("version", "1")):
        if name in case.path_parameters:
            case.path_parameters[name] = value
    if plainly:
        for name in ("Content-Encoding", "Inference-Header-Content-Length"):
            case.headers.pop(name, None)


@pytest.mark.parametrize("versioned", [False, True])
@pytest.mark.parametrize(("end", "body"), ANSWERED)
def test_the_answers_of_a_model_are_as_described(url, end, body, versioned):
    path = "/v2/models/{model}" + "/versions/{version}" * versioned + f"/{end}"
    case = SCHEMA[path]["POST"].Case(
        path_parameters={"model": "identity", **({"version": "1"} if versioned else {})},
        body=body,
        media_type="application/json",
    )

    answer = case.call(base_url=url, timeout=30)

    assert answer.status_code == 200
    case.validate_response(answer, checks=_CHECKS)


def test_a_region_of_shared_memory_is_as_described(url):
    memory = SharedMemory(create=True, size=64)
    try:
        for method, end, body in (
            ("POST", "register", {"key": f"/{memory.name}", "byte_size": 64}),
            ("GET", "status", None),
            ("POST", "unregister", None),
        ):
            operation = SCHEMA[f"/v2/systemsharedmemory/region/{{region}}/{end}"][method]
            sent = {} if body is None else {"body": body, "media_type": "application/json"}
            case = operation.Case(path_parameters={"region": "mine"}, **sent)
            answer = case.call(base_url=url, timeout=30)
            assert answer.status_code == 200, answer.text
            case.validate_response(answer, checks=_CHECKS)
    finally:
        memory.close()
        memory.unlink()


def test_the_server_publishes_what_was_tested(url):
    assert requests.get(f"{url}/docs/openapi.json", timeout=30).json() == description()
