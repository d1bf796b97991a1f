"""HTTP as such: routes that are none, methods, framing, compression, connections."""

import gzip
import json
import zlib
from collections.abc import Iterator

import numpy as np

from conformance.answer import Answer, Expected
from conformance.ask import by_method, get
from conformance.case import Ask, Case, Server
from conformance.samples import json_input, output

_ROW = np.array([[1.5, -2.0]], dtype=np.float32)
_BODY = json.dumps({"inputs": [json_input(_ROW, datatype="FP32")]}).encode()
_PATH = "/v2/models/identity_fp32/infer"
_GOOD = Expected(("200",), {"outputs": [output(_ROW, datatype="FP32")]})
_MOST = ("identity_fp32",)


def cases() -> Iterator[Case]:
    """Every case of this file."""
    yield from _unknown()
    yield from _methods()
    yield from _framing()
    yield from _compression()


def _unknown() -> Iterator[Case]:
    gone = Expected(("404", "400", "405"))
    for name, path in (
        ("root", "/"),
        ("v1", "/v1"),
        ("v2-nonsense", "/v2/nonsense"),
        ("models-alone", "/v2/models"),
        ("model-nonsense", "/v2/models/simple/nonsense"),
        ("version-nonsense", "/v2/models/simple/versions/1/nonsense"),
        ("versions-alone", "/v2/models/simple/versions"),
        ("double-slash", "//v2//health//live"),
        ("dots", "/v2/../v2/health/live/nothing"),
        ("encoded-slash", "/v2/models%2Fsimple/nothing"),
        ("null-byte", "/v2/models/%00"),
        ("invalid-escape", "/v2/models/%zz"),
        ("bytes-that-are-no-text", "/v2/models/%ff%fe"),
        ("very-long", "/v2/models/" + "x" * 4000),
    ):
        yield Case(f"http/routes/{name}", get(path), gone)
    yield Case("http/routes/query-string", get("/v2/health/live?x=1"), Expected(("200", "404")))
    yield Case("http/routes/trailing-slash", get("/v2/health/live/"), Expected(("200", "404")))


def _methods() -> Iterator[Case]:
    for name, method, path in (
        ("metadata-by-post", "POST", "/v2/models/simple"),
        ("ready-by-post", "POST", "/v2/models/simple/ready"),
        ("config-by-post", "POST", "/v2/models/simple/config"),
        ("stats-by-post", "POST", "/v2/models/simple/stats"),
        ("index-by-get", "GET", "/v2/repository/index"),
        ("load-by-get", "GET", "/v2/repository/models/simple/load"),
        ("unload-by-get", "GET", "/v2/repository/models/simple/unload"),
        ("shared-memory-status-by-post", "POST", "/v2/systemsharedmemory/status"),
        ("shared-memory-register-by-get", "GET", "/v2/systemsharedmemory/region/x/register"),
        ("cuda-status-by-post", "POST", "/v2/cudasharedmemory/status"),
        ("logging-by-put", "PUT", "/v2/logging"),
        ("trace-by-delete", "DELETE", "/v2/trace/setting"),
    ):
        yield Case(f"http/methods/{name}", by_method(method, path), Expected(("405", "404")))
    yield Case("http/methods/head", by_method("HEAD", "/v2/health/live"), Expected(("200", "405")))
    yield Case(
        "http/methods/options", by_method("OPTIONS", "/v2/health/live"), Expected(("200", "405"))
    )


def _raw(head: bytes, body: bytes = b"") -> Ask:
    """Bytes as they are, and only the status of what comes back, or that nothing does."""

    def asked(server: Server) -> Answer:
        status, _, data = server.http.raw(head + body)
        try:
            table = json.loads(data) if data else None
        except ValueError:
            table = None
        if isinstance(table, dict) and "outputs" in table:
            for made in table["outputs"]:
                made["hex"] = np.array(made.pop("data"), np.float32).tobytes().hex()
            return Answer(str(status), table)
        return Answer(str(status))

    return asked


def _head(*fields: str, version: str = "HTTP/1.1", method: str = "POST") -> bytes:
    lines = [f"{method} {_PATH} {version}", "Host: x", "Connection: close", *fields]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


def _framing() -> Iterator[Case]:
    length = f"Content-Length: {len(_BODY)}"
    chunked = _chunks(_BODY, size=len(_BODY))
    small = _chunks(_BODY, size=7)
    refused = ("400", "411", "413", "414", "431", "500", "501", "505", "NO_ANSWER")
    for name, ask, expected in (
        ("content-length", _raw(_head(length), _BODY), _GOOD),
        ("field-names-in-upper-case", _raw(_head(length.upper()), _BODY), _GOOD),
        ("one-chunk", _raw(_head("Transfer-Encoding: chunked"), chunked), _GOOD),
        ("many-chunks", _raw(_head("Transfer-Encoding: chunked"), small), _GOOD),
        ("http-1-0", _raw(_head(length, version="HTTP/1.0"), _BODY), _GOOD),
        (
            "expect-100-continue",
            _raw(_head(length, "Expect: 100-continue"), _BODY),
            Expected(("200", "100")),
        ),
        ("no-http", _raw(b"hello\r\n\r\n"), Expected(refused)),
        ("http-9", _raw(_head(length, version="HTTP/9.9"), _BODY), Expected(("200", *refused))),
        ("content-length-a-text", _raw(_head("Content-Length: x"), _BODY), Expected(refused)),
        ("content-length-negative", _raw(_head("Content-Length: -1"), _BODY), Expected(refused)),
        (
            "content-length-twice",
            _raw(_head(length, "Content-Length: 1"), _BODY),
            Expected(refused),
        ),
        (
            "chunk-size-a-text",
            _raw(_head("Transfer-Encoding: chunked"), b"zz\r\n"),
            Expected(refused),
        ),
        (
            "field-without-a-colon",
            _raw(_head("nonsense", length), _BODY),
            Expected(("200", *refused)),
        ),
        (
            "field-of-100-kilobytes",
            _raw(_head("x: " + "y" * 100_000, length), _BODY),
            Expected(("200", *refused)),
        ),
        (
            "a-thousand-fields",
            _raw(_head(*(["x: y"] * 1000), length), _BODY),
            Expected(("200", *refused)),
        ),
    ):
        yield Case(f"http/framing/{name}", ask, expected, models=_MOST)


def _chunks(data: bytes, *, size: int) -> bytes:
    parts = [data[start : start + size] for start in range(0, len(data), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def _compression() -> Iterator[Case]:
    def case(name: str, encoding: str, body: bytes, expected: Expected) -> Case:
        def asked(server: Server) -> Answer:
            return server.http.infer("identity_fp32", body, headers={"Content-Encoding": encoding})

        return Case(f"http/compression/request-{name}", asked, expected, models=_MOST)

    bad = Expected(("400", "415", "501"))
    yield case("gzip", "gzip", gzip.compress(_BODY), _GOOD)
    yield case("deflate", "deflate", zlib.compress(_BODY), _GOOD)
    yield case("identity", "identity", _BODY, _GOOD)
    yield case("that-is-not-compressed", "gzip", _BODY, bad)
    yield case("that-is-cut-off", "gzip", gzip.compress(_BODY)[:-10], bad)
    yield case("unknown-encoding", "br", _BODY, bad)
    for encoding in ("gzip", "deflate"):
        yield Case(
            f"http/compression/response-{encoding}",
            _unpacked(encoding),
            Expected(("200",), {"encoding": encoding, "outputs": 1}),
            models=_MOST,
        )
    yield Case(
        "http/compression/response-of-unknown-encoding",
        _unpacked("br"),
        Expected(("200",), {"encoding": "identity", "outputs": 1}),
        models=_MOST,
    )


def _unpacked(encoding: str) -> Ask:
    """How the response to a request that accepts an encoding is packed, and what is inside."""

    def asked(server: Server) -> Answer:
        array = np.zeros((1, 2000), dtype=np.float32)  # a short answer need not be compressed
        body = {"inputs": [json_input(array, datatype="FP32")]}
        status, fields, data = server.http.exchange(
            "POST", _PATH, body=body, headers={"Accept-Encoding": encoding}
        )
        packed = fields.get("Content-Encoding", "identity")
        if packed == "gzip":
            data = gzip.decompress(data)
        elif packed == "deflate":
            data = zlib.decompress(data)
        return Answer(
            str(status), {"encoding": packed, "outputs": len(json.loads(data).get("outputs", []))}
        )

    return asked
