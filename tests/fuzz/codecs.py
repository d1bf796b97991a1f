"""Coverage-guided fuzzing of what reads a client's bytes: only a RidgelineError may come out.

Usage: python tests/fuzz/codecs.py TARGET [atheris flags, such as -max_total_time=60]. Exits with
another code than 0 where a target raised anything else, took too long or too much memory; the bytes
that did it are written beside.
"""

import contextlib
import functools
import os
import sys

import atheris

os.environ["RIDGELINE_COMPILED"] = "0"  # coverage is of the sources

with atheris.instrument_imports(include=["serving.protocol", "ridgeline.datatypes"]):
    from connection import Client
    from google.protobuf.message import DecodeError
    from tritonclient.grpc import service_pb2

    from serving.protocol import grpc_codec, grpc_wire, http_codec, tensors

from ridgeline.datatypes import DATATYPES
from ridgeline.errors import RidgelineError

_MOST_BYTES = 1 << 20
_DATATYPES = list(DATATYPES)


def _head(header_length):
    return http_codec.Head(model_name="m", model_version="", header_length=header_length)


def http_json(data):
    """A body of JSON alone."""
    http_codec.decode_request(data, head=_head(None))


def http_binary(data):
    """A body whose first two bytes say how long its JSON is."""
    length = str(int.from_bytes(data[:2], "little"))
    http_codec.decode_request(data[2:], head=_head(length))


def grpc_request(data):
    """A ModelInferRequest."""
    try:
        message = service_pb2.ModelInferRequest.FromString(data)
    except DecodeError:
        return
    grpc_codec.decode_request(message, deadline_ns=None)


def grpc_framing(data):
    """The frame of a message, compressed or not."""
    encoding = (b"identity", b"gzip", b"deflate", b"br")[data[0] % 4] if data else b"identity"
    try:
        grpc_wire.message(data[1:], encoding=encoding, most=_MOST_BYTES)
    except grpc_wire.Refused:
        return


def raw_tensor(data):
    """Raw bytes of some datatype and shape."""
    reader = atheris.FuzzedDataProvider(data)
    datatype = _DATATYPES[reader.ConsumeIntInRange(0, len(_DATATYPES) - 1)]
    shape = tensors.checked_shape(reader.ConsumeIntListInRange(3, -2, 1 << 40), name="x")
    rest = reader.ConsumeBytes(reader.remaining_bytes())
    array = tensors.from_raw(rest, datatype_name=datatype, shape=shape, name="x")
    tensors.to_raw(array)


@functools.cache
def _client():
    return Client()


def http2_frames(data):
    """The frames of a connection."""
    _client().send(data)


TARGETS = {
    target.__name__: target
    for target in (http_json, http_binary, grpc_request, grpc_framing, raw_tensor, http2_frames)
}


def main():
    target = TARGETS[sys.argv.pop(1)]

    @atheris.instrument_func
    def one(data):
        with contextlib.suppress(RidgelineError):
            target(data)

    atheris.Setup([*sys.argv, "-timeout=10", "-rss_limit_mb=2048", "-max_len=4096"], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
