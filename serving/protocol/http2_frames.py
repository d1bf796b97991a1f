"""The frames of HTTP/2 (RFC 9113): their types, flags and sizes, and what is wrong with some."""

import struct
from collections.abc import Callable, Iterator
from enum import IntEnum
from typing import Final

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADER_BYTES: Final = 9
# A header: 24 bits of length with 8 of type, flags, stream.
_HEADER, _SETTING, _WORD = struct.Struct(">IBI"), struct.Struct(">HI"), struct.Struct(">I")
# With these types the compiler keeps numbers out of objects.
read_header: Final[Callable[[bytes, int], tuple[int, int, int]]] = _HEADER.unpack_from
header: Final[Callable[[int, int, int], bytes]] = _HEADER.pack
read_settings: Final[Callable[[bytes], Iterator[tuple[int, int]]]] = _SETTING.iter_unpack
setting: Final[Callable[[int, int], bytes]] = _SETTING.pack
read_word: Final[Callable[[bytes], tuple[int]]] = _WORD.unpack_from
word: Final[Callable[[int], bytes]] = _WORD.pack

SETTING_BYTES: Final = 6
PRIORITY_BYTES: Final = 5
_LEAST_GOAWAY_BYTES: Final = 8

# Frame types (section 6).
DATA: Final = 0x0
HEADERS: Final = 0x1
PRIORITY: Final = 0x2
RST_STREAM: Final = 0x3
SETTINGS: Final = 0x4
PUSH_PROMISE: Final = 0x5
PING: Final = 0x6
GOAWAY: Final = 0x7
WINDOW_UPDATE: Final = 0x8
CONTINUATION: Final = 0x9
# Whether a frame speaks of the whole connection, and its size, where these are laid down.
_OF_CONNECTION = {
    **dict.fromkeys((DATA, HEADERS, PRIORITY, RST_STREAM, CONTINUATION), False),
    **dict.fromkeys((SETTINGS, PING, GOAWAY), True),
}
_SIZES = {PRIORITY: 5, RST_STREAM: 4, PING: 8, WINDOW_UPDATE: 4}
ACK: Final = 0x1
END_STREAM: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
WITH_PRIORITY: Final = 0x20
STREAM_BITS: Final = 0x7FFFFFFF

# Settings by their numbers (section 6.5.2).
_ENABLE_PUSH: Final = 2
MAX_CONCURRENT_STREAMS: Final = 3
INITIAL_WINDOW_SIZE: Final = 4
MAX_FRAME_SIZE: Final = 5
MAX_HEADER_LIST_SIZE: Final = 6
DEFAULT_WINDOW: Final = 65535
DEFAULT_FRAME_BYTES: Final = 16384
MAX_FRAME_BYTES: Final = 2**24 - 1
MAX_WINDOW: Final = 2**31 - 1


class ErrorCode(IntEnum):
    """Why a stream or a connection ends (section 7)."""

    NO_ERROR = 0x0
    PROTOCOL_ERROR = 0x1
    FLOW_CONTROL_ERROR = 0x3
    STREAM_CLOSED = 0x5
    FRAME_SIZE_ERROR = 0x6
    REFUSED_STREAM = 0x7
    CANCEL = 0x8
    COMPRESSION_ERROR = 0x9
    ENHANCE_YOUR_CALM = 0xB


class ConnectionFault(Exception):
    """The peer broke the protocol: the connection ends."""

    def __init__(self, code: ErrorCode, text: str) -> None:
        super().__init__(text)
        self.code = code


def check_frame(kind: int, number: int, *, size: int) -> None:
    """Raises ConnectionFault for a frame on a stream, or of a size, that its type forbids."""
    if _OF_CONNECTION.get(kind, not number) != (not number):
        text = f"a frame of type {kind} on stream {number}"
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, text)
    if _SIZES.get(kind, size) != size or (kind == GOAWAY and size < _LEAST_GOAWAY_BYTES):
        text = f"a frame of type {kind} and {size} bytes"
        raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, text)


def check_setting(key: int, value: int) -> None:
    """Raises ConnectionFault for a value that a setting cannot have."""
    if key == INITIAL_WINDOW_SIZE and value > MAX_WINDOW:
        raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "a window out of range")
    if key == MAX_FRAME_SIZE and not DEFAULT_FRAME_BYTES <= value <= MAX_FRAME_BYTES:
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a frame size out of range")
    if key == _ENABLE_PUSH and value > 1:
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "ENABLE_PUSH out of range")


def without_padding(flags: int, payload: bytes) -> bytes:
    """The content of a frame. Raises ConnectionFault where it is padding alone, and more."""
    if not flags & PADDED:
        return payload
    if not payload or payload[0] >= len(payload):
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "more padding than payload")
    return payload[1 : len(payload) - payload[0]]
