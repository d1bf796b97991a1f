"""Frames of HTTP/2 (RFC 9113), and gRPC requests made of them beforehand."""

import struct
from dataclasses import dataclass

from loadtest.wire.hpack import encode

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADER = struct.Struct(">HBBBI")  # length in 16 + 8 bits, type, flags, stream
HEADER_BYTES = HEADER.size
DATA, HEADERS, RST_STREAM, SETTINGS = 0x0, 0x1, 0x3, 0x4
PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0x6, 0x7, 0x8, 0x9
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20
HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE = 1, 2, 3, 4, 5
REFUSED_STREAM, CANCEL = 0x7, 0x8
DEFAULT_WINDOW_BYTES, DEFAULT_FRAME_BYTES = 65_535, 16_384
LARGEST_WINDOW_BYTES = 2**31 - 1
MESSAGE_PREFIX_BYTES = 5  # gRPC: a flag and the length before each message
_UP_TO_STREAM_BYTES = 5  # of a frame's header
_MOST_BYTES_OF_A_FRAME = 2**24 - 1
_SETTING = struct.Struct(">HI")


def frame(kind: int, *, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    """One frame."""
    length = len(payload)
    return HEADER.pack(length >> 8, length & 0xFF, kind, flags, stream) + payload


def number_frame(kind: int, *, stream: int = 0, number: int) -> bytes:
    """RST_STREAM or WINDOW_UPDATE, whose payload is one number."""
    return frame(kind, stream=stream, payload=number.to_bytes(4, "big"))


def settings_frame(settings: dict[int, int]) -> bytes:
    """SETTINGS with these values."""
    return frame(SETTINGS, payload=b"".join(_SETTING.pack(*item) for item in settings.items()))


def read_settings(payload: bytes) -> dict[int, int]:
    """What a SETTINGS frame holds."""
    whole = len(payload) - len(payload) % _SETTING.size
    return dict(_SETTING.iter_unpack(payload[:whole]))


@dataclass(frozen=True)
class Call:
    """A gRPC request. The deadline goes along as grpc-timeout; 0 stands for none."""

    path: str
    message: bytes
    deadline_ns: int = 0

    def headers(self, authority: str) -> list[tuple[str, str]]:
        """What is sent before the message; times in microseconds, of which gRPC takes 8 digits."""
        found = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", self.path),
            (":authority", authority),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
        ]
        if self.deadline_ns:
            found.append(("grpc-timeout", f"{max(1, self.deadline_ns // 1000)}u"))
        return found


class Prepared:
    """The bytes of a call around its stream number: `opening`, number, `joint`, number, `body`.

    That is for a body which fits into one DATA frame; another is cut as the peer allows.
    """

    def __init__(self, call: Call, *, authority: str) -> None:
        self.deadline_ns = call.deadline_ns
        self.block = encode(call.headers(authority))
        self.body = b"\0" + len(call.message).to_bytes(4, "big") + call.message
        self.size = len(self.body)
        self.opening = frame(HEADERS, flags=END_HEADERS, payload=self.block)[:_UP_TO_STREAM_BYTES]
        data = self.body[:_MOST_BYTES_OF_A_FRAME]
        begin = frame(DATA, flags=END_STREAM, payload=data)[:_UP_TO_STREAM_BYTES]
        self.joint = self.block + begin
