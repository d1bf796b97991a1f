"""Coverage-guided fuzzing of what reads a client's bytes: nothing but what is right may come out.

Usage: python tests/fuzz/codecs.py TARGET [atheris flags, such as -max_total_time=60]. Only a
RidgelineError may come out, and what is accepted, refused and read is held to what it must be
(`judging`). Begins with what the conformance cases send, and changes it as what it is (`mutation`,
`frames`). Exits with another code than 0 where something else came out, or it took too long or too
much memory; the bytes that did it are written beside.
"""

import functools
import gzip
import os
import resource
import sys
import tempfile
import zlib
from pathlib import Path

import atheris

os.environ["RIDGELINE_COMPILED"] = "0"  # coverage is of the sources

with atheris.instrument_imports(include=["serving.protocol", "ridgeline.datatypes"]):
    import connection
    from google.protobuf.message import DecodeError
    from tritonclient.grpc import service_pb2

    from serving.protocol import grpc_codec, grpc_wire, http_codec, tensors

import expected
import judging
import mutation
import seeds

_MOST_BYTES = 1 << 20
_ENCODINGS = (b"identity", b"gzip", b"deflate", b"br")


def _decoded(body, *, header_length, any_number=False):
    head = http_codec.Head(
        model_name="m", model_version="", header_length=header_length, any_number=any_number
    )
    return http_codec.decode_request(body, head=head).request.inputs


def _http(body, header_length):
    judging.hold(
        lambda: _decoded(body, header_length=header_length),
        refer=lambda: expected.http_request(body, header_length),
    )


def http_json(data):
    """A body of JSON alone; also as Triton reads it."""
    _http(data, None)
    judging.refusable(lambda: _decoded(data, header_length=None, any_number=True))


def http_binary(data):
    """A body whose first two bytes say how long its JSON is."""
    _http(data[2:], str(int.from_bytes(data[:2], "little")))


def grpc_request(data):
    """A ModelInferRequest."""
    try:
        message = service_pb2.ModelInferRequest.FromString(data)
    except DecodeError:
        return
    judging.hold(
        lambda: grpc_codec.decode_request(message, deadline_ns=None).inputs,
        refer=lambda: expected.grpc_request(message),
    )


def grpc_framing(data):
    """Bodies of messages, compressed or not: one message, and a stream that comes in pieces."""
    encoding, cut, body = _ENCODINGS[data[0] % 4 if data else 0], sum(data[1:2]), data[2:]
    judging.hold_value(
        lambda: grpc_wire.message(body, encoding=encoding, most=_MOST_BYTES),
        refer=lambda: expected.grpc_message(body, encoding=encoding, most=_MOST_BYTES),
        refusal=grpc_wire.Refused,
    )

    def in_pieces():
        reader = grpc_wire.MessageReader(most=_MOST_BYTES)
        pieces = [body[:cut], body[cut : 2 * cut], body[2 * cut :]]
        return [each for piece in pieces for each in reader.feed(memoryview(piece))]

    judging.hold_value(
        in_pieces,
        refer=lambda: expected.grpc_messages(body, most=_MOST_BYTES),
        refusal=grpc_wire.Refused,
    )


def raw_tensor(data):
    """Raw bytes of some datatype and shape."""
    reader = atheris.FuzzedDataProvider(data)
    datatype = reader.PickValueInList(list(expected.DATATYPES))
    sizes = reader.ConsumeIntListInRange(
        reader.ConsumeIntInRange(0, 3), *reader.PickValueInList([(0, 3)] * 3 + [(-2, 1 << 40)])
    )
    rest = reader.ConsumeBytes(reader.remaining_bytes())
    if sizes and reader.ConsumeBool():
        sizes[-1] = len(rest)

    def read():
        shape = tensors.checked_shape(sizes, name="x")
        array = tensors.from_raw(rest, datatype_name=datatype, shape=shape, name="x")
        assert datatype == "BOOL" or tensors.to_raw(array) == rest
        return {"x": array}

    def refer():
        tensor = expected.of_raw(rest, datatype=datatype, shape=expected.shape_of(sizes))
        return expected.Request({"x": tensor}, is_plain=True)

    judging.hold(read, refer=refer)


@functools.cache
def _client():
    return connection.Client()


def http2_frames(data):
    """The frames of a connection; the first byte says in which pieces they come."""
    _client().send(data)


def _binary_seeds():
    binaries = seeds.recorded().binaries
    return [min(length, 65535).to_bytes(2, "little") + body for length, body in binaries]


def _framing_seeds():
    message = seeds.recorded().messages[0]
    squeezed = [squeeze(message) for squeeze in (gzip.compress, zlib.compress)]
    bodies = [b"\0", seeds.framed(b""), seeds.framed(message) * 2]
    bodies += [b"\1" + seeds.framed(each)[1:] for each in squeezed]
    heads = [bytes([encoding, cut]) for encoding in range(4) for cut in (0, 4)]
    return [head + body for head in heads for body in bodies]


# Each with what it begins with, and what changes it as what it is.
TARGETS = {
    "http_json": (http_json, lambda: seeds.recorded().texts, mutation.mutated_json),
    "http_binary": (http_binary, _binary_seeds, mutation.mutated_binary),
    "grpc_request": (grpc_request, lambda: seeds.recorded().messages, mutation.mutated_message),
    "grpc_framing": (grpc_framing, _framing_seeds, mutation.mutated_framing),
    "raw_tensor": (raw_tensor, list, None),
    "http2_frames": (http2_frames, connection.mutate.seeds, connection.mutate),
}


def main():
    target, make_seeds, mutator = TARGETS[sys.argv.pop(1)]
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder, "corpus")
        corpus.mkdir()
        for number, seed in enumerate(make_seeds()):
            (corpus / str(number)).write_bytes(seed)
        words = Path(folder, "words")
        words.write_text(seeds.dictionary())
        # What counts is the most memory ever held, and that of a process begins with its parent's.
        held_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        limits = ("-timeout=10", f"-rss_limit_mb={held_mb + 2048}", "-max_len=4096")
        limits += (f"-dict={words}",)
        own = {"custom_mutator": mutator} if mutator else {}
        atheris.Setup([*sys.argv, *limits, str(corpus)], atheris.instrument_func(target), **own)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
