"""HTTP/2 as bytes: frames taken apart, changed, put together, and what a server must make of them.

`fault_of` and `calls_of` tell RFC 9113 a second time, as far as it speaks of frames' forms.
"""

import random
import struct
from dataclasses import dataclass, field

import atheris

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS = range(5)
PUSH, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(5, 10)
END_STREAM = ACK = 0x1
END_HEADERS, PADDED, WITH_PRIORITY = 0x4, 0x8, 0x20
_HEADER_BYTES = 9
_BLIND_SHARE = 0.15
_SIZES = {PRIORITY: 5, RST_STREAM: 4, PING: 8, WINDOW_UPDATE: 4}
_OF_STREAMS = (DATA, HEADERS, PRIORITY, RST_STREAM, CONTINUATION)
_OF_CONNECTION = (SETTINGS, PING, GOAWAY)
_DISTURBING = (RST_STREAM, SETTINGS, GOAWAY, CONTINUATION, WINDOW_UPDATE)  # calls, or how we tell
# Values at which windows and sizes of frames have their limits.
_EDGES = (0, 1, 16383, 16384, 65535, (1 << 24) - 1, 1 << 24, (1 << 31) - 1, 1 << 31)


@dataclass(frozen=True)
class Frame:
    """One frame; `size` is what its header says, `payload` what came."""

    kind: int
    flags: int
    number: int
    payload: bytes
    size: int

    @property
    def whole(self):
        """Whether all of it came."""
        return len(self.payload) == self.size


def frame(kind, flags, number, payload=b"", *, more=0):
    """A frame as bytes, that says `more` bytes than it has."""
    size = max(0, min((1 << 24) - 1, len(payload) + more))
    return struct.pack(">IBI", size << 8 | kind, flags, number & 0xFFFFFFFF) + payload


def frames_of(wire):
    """The frames in it; the last may be cut off, and less than a header is none."""
    found = []
    while len(wire) >= _HEADER_BYTES:
        first, flags, number = struct.unpack_from(">IBI", wire)
        size, number = first >> 8, number & 0x7FFFFFFF
        payload = wire[_HEADER_BYTES : _HEADER_BYTES + size]
        found.append(Frame(first & 0xFF, flags, number, payload, size))
        wire = wire[_HEADER_BYTES + size :]
    return found


# --- what a server must make of them --------------------------------------------------------------


def fault_of(frames, *, most_frame_bytes, most_header_bytes):
    """Why the connection must end, "" where the frames' forms are right, and the frames before."""
    block_of = None  # the stream whose header block goes on
    for place, each in enumerate(frames):
        most_bytes = most_frame_bytes if each.kind == DATA else most_header_bytes
        fault = "a frame that is too large" if each.size > most_bytes else ""
        if not fault and not each.whole:
            break
        goes_on = each.number == block_of if each.kind == CONTINUATION else block_of is None
        fault = fault or ("" if goes_on else "CONTINUATION out of place") or _fault_of_one(each)
        if fault:
            return fault, frames[:place]
        if each.kind in (HEADERS, CONTINUATION):
            block_of = None if each.flags & END_HEADERS else each.number
    return "", frames


def _fault_of_one(each):
    size = each.size
    if each.kind in (_OF_CONNECTION if each.number else _OF_STREAMS):
        return "a stream that is none of the frame's"
    if _SIZES.get(each.kind, size) != size or (each.kind == GOAWAY and size < 8):
        return "a size that is none of the frame's"
    if each.kind == PUSH:
        return "a client that pushes"
    if each.kind in (DATA, HEADERS) and content_of(each) is None:
        return "padding alone"
    if each.kind == WINDOW_UPDATE and not int.from_bytes(each.payload, "big") & 0x7FFFFFFF:
        return "a window wider by nothing"
    if each.kind == SETTINGS:
        return _fault_of_settings(each)
    return ""


def _fault_of_settings(each):
    if each.size % 6 or (each.flags & ACK and each.size):
        return "settings of a wrong size"
    for key, value in struct.iter_unpack(">HI", each.payload):
        if (key == 2 and value > 1) or (key == 4 and value >= 1 << 31):
            return "a setting out of range"
        if key == 5 and not 16384 <= value < 1 << 24:
            return "a setting out of range"
    return ""


def content_of(each):
    """The content of DATA or HEADERS without padding and priority; None: there is too little."""
    payload = each.payload
    if each.flags & PADDED:
        if not payload or payload[0] >= len(payload):
            return None
        payload = payload[1 : len(payload) - payload[0]]
    if each.kind == HEADERS and each.flags & WITH_PRIORITY:
        return payload[5:] if len(payload) >= 5 else None
    return payload


@dataclass
class Sent:
    """A call as it was sent: its header block, its body, and whether it came to its end."""

    block: bytes
    body: bytes = b""
    ended: bool = False
    pieces: int = field(default=0)


def calls_of(frames):
    """The calls by stream, where nothing disturbs them; None where something might."""
    calls, last = {}, 0
    for each in frames:
        if not each.whole or each.kind in _DISTURBING:
            return None
        if each.kind == HEADERS:
            if not each.flags & END_HEADERS:
                return None
            if each.number > last:
                last = each.number
                calls[last] = Sent(content_of(each))
            if each.number not in calls:
                return None
            calls[each.number].ended |= bool(each.flags & END_STREAM)
        elif each.kind == DATA and each.number in calls:
            call = calls[each.number]
            call.body += content_of(each)
            call.pieces += 1
            call.ended = call.ended or bool(each.flags & END_STREAM)
    return calls


# --- mutations ------------------------------------------------------------------------------------


class Mutator:
    """Changes wires frame by frame; `blocks` are header blocks that open calls, `bodies` theirs.

    The first byte of the data says how the wire is cut into reads.
    """

    def __init__(self, *, blocks, bodies, most_frame_bytes, most_body_bytes):
        self._blocks, self._bodies = blocks, bodies
        self._most_frame_bytes, self._most_body_bytes = most_frame_bytes, most_body_bytes

    def seeds(self):
        """A wire for each kind of call and of frame, and for a body at its limit."""
        chance = random.Random(1)
        calls = [self._call(chance, number=1, block=block) for block in self._blocks]
        calls += [
            frame(HEADERS, END_HEADERS, 1, block) + frame(DATA, END_STREAM, 1, self._large(step))
            for block in self._blocks
            for step in (-1, 0, 1)
        ]
        others = [self._other(random.Random(seed), 1) for seed in range(60)]
        return [bytes([cuts]) + wire for cuts in (0, 7) for wire in calls] + [
            b"\0" + calls[0] + each for each in others
        ]

    def __call__(self, data, max_size, seed):
        chance = random.Random(seed)
        if not data or chance.random() < _BLIND_SHARE:
            return atheris.Mutate(data, max_size)
        wire = [frame(e.kind, e.flags, e.number, e.payload, more=e.size - len(e.payload))
                for e in frames_of(data[1:])]  # fmt: skip
        for _ in range(chance.choice((1, 1, 1, 2, 3))):
            self._change(wire, chance)
        cuts = chance.choice((data[0], data[0], 0, chance.randrange(256)))
        made = bytes([cuts]) + b"".join(wire)
        return made if len(made) <= max_size else atheris.Mutate(data, max_size)

    def _change(self, wire, chance):
        place = chance.randrange(len(wire) + 1)
        number = chance.choice((1, 1, 3, 5, 2 * len(wire) + 1, 2, 0))
        choice = chance.randrange(7)
        if choice == 0 or not wire:
            wire.append(self._call(chance, number=2 * len(wire) + 1))
        elif choice == 1:
            wire.insert(place, self._other(chance, number))
        elif choice == 2:
            del wire[min(place, len(wire) - 1)]
        elif choice == 3:
            wire.insert(place, chance.choice(wire))
        else:
            place = min(place, len(wire) - 1)
            wire[place] = _changed(frames_of(wire[place])[0], chance)

    def _call(self, chance, *, number, block=None):
        """A call with a body: whole or in pieces, padded, with a priority, or not."""
        block = chance.choice(self._blocks) if block is None else block
        body = chance.choice(self._bodies)
        if chance.random() < 0.2:
            body = self._large(chance.choice((-1, 0, 1)))
        flags, payload = END_HEADERS, block
        if chance.random() < 0.2:
            flags, payload = flags | WITH_PRIORITY, b"\0\0\0\0\x0f" + payload
        made = frame(HEADERS, *_padded(flags, number, payload, chance))
        cut = chance.choice((0, len(body), chance.randrange(len(body) + 1)))
        made += frame(DATA, *_padded(0, number, body[:cut], chance)) if cut else b""
        return made + frame(DATA, *_padded(END_STREAM, number, body[cut:], chance))

    def _large(self, step):
        """A body so many bytes above the limit."""
        size = self._most_body_bytes - 5 + step
        return b"\0" + size.to_bytes(4, "big") + bytes(size)

    def _other(self, chance, number):
        """A frame of some kind, mostly as it must be, or just not."""
        step = chance.choice((0, 0, 0, 1, -1))
        kind = chance.randrange(11)
        edge = chance.choice(_EDGES)
        if kind == SETTINGS:
            payload = struct.pack(">HI", chance.randrange(8), edge)
            return frame(kind, chance.choice((0, 0, ACK)), 0, _sized(payload, len(payload) + step))
        if kind == WINDOW_UPDATE:
            payload = _sized(struct.pack(">I", edge), 4 + step)
            return frame(kind, 0, chance.choice((0, number)), payload)
        if kind == GOAWAY:
            return frame(kind, 0, 0, bytes(8 + step))
        if kind == DATA and chance.random() < 0.5:  # the beginning of a large one
            size = self._most_frame_bytes + step
            return frame(DATA, chance.choice((0, PADDED)), number, more=size)
        if kind in _SIZES:
            of = 0 if kind == PING else number
            return frame(kind, 0, of, bytes(_SIZES[kind] + step))
        if kind == HEADERS:
            block = chance.choice(self._blocks)
            cut = chance.randrange(len(block))
            rest = frame(CONTINUATION, END_HEADERS, number, block[cut:])
            return frame(kind, 0, number, block[:cut]) + rest
        return frame(kind, chance.choice((0, END_STREAM)), number, bytes(chance.choice((0, 1, 9))))


def _padded(flags, number, payload, chance):
    if chance.random() < 0.7:
        return flags, number, payload
    padding = chance.choice((0, 1, 255, len(payload)))
    more = chance.choice((0, 0, 0, 1))  # more padding than payload: it must be refused
    given = min(255, padding)
    length = min(255, given if not more else 1 + len(payload) + given)
    return flags | PADDED, number, bytes([length]) + payload + bytes(given)


def _sized(payload, size):
    return payload[:size] + bytes(max(0, size - len(payload)))


def _changed(each, chance):
    choice = chance.randrange(6)
    kind, flags, number, payload, more = each.kind, each.flags, each.number, each.payload, 0
    if choice == 0:
        flags ^= chance.choice((END_STREAM, END_HEADERS, PADDED, WITH_PRIORITY))
    elif choice == 1:
        number += chance.choice((-2, -1, 1, 2, 1 << 31))
    elif choice == 2:
        payload = chance.choice((payload[:-1], payload + b"\0", payload[1:], b"", payload * 2))
    elif choice == 3:
        more = chance.choice((-1, 1))
    elif choice == 4 and payload:
        edge = chance.choice((0, 1, len(payload) - 2, len(payload) - 1, len(payload), 255))
        flags, payload = flags | PADDED, bytes([max(0, min(255, edge))]) + payload[1:]
    else:
        payload = atheris.Mutate(payload or b"\0", max(2 * len(payload), 8))
    return frame(kind, flags, number, payload, more=more)
