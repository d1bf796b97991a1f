"""System and CUDA shared memory: register, infer through a region, unregister, and the bounds."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from tritonclient.grpc import service_pb2

from conformance.answer import ANY, Answer, Expected
from conformance.ask import get, post, rpc, steps
from conformance.case import Ask, Case, Server
from conformance.samples import message, output, raw, set_parameters
from conformance.shared_region import Region, region

_SYSTEM, _CUDA = "system_shared_memory", "cuda_shared_memory"
_ROW = np.array([[1.5, -2.0]], dtype=np.float32)
_PAGE = 4096  # servers map whole pages: offsets of registrations are multiples of it
_SIZE = 3 * _PAGE
_NAME = "conformance"
Told = Callable[[Region], dict[str, Ask]]


def cases() -> Iterator[Case]:
    """Every case of this file."""
    for protocol in ("http", "grpc"):
        yield from _life(protocol)
        yield from _odd_lives(protocol)
        yield from _refused_regions(protocol)
        yield from _inferences(protocol)
        yield from _refused_tensors(protocol)
        yield from _cuda(protocol)


def _good(protocol: str) -> str:
    return "200" if protocol == "http" else "OK"


def _bad(protocol: str) -> tuple[str, ...]:
    return (
        ("400", "404", "500")
        if protocol == "http"
        else ("INVALID_ARGUMENT", "NOT_FOUND", "INTERNAL", "ALREADY_EXISTS")
    )


def _register(
    protocol: str, key: str, *, name: str = _NAME, offset: int = 0, size: Any = _SIZE
) -> Ask:
    if protocol == "http":
        body = {"key": key, "offset": offset, "byte_size": size}
        return post(f"/v2/systemsharedmemory/region/{name}/register", body)
    request = service_pb2.SystemSharedMemoryRegisterRequest(
        name=name, key=key, offset=offset, byte_size=size
    )
    return rpc("SystemSharedMemoryRegister", request)


def _unregister(protocol: str, name: str = _NAME) -> Ask:
    if protocol == "http":
        middle = f"/region/{name}" if name else ""
        return post(f"/v2/systemsharedmemory{middle}/unregister")
    return rpc(
        "SystemSharedMemoryUnregister", service_pb2.SystemSharedMemoryUnregisterRequest(name=name)
    )


def _status(protocol: str, name: str = "") -> Ask:
    """The regions as name, offset and size; keys differ from run to run."""
    if protocol == "http":
        middle = f"/region/{name}" if name else ""
        ask = get(f"/v2/systemsharedmemory{middle}/status")
    else:
        request = service_pb2.SystemSharedMemoryStatusRequest(name=name)
        ask = rpc("SystemSharedMemoryStatus", request)

    def asked(server: Server) -> Answer:
        answer = ask(server)
        if answer.failed:
            return answer
        rows = answer.body if protocol == "http" else list(answer.body.get("regions", {}).values())
        kept = [
            [row.get("name"), int(row.get("offset", 0)), int(row.get("byte_size", 0))]
            for row in rows or []
        ]
        return Answer(answer.status, sorted(kept))

    return asked


def _with_region(protocol: str, told: Told) -> Ask:
    """The steps over a fresh region; nothing stays registered."""

    def asked(server: Server) -> Answer:
        _unregister(protocol, "")(server)
        with region(_SIZE) as memory:
            memory.write(raw(_ROW))
            try:
                return steps(**told(memory))(server)
            finally:
                _unregister(protocol, "")(server)

    return asked


def _case(protocol: str, name: str, told: Told, expected: Expected) -> Case:
    return Case(
        f"{protocol}/system-shared-memory/{name}",
        _with_region(protocol, told),
        expected,
        extension=_SYSTEM,
        models=("identity_fp32",),
    )


def _life(protocol: str) -> Iterator[Case]:
    ok = _good(protocol)
    registered = {"status": ok, "body": [[_NAME, 0, _SIZE]]}
    empty = {"status": ok, "body": []}

    def life(memory: Region) -> dict[str, Ask]:
        return {
            "before": _status(protocol),
            "register": _register(protocol, memory.key),
            "status": _status(protocol),
            "status_by_name": _status(protocol, _NAME),
            "unregister": _unregister(protocol),
            "after": _status(protocol),
        }

    yield _case(
        protocol,
        "register-status-unregister",
        life,
        Expected(
            (ok,),
            {"before": empty, "status": registered, "status_by_name": registered, "after": empty},
        ),
    )
    yield _case(
        protocol,
        "part-of-a-region",
        lambda memory: {
            "register": _register(protocol, memory.key, offset=_PAGE, size=64),
            "status": _status(protocol),
        },
        Expected((ok,), {"status": {"body": [[_NAME, _PAGE, 64]]}}),
    )
    yield _case(
        protocol,
        "unregister-all",
        lambda memory: {
            "one": _register(protocol, memory.key, name="one"),
            "unregister": _unregister(protocol, ""),
            "status": _status(protocol),
        },
        Expected((ok,), {"one": {"status": ok}, "status": empty}),
    )


def _odd_lives(protocol: str) -> Iterator[Case]:
    """What is unusual, and refused or not."""
    ok = _good(protocol)
    yield _case(
        protocol,
        "one-key-under-two-names",
        lambda memory: {
            "one": _register(protocol, memory.key, name="one"),
            "two": _register(protocol, memory.key, name="two"),
        },
        Expected((ok, *_bad(protocol)), {"one": {"status": ok}}),
    )
    yield _case(
        protocol,
        "offset-that-is-no-multiple-of-a-page",
        lambda memory: {"register": _register(protocol, memory.key, offset=64, size=64)},
        Expected((ok, *_bad(protocol))),
    )
    yield _case(
        protocol,
        "unregister-what-is-not-there",
        lambda _: {"unregister": _unregister(protocol, "nope")},
        Expected((ok,)),
    )
    yield _case(
        protocol,
        "status-of-what-is-not-there",
        lambda _: {"status": _status(protocol, "nope")},
        Expected(_bad(protocol)),
    )


def _refused_regions(protocol: str) -> Iterator[Case]:
    bad = Expected(_bad(protocol))

    def refused(name: str, told: Told) -> Case:
        return _case(protocol, name, told, bad)

    yield refused(
        "registered-twice",
        lambda memory: {
            "once": _register(protocol, memory.key),
            "twice": _register(protocol, memory.key),
        },
    )
    for name, key in (
        ("key-that-is-not-there", "/conformance-nope"),
        ("key-that-is-empty", ""),
        ("key-that-leaves-the-folder", "/../etc/passwd"),
        ("key-of-a-path", "/etc/passwd"),
        ("key-of-a-thousand-characters", "/" + "x" * 1000),
    ):
        yield refused(name, _registering(protocol, key=key))
    for name, offset, size in (
        ("larger-than-the-memory", 0, 1 << 30),
        ("offset-beyond-the-memory", 1 << 30, 1),
        ("offset-and-size-that-overflow", 2**63, 2**63),
        ("size-zero", 0, 0),
    ):
        yield refused(name, _registering(protocol, offset=offset, size=size))
    if protocol == "http":
        sizes: dict[str, Any] = {"size-negative": -1, "size-a-text": "many", "size-null": None}
        for name, wrong in sizes.items():
            yield refused(name, _registering(protocol, size=wrong))


def _registering(protocol: str, *, key: str | None = None, **place: Any) -> Told:
    """One registration, of the fresh region or of another key."""
    return lambda memory: {
        "register": _register(protocol, memory.key if key is None else key, **place)
    }


def _tensor(
    protocol: str, model: str, given: Mapping[str, Any], made: Mapping[str, Any] | None
) -> Ask:
    """An inference whose input, and output where told, lie in a region."""
    if protocol == "http":
        tensor = {"name": "INPUT0", "datatype": "FP32", "shape": [1, 2], "parameters": dict(given)}
        body: dict[str, Any] = {"inputs": [tensor]}
        if made is not None:
            body["outputs"] = [{"name": "OUTPUT0", "parameters": dict(made)}]
        return lambda server: server.http.infer(model, body)
    request = message(model)
    tensor = request.inputs.add(name="INPUT0", datatype="FP32", shape=[1, 2])
    set_parameters(tensor.parameters, given)
    if made is not None:
        set_parameters(request.outputs.add(name="OUTPUT0").parameters, made)
    return rpc("ModelInfer", request)


def _place(region: str = _NAME, size: Any = 8, offset: Any = None) -> dict[str, Any]:
    place = {"shared_memory_region": region, "shared_memory_byte_size": size}
    return place if offset is None else {**place, "shared_memory_offset": offset}


def _inferences(protocol: str) -> Iterator[Case]:
    ok = _good(protocol)
    answered = {"status": ok, "body": {"outputs": [output(_ROW, datatype="FP32")]}}
    yield _case(
        protocol,
        "infer-from-a-region",
        lambda memory: {
            "register": _register(protocol, memory.key),
            "infer": _tensor(protocol, "identity_fp32", _place(), None),
        },
        Expected((ok,), {"infer": answered}),
    )

    def there_and_back(memory: Region) -> dict[str, Ask]:
        return {
            "register": _register(protocol, memory.key),
            "infer": _tensor(protocol, "identity_fp32", _place(), _place(offset=64)),
            "read": lambda _: Answer(ok, memory.read(8, at=64).hex()),
        }

    yield _case(
        protocol,
        "infer-into-a-region",
        there_and_back,
        Expected((ok,), {"infer": {"status": ok}, "read": {"body": raw(_ROW).hex()}}),
    )

    def shifted(memory: Region) -> dict[str, Ask]:
        memory.write(raw(_ROW), at=_PAGE + 36)
        return {
            "register": _register(protocol, memory.key, offset=_PAGE, size=128),
            "infer": _tensor(protocol, "identity_fp32", _place(offset=36), None),
        }

    yield _case(protocol, "offsets-add-up", shifted, Expected((ok,), {"infer": answered}))
    yield _case(
        protocol,
        "output-region-larger-than-the-output",
        lambda memory: {
            "register": _register(protocol, memory.key),
            "infer": _tensor(protocol, "identity_fp32", _place(), _place(size=128, offset=64)),
        },
        Expected((ok,)),
    )


def _inferring(
    protocol: str, given: Mapping[str, Any], made: Mapping[str, Any] | None = None
) -> Told:
    """An inference over the fresh region, which is registered as a whole."""
    return lambda memory: {
        "register": _register(protocol, memory.key),
        "infer": _tensor(protocol, "identity_fp32", given, made),
    }


def _refused_tensors(protocol: str) -> Iterator[Case]:
    bad = Expected(_bad(protocol))
    good = _place()
    for name, given, made in (
        ("input-in-an-unknown-region", _place("nope"), None),
        ("output-in-an-unknown-region", good, _place("nope")),
        ("input-beyond-the-region", _place(offset=_SIZE - 4), None),
        ("input-offset-beyond-the-region", _place(offset=_SIZE), None),
        ("input-offset-that-overflows", _place(offset=2**63 - 8), None),
        ("input-offset-negative", _place(offset=-8), None),
        ("input-size-too-small", _place(size=4), None),
        ("input-size-too-large", _place(size=12), None),
        ("input-size-beyond-the-region", _place(size=1 << 40), None),
        ("input-without-a-size", {"shared_memory_region": _NAME}, None),
        ("input-size-a-text", _place(size="8"), None),
        ("output-beyond-the-region", good, _place(offset=_SIZE - 4)),
        ("output-size-too-small", good, _place(size=4)),
        ("output-offset-that-overflows", good, _place(offset=2**63 - 8)),
        ("output-without-a-size", good, {"shared_memory_region": _NAME}),
    ):
        yield _case(protocol, name, _inferring(protocol, given, made), bad)
    yield _case(
        protocol,
        "region-that-was-unregistered",
        lambda memory: {
            "register": _register(protocol, memory.key),
            "unregister": _unregister(protocol),
            "infer": _tensor(protocol, "identity_fp32", good, None),
        },
        bad,
    )


def _cuda(protocol: str) -> Iterator[Case]:
    ok = Expected((_good(protocol),))
    refused = Expected(
        ("400", "500", "501")
        if protocol == "http"
        else ("INVALID_ARGUMENT", "INTERNAL", "UNIMPLEMENTED"),
        {"error": ANY},
    )
    handle = {"b64": "AAAA" * 21 + "AA=="}
    if protocol == "http":
        body = {"raw_handle": handle, "device_id": 0, "byte_size": 64}
        register = post("/v2/cudasharedmemory/region/conformance/register", body)
        status = get("/v2/cudasharedmemory/status")
        unregister = post("/v2/cudasharedmemory/region/conformance/unregister")
        everything = post("/v2/cudasharedmemory/unregister")
    else:
        request = service_pb2.CudaSharedMemoryRegisterRequest(
            name="conformance", raw_handle=b"\0" * 64, device_id=0, byte_size=64
        )
        register = rpc("CudaSharedMemoryRegister", request)
        status = rpc("CudaSharedMemoryStatus")
        one = service_pb2.CudaSharedMemoryUnregisterRequest(name="conformance")
        unregister = rpc("CudaSharedMemoryUnregister", one)
        everything = rpc("CudaSharedMemoryUnregister")
    for name, ask, expected in (
        ("status", status, ok),
        ("handle-that-is-none", register, refused),
        ("unregister-what-is-not-there", unregister, ok),
        ("unregister-all", everything, ok),
    ):
        yield Case(f"{protocol}/cuda-shared-memory/{name}", ask, expected, extension=_CUDA)
