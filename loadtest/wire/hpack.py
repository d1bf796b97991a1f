"""Header blocks without a dynamic table: equal headers are equal bytes, and can be looked up."""

from collections.abc import Iterable

import hpack

MALFORMED_BLOCK = -2
NO_STATUS = -1
_MOST_KNOWN_BLOCKS = 4096
_HIGHEST_CODE = 16


def encode(headers: Iterable[tuple[str, str]], *, huffman: bool = True) -> bytes:
    """A block that leaves the peer's dynamic table alone."""
    fields = [hpack.NeverIndexedHeaderTuple(name, value) for name, value in headers]
    return bytes(hpack.Encoder().encode(fields, huffman=huffman))


def _status_field(value: str, *, huffman: bool) -> bytes:
    """The field without its first byte, which says how it may be indexed."""
    return encode([("grpc-status", value)], huffman=huffman)[1:]


# How the name is spelled, Huffman-coded or plain, and each code behind it, the length included.
_NAMES = {huffman: _status_field("", huffman=huffman)[:-1] for huffman in (True, False)}
_CODES = {
    _status_field(str(code), huffman=huffman)[len(name) :]: code
    for huffman, name in _NAMES.items()
    for code in range(_HIGHEST_CODE + 1)
}


class StatusReader:
    """Finds the gRPC status in the header blocks of one connection.

    A block is decoded by `hpack` once and then known. Refusals may carry a text that differs from
    one to the next: in those the status is found by how it is spelled, which is a hundred times
    as fast.
    """

    def __init__(self) -> None:
        self._decoder = hpack.Decoder()
        self._decoder.header_table_size = 0
        self._decoder.max_allowed_table_size = 0
        self._known: dict[bytes, int] = {}

    def read(self, block: bytes) -> int:
        """The gRPC code, NO_STATUS for a block without one, MALFORMED_BLOCK where it is none."""
        status = self._known.get(block)
        if status is None:
            status = _spelled(block)
            if status is None:
                status = self._decoded(block)
            if len(self._known) < _MOST_KNOWN_BLOCKS:
                self._known[block] = status
        return status

    def _decoded(self, block: bytes) -> int:
        try:
            headers = {str(name): str(value) for name, value in self._decoder.decode(block)}
        except (hpack.HPACKError, UnicodeDecodeError):
            return MALFORMED_BLOCK
        if headers.get(":status", "200") != "200":
            return MALFORMED_BLOCK  # an answer of HTTP's, not of gRPC's
        try:
            return int(headers.get("grpc-status", NO_STATUS))
        except ValueError:
            return MALFORMED_BLOCK


def _spelled(block: bytes) -> int | None:
    for name in _NAMES.values():
        place = block.find(name)
        if place >= 0:
            begin = place + len(name)
            for value_bytes in (2, 3):
                code = _CODES.get(block[begin : begin + value_bytes])
                if code is not None:
                    return code
    return None
