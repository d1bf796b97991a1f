"""What the fuzzer begins with: bodies that the conformance cases send, and the words in them."""

import contextlib
import json
from types import SimpleNamespace

from google.protobuf.message import Message

from conformance.answer import Answer
from conformance.case import Server
from conformance.cases import every_case

_MOST_BYTES = 2000  # of a seed: large ones only make the fuzzer slow
# Shared memory is not read here, and would be made for each of its cases.
_LEFT_OUT = ("shared-memory",)
_WORDS = (
    '"inputs"', '"outputs"', '"name"', '"datatype"', '"shape"', '"data"', '"parameters"',
    '"binary_data_size"', '"binary_data"', '"binary_data_output"', '"classification"', '"priority"',
    '"timeout"', '"id"', '"BOOL"', '"INT8"', '"UINT8"', '"INT16"', '"UINT16"', '"INT32"',
    '"UINT32"', '"INT64"', '"UINT64"', '"FP16"', '"FP32"', '"FP64"', '"BF16"', '"BYTES"', "true",
    "null", "-1", "127", "128", "255", "256", "32768", "65536", "2147483648", "4294967296",
    "9223372036854775808", "18446744073709551616", "1e39", "3.4028235677973366e38", "1.5",
)  # fmt: skip


class _Recorder:
    """Takes the place of both probes: keeps what is asked, and answers as if overloaded."""

    def __init__(self):
        self.bodies, self.messages = [], []

    def infer(self, _model, body, *, binary=None, header_length=None, **_options):
        """An inference over HTTP."""
        text = body if isinstance(body, bytes) else json.dumps(body).encode()
        length = len(text)
        if header_length is not None:
            length = int(header_length) if header_length.isdecimal() else length
        self.bodies.append((length, text + (binary or b""), binary is not None))
        return Answer("503", {"error": ""})

    def call(self, method, request=None, **_options):
        """A call over gRPC."""
        if method == "ModelInfer" and request:
            given = request.SerializeToString() if isinstance(request, Message) else request
            self.messages.append(given)
        return Answer("UNAVAILABLE", {"error": ""})

    def __getattr__(self, _name):
        return lambda *_, **__: Answer("503", {"error": ""})


def recorded():
    """The bodies of HTTP inferences, each with the length of its JSON, and the messages of gRPC."""
    recorder = _Recorder()
    server = Server(recorder, recorder)
    for case in every_case():
        if any(word in case.name for word in _LEFT_OUT) or "infer" not in case.name:
            continue
        with contextlib.suppress(KeyError, TypeError, AttributeError, IndexError, ValueError):
            case.ask(server)
    fits = [each for each in recorder.bodies if len(each[1]) <= _MOST_BYTES]
    return SimpleNamespace(
        texts=[body for _, body, is_binary in fits if not is_binary],
        binaries=[(length, body) for length, body, is_binary in fits if is_binary],
        messages=[each for each in recorder.messages if len(each) <= _MOST_BYTES],
    )


def dictionary():
    """Words of JSON requests, as libFuzzer reads them."""
    escaped = [word.replace("\\", "\\\\").replace('"', '\\"') for word in _WORDS]
    return "".join(f'"{word}"\n' for word in escaped)


def framed(payload):
    """A message behind its prefix."""
    return b"\0" + len(payload).to_bytes(4, "big") + payload
