"""Which requests are kept as a kind, how many, and that none is mistaken for another."""

from types import SimpleNamespace

import grpc
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2

from ridgeline.errors import NotFound, RidgelineError
from ridgeline.model import FREE, ModelSpec, TensorSpec
from serving.contract import check
from serving.job import BatchOutputs
from serving.protocol.grpc_codec import decode_request
from serving.protocol.grpc_known import KnownRequests

OK, LATE = 0, grpc.StatusCode.DEADLINE_EXCEEDED.value[0]


def message(model="identity", arrays=None, *, datatype="FP32", **fields):
    """A request as clients write it."""
    request = service_pb2.ModelInferRequest(model_name=model, **fields)
    for name, array in (arrays or {"x": np.array([[3, 4]], np.float32)}).items():
        request.inputs.add(name=name, datatype=datatype, shape=array.shape)
        request.raw_input_contents.append(array.tobytes())
    return request


def framed(data):
    return b"\0" + len(data).to_bytes(4, "big") + data


def rows(count, width, *, first=0):
    return np.arange(first, first + count * width, dtype=np.float32).reshape(count, width)


# Requests that are to be recognised, each with one of the same kind.
USUAL = {
    "one row": (message(), message(arrays={"x": rows(1, 2, first=7)})),
    "several rows": (message(arrays={"x": rows(5, 2)}), message(arrays={"x": rows(5, 2, first=1)})),
    "more rows than a batch": (
        message(arrays={"x": rows(32, 2)}),
        message(arrays={"x": rows(32, 2, first=9)}),
    ),
    "several inputs": (
        message("two", {"a": rows(2, 3), "b": rows(2, 3, first=50)}),
        message("two", {"a": rows(2, 3, first=20), "b": rows(2, 3, first=-50)}),
    ),
    "inputs in another order": (
        message("two", {"b": rows(2, 3), "a": rows(2, 3, first=50)}),
        message("two", {"b": rows(2, 3, first=20), "a": rows(2, 3, first=-50)}),
    ),
    "no batch axis": (
        message("scalar", {"x": np.array(3, np.float32)}),
        message("scalar", {"x": np.array(-1, np.float32)}),
    ),
    "two bytes a number": (
        message("bf16", {"x": np.array([[1, 2]], np.int16)}, datatype="BF16"),
        message("bf16", {"x": np.array([[-9, 0]], np.int16)}, datatype="BF16"),
    ),
    "a version": (
        message("versioned", model_version="1"),
        message("versioned", {"x": rows(1, 2)}, model_version="1"),
    ),
}


def _spec(name, *, inputs=("x",), outputs=("y",), shape=(2,), rows=32, datatype="FP32"):
    return ModelSpec(
        name=name,
        max_batch_size=rows,
        inputs=tuple(TensorSpec(tensor, datatype, shape) for tensor in inputs),
        outputs=tuple(TensorSpec(tensor, datatype, shape) for tensor in outputs),
    )


class Still:
    """The models' contracts alone, for what runs nothing."""

    generation = 0

    def __init__(self):
        self.tracing = SimpleNamespace(active=False)
        specs = [
            _spec("identity"),
            _spec("bf16", datatype="BF16"),
            _spec("free", shape=(FREE,)),
            _spec("text", datatype="BYTES"),
            _spec("scalar", shape=(), rows=0),
            _spec("two", inputs=("a", "b"), outputs=("sum", "difference"), shape=(3,)),
            _spec("versioned"),
        ]
        self._models = {
            (spec.name, version): SimpleNamespace(
                name=spec.name,
                version=version or "1",
                loaded=SimpleNamespace(spec=spec),
                batcher=object(),
            )
            for spec in specs
            for version in ("", "1", "2")
        }

    def find(self, name, *, version):
        if (name, version) not in self._models:
            raise NotFound(name)
        return self._models[name, version]


@pytest.fixture
def dataplane():
    return Still()


def _with(change):
    request = message()
    change(request)
    return request


# Requests that are never kept as a kind.
UNUSUAL = {
    "an id": message(id="7"),
    "free dimensions": message("free"),
    "texts": message("text", {"x": np.array([1, 1], np.int64)}, datatype="BYTES"),
    "typed contents": _with(
        lambda request: (
            request.ClearField("raw_input_contents"),
            request.inputs[0].contents.fp32_contents.extend([3, 4]),
        )
    ),
    "one output of two": _with(
        lambda request: (
            request.CopyFrom(message("two", {"a": rows(1, 3), "b": rows(1, 3)})),
            request.outputs.add(name="sum"),
        )
    ),
    "outputs in another order": _with(
        lambda request: (
            request.CopyFrom(message("two", {"a": rows(1, 3), "b": rows(1, 3)})),
            request.outputs.add(name="difference"),
            request.outputs.add(name="sum"),
        )
    ),
    "a long head": _with(
        lambda request: setattr(request.parameters["note"], "string_param", "n" * 9_000)
    ),
}


def learned(dataplane, *requests):
    """What is known after those requests were answered."""
    known = KnownRequests(dataplane)
    for request in requests:
        known.learn(request.SerializeToString(), request, decode_request(request, deadline_ns=None))
    return known


def kinds(known):
    return [kind for same_size in known._kinds.values() for kind in same_size]


@pytest.mark.parametrize("kind", UNUSUAL)
def test_an_unusual_request_is_not_kept(dataplane, kind):
    request = UNUSUAL[kind]
    if kind == "texts":
        request.raw_input_contents[0] = b"\1\0\0\0a" * 2
        request.inputs[0].shape[:] = [1, 2]

    assert kinds(learned(dataplane, request)) == []


names = st.sampled_from(["identity", "versioned", "two", "scalar", "free", "bf16", "nope"])
shapes = st.lists(st.integers(1, 3), max_size=3)
tensors = st.tuples(
    st.sampled_from(["x", "a", "b", "y"]), st.sampled_from(["FP32", "INT32", "BF16"]), shapes
)


@st.composite
def messages(draw):
    """Requests that mostly resemble each other, valid or not."""
    if draw(st.booleans()):
        request = service_pb2.ModelInferRequest()
        request.CopyFrom(draw(st.sampled_from([m for pair in USUAL.values() for m in pair])))
    else:
        request = service_pb2.ModelInferRequest(model_name=draw(names))
        for name, datatype, shape in draw(st.lists(tensors, min_size=1, max_size=2)):
            request.inputs.add(name=name, datatype=datatype, shape=shape)
            size = int(np.prod(shape)) * (2 if datatype == "BF16" else 4)
            request.raw_input_contents.append(draw(st.binary(min_size=size, max_size=size)))
    for change in draw(st.lists(st.sampled_from(CHANGES), max_size=2)):
        change(request, draw)
    return request


CHANGES = [
    lambda request, draw: setattr(request, "model_name", draw(names)),
    lambda request, draw: setattr(request, "model_version", draw(st.sampled_from(["", "1", "2"]))),
    lambda request, draw: setattr(request, "id", draw(st.sampled_from(["", "7"]))),
    lambda request, draw: request.inputs[0].shape.extend(draw(shapes)),
    lambda request, _: request.inputs[0].shape.reverse(),
    lambda request, draw: setattr(request.inputs[0], "datatype", draw(st.sampled_from(["INT32"]))),
    lambda request, draw: setattr(request.inputs[-1], "name", draw(st.sampled_from(["a", "b"]))),
    lambda request, _: request.raw_input_contents.reverse(),
    lambda request, draw: request.outputs.add(name=draw(st.sampled_from(["y", "sum"]))),
    lambda request, draw: setattr(
        request.parameters["priority"], "int64_param", draw(st.integers(0, 3))
    ),
    lambda request, draw: setattr(
        request.parameters["timeout"], "int64_param", draw(st.integers(0, 10**6))
    ),
    lambda request, _: request.inputs[0].contents.fp32_contents.extend([3, 4]),
    lambda request, _: request.ClearField("raw_input_contents"),
    lambda request, _: request.inputs.reverse(),
]


def assert_found_as_decoded(dataplane, known, request, *, cut):
    """What is found is what the thorough way would have understood; it may find nothing."""
    body = framed(request.SerializeToString())
    parts = [memoryview(body)[: cut % len(body)], memoryview(body)[cut % len(body) :]]
    found = known.find([part for part in parts if len(part)], len(body))
    if found is None:
        return
    kind, payloads = found
    decoded = decode_request(request, deadline_ns=None)
    model = dataplane.find(request.model_name, version=request.model_version)
    spec = model.loaded.spec
    check(decoded, spec=spec)
    assert kind.batcher is model.batcher
    assert (kind.priority, kind.timeout_ns) == (decoded.priority, decoded.timeout_ns)
    assert kind.rows == (decoded.inputs[spec.inputs[0].name].shape[0] if spec.batches else 1)
    got = [b"".join(p) if isinstance(p, list) else bytes(p) for p in payloads]
    assert got == [decoded.inputs[tensor.name].tobytes() for tensor in spec.inputs]
    assert kind.size_bytes == sum(map(len, got))
    assert request.id == ""
    assert decoded.outputs in ((), tuple(tensor.name for tensor in spec.outputs))


@settings(max_examples=300)
@given(st.lists(messages(), min_size=1, max_size=3), messages(), st.integers(0, 10**6))
def test_a_request_is_never_mistaken_for_another(seen, other, cut):
    still = Still()
    known = KnownRequests(still)
    for request in seen:
        try:
            decoded = decode_request(request, deadline_ns=None)
            model = still.find(request.model_name, version=request.model_version)
            check(decoded, spec=model.loaded.spec)
        except RidgelineError:
            continue  # it would have been refused
        known.learn(request.SerializeToString(), request, decoded)
    for request in (*seen, other):
        assert_found_as_decoded(still, known, request, cut=cut)
        assert_found_as_decoded(still, known, request, cut=0)


def test_outputs_are_put_together_as_the_thorough_way_does(dataplane):
    request = USUAL["several inputs"][0]
    [kind] = kinds(learned(dataplane, request))
    outputs = BatchOutputs(["sum", "difference"], [rows(7, 3), rows(7, 3, first=99)], count=7)
    body = b"".join(kind.template.body(outputs, 4, 6))

    response = service_pb2.ModelInferResponse.FromString(body[5:])
    assert body == framed(body[5:])
    assert [tuple(output.shape) for output in response.outputs] == [(2, 3), (2, 3)]
    assert response.raw_output_contents == [
        rows(7, 3)[4:6].tobytes(),
        rows(7, 3, first=99)[4:6].tobytes(),
    ]


# --- what is kept -------------------------------------------------------------------------------


def test_a_model_that_comes_or_goes_forgets_the_kinds(dataplane):
    request = message()
    body = memoryview(framed(request.SerializeToString()))
    known = learned(dataplane, request)
    assert known.find([body], len(body)) is not None

    dataplane.generation += 1
    assert known.find([body], len(body)) is None
    assert kinds(known) == []


def test_no_kind_is_kept_while_requests_are_traced(dataplane):
    dataplane.tracing.active = True
    assert kinds(learned(dataplane, message())) == []


def test_a_request_that_no_longer_fits_its_model_is_not_kept(dataplane):
    """Another version may have come since it was answered."""
    request = message()
    decoded = decode_request(request, deadline_ns=None)
    payload = request.SerializeToString()
    known = KnownRequests(dataplane)
    other = dataplane.find("two", version="")
    dataplane.find = lambda _name, *, version: other  # noqa: ARG005
    known.learn(payload, request, decoded)

    assert kinds(known) == []


def test_a_kind_is_kept_once(dataplane):
    request, other = USUAL["one row"]

    assert len(kinds(learned(dataplane, request, other, request, other))) == 1


def test_the_number_of_kinds_is_bounded(dataplane, monkeypatch):
    monkeypatch.setattr("serving.protocol.grpc_known._MAX_SIZES", 5)
    requests = []
    for number in range(300):  # the parameter is of the same size in all of them
        requests.append(message())
        requests[-1].parameters["timeout"].int64_param = 1000 + number
        assert len(kinds(learned(dataplane, *requests[-10:]))) <= 4
    many = [message(arrays={"x": rows(count, 2)}) for count in range(1, 33)]
    assert len(kinds(learned(dataplane, *many))) <= 5 * 4

    known = learned(dataplane, *requests)
    body = memoryview(framed(requests[-1].SerializeToString()))
    assert known.find([memoryview(framed(requests[0].SerializeToString()))], len(body)) is None


def test_every_now_and_then_a_new_kind_takes_the_place_of_an_old_one(dataplane):
    olds = []
    for number in range(4):
        olds.append(message())
        olds[-1].parameters["timeout"].int64_param = 1000 + number
    new = message()
    new.parameters["timeout"].int64_param = 2000
    known = learned(dataplane, *olds, *[new] * 64)

    assert len(kinds(known)) == 4
    body = memoryview(framed(new.SerializeToString()))
    assert known.find([body], len(body)) is not None
