"""Header fields of HTTP/2 as blocks: read in their order, written so that any connection may."""

import struct
from collections.abc import Callable, Iterable
from typing import Any, Final, cast

import hpack

from serving.protocol.http2_frames import END_HEADERS, END_STREAM, HEADERS

Fields = Iterable[tuple[bytes, bytes]]
MAX_HEADER_BYTES: Final = 32 * 1024
_KNOWN_BLOCKS: Final = 256
_MAX_KNOWN_BYTES: Final = 4096
_EMPTY_TABLE = b"\x20"  # we keep no table, as a client that keeps none wants to be told


class Envelope:
    """The constant frames of an answer: its header fields, made ready for any stream."""

    def __init__(self, *, head: Fields, trailers: Fields) -> None:
        self.head, self.trailers = stateless_block(head), stateless_block(trailers)
        opening = struct.Struct(f">IBI{len(self.head)}sIBI").pack
        closing = struct.Struct(f">IBI{len(self.trailers)}s").pack
        head_word, trailers_word = (
            len(block) << 8 | HEADERS for block in (self.head, self.trailers)
        )

        def before(number: int, size: int) -> bytes:
            return opening(head_word, END_HEADERS, number, self.head, size << 8, 0, number)

        def after(number: int) -> bytes:
            return closing(trailers_word, END_HEADERS | END_STREAM, number, self.trailers)

        self.before, self.after = before, after


class HeaderBlocks:
    """Decodes header blocks, in the order in which they came; equal ones are decoded once.

    A block that left the dynamic table as it was means the same until the table changes: what
    `read` made of it is kept in `known` till then.
    """

    def __init__(self, read: Callable[[Fields], Any]) -> None:
        self._read = read
        self._decoder = hpack.Decoder(max_header_list_size=MAX_HEADER_BYTES)
        self.known: dict[bytes, Any] = {}  # blocks that mean what they meant

    def decode(self, block: bytes) -> Any:
        """What `read` makes of the fields of a block that is not in `known`.

        Raises hpack.HPACKError for a malformed one.
        """
        if len(block) > MAX_HEADER_BYTES:
            raise hpack.OversizedHeaderListError(f"a header block of {len(block)} bytes")
        size, count, newest = self._table_state()
        head = self._read(cast(Fields, self._decoder.decode(block, raw=True)))
        size_now, count_now, newest_now = self._table_state()
        if newest_now is not newest or (size_now, count_now) != (size, count):
            self.known.clear()
        elif len(block) <= _MAX_KNOWN_BYTES:
            if len(self.known) >= _KNOWN_BLOCKS:
                self.known.clear()
            self.known[block] = head
        return head

    def _table_state(self) -> tuple[int, int, object]:
        """Differs after every change: a new entry, an object of its own, comes first."""
        table = self._decoder.header_table
        entries: Any = table.dynamic_entries  # a compiled tuple type would be a copy of the entry
        return table.maxsize, len(entries), entries[0] if entries else None


def stateless_block(fields: Fields) -> bytes:
    """A header block that neither reads nor changes a dynamic table: made once, sent anywhere."""
    block: bytes = hpack.Encoder().encode(
        [hpack.NeverIndexedHeaderTuple(name, value) for name, value in fields], huffman=False
    )
    return _EMPTY_TABLE + block
