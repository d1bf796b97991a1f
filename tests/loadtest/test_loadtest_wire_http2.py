"""One HTTP/2 connection, frame by frame: what a server may send, and what it must get to see."""

import asyncio

import hpack
import pytest

from loadtest.wire import frames as http2
from loadtest.wire.frames import Call, frame, number_frame, settings_frame
from loadtest.wire.http2 import Http2Line
from loadtest.wire.ledger import (
    ANSWERED,
    LOST,
    MALFORMED,
    RESET,
    UNANSWERED,
    Ledger,
)

MESSAGE = b"message"
HEADERS = hpack.Encoder().encode([(":status", "200"), ("content-type", "application/grpc")])
TRAILERS = hpack.Encoder().encode([("grpc-status", "0"), ("grpc-message", "")])
END = http2.END_HEADERS | http2.END_STREAM


class Transport(asyncio.Transport):
    """Keeps what is written, and can be read as frames."""

    def __init__(self):
        super().__init__()
        self.written, self.aborted = bytearray(), False

    def write(self, data):
        self.written += data

    def abort(self):
        self.aborted = True

    def frames(self):
        """(type, flags, stream, payload) of what was written since this was asked last."""
        data, found = bytes(self.written).removeprefix(http2.PREFACE), []
        self.written.clear()
        while data:
            high, low, kind, flags, stream = http2.HEADER.unpack_from(data)
            end = http2.HEADER_BYTES + (high << 8 | low)
            found.append((kind, flags, stream, data[http2.HEADER_BYTES : end]))
            data = data[end:]
        return found


class Connection:
    """A line with its server played by the test; `answered` counts what `progressed` told."""

    def __init__(self, *calls, settings=None):
        self.calls = calls or (Call("/service/method", MESSAGE),)
        self.ledger = Ledger([call.deadline_ns for call in self.calls])
        self.answered = 0
        self.transport = Transport()
        self.line = Http2Line(
            self.calls, ledger=self.ledger, authority="host", progressed=self.progressed
        )
        self.line.connection_made(self.transport)
        self.greeting = self.transport.frames()
        self.receive(settings_frame(settings or {}))
        self.transport.frames()

    def progressed(self, _line, answered):
        self.answered += answered

    def receive(self, *frames):
        self.line.data_received(b"".join(frames))

    def send(self, count=1):
        requests = self.ledger.extend([0] * count, kinds=[0] * count)
        self.ledger.outstanding += count
        self.line.send(requests)
        return self.transport.frames()

    @property
    def statuses(self):
        return self.ledger.statuses.tolist()


@pytest.fixture
def connect():
    """Makes connections within a loop, as the line's future needs one."""
    with asyncio.Runner() as runner:

        async def made(*calls, **settings):
            return Connection(*calls, **settings)

        yield lambda *calls, **settings: runner.run(made(*calls, **settings))


def answer(stream, *, trailers=TRAILERS):
    return (
        frame(http2.HEADERS, flags=http2.END_HEADERS, stream=stream, payload=HEADERS)
        + frame(http2.DATA, stream=stream, payload=b"\0\0\0\0\0")
        + frame(http2.HEADERS, flags=END, stream=stream, payload=trailers)
    )


def test_the_greeting_asks_for_stateless_headers_and_wide_windows(connect):
    settings, window = connect().greeting
    assert settings[0] == http2.SETTINGS
    told = http2.read_settings(settings[3])
    assert told[http2.HEADER_TABLE_SIZE] == 0
    assert told[http2.INITIAL_WINDOW_SIZE] == 2**31 - 1
    assert window == (http2.WINDOW_UPDATE, 0, 0, (2**31 - 1 - 65_535).to_bytes(4, "big"))


def test_a_request_is_a_header_block_and_its_message_on_the_next_odd_stream(connect):
    frames = connect(Call("/service/method", MESSAGE, deadline_ns=100_000_000)).send(2)
    assert [each[:3] for each in frames] == [
        (http2.HEADERS, http2.END_HEADERS, 1),
        (http2.DATA, http2.END_STREAM, 1),
        (http2.HEADERS, http2.END_HEADERS, 3),
        (http2.DATA, http2.END_STREAM, 3),
    ]
    assert frames[1][3] == b"\0" + (7).to_bytes(4, "big") + MESSAGE
    assert dict(hpack.Decoder().decode(frames[2][3])) == {
        ":method": "POST",
        ":scheme": "http",
        ":path": "/service/method",
        ":authority": "host",
        "te": "trailers",
        "content-type": "application/grpc",
        "grpc-timeout": "100000u",
    }


@pytest.mark.parametrize("size", [1, 2, 9, 10, 1000])
def test_answers_may_arrive_in_pieces_of_any_size(connect, size):
    connection = connect()
    connection.send(3)
    data = answer(5) + answer(1) + answer(3)
    for begin in range(0, len(data), size):
        connection.receive(data[begin : begin + size])
    assert connection.statuses == [ANSWERED] * 3
    assert connection.answered == 3
    assert connection.ledger.outstanding == 0


def test_a_status_without_a_message_is_no_answer(connect):
    connection = connect()
    connection.send()
    connection.receive(frame(http2.HEADERS, flags=END, stream=1, payload=HEADERS + TRAILERS))
    assert connection.statuses == [MALFORMED]


def test_a_stream_that_ends_without_a_status_is_no_answer(connect):
    connection = connect()
    connection.send()
    connection.receive(frame(http2.DATA, flags=http2.END_STREAM, stream=1, payload=bytes(5)))
    assert connection.statuses == [MALFORMED]


def test_pings_and_settings_are_acknowledged(connect):
    connection = connect()
    connection.receive(frame(http2.PING, payload=b"12345678"), settings_frame({}))
    assert connection.transport.frames() == [
        (http2.PING, http2.ACK, 0, b"12345678"),
        (http2.SETTINGS, http2.ACK, 0, b""),
    ]
    connection.receive(
        frame(http2.PING, flags=http2.ACK, payload=bytes(8)), frame(http2.SETTINGS, flags=http2.ACK)
    )
    assert connection.transport.frames() == []


def test_headers_may_be_padded_and_continued(connect):
    connection = connect()
    connection.send()
    padded = b"\x03" + bytes(5) + TRAILERS[:4] + bytes(3)
    flags = http2.PADDED | http2.PRIORITY | http2.END_STREAM
    connection.receive(
        frame(http2.DATA, stream=1, payload=bytes(5)),
        frame(http2.HEADERS, flags=flags, stream=1, payload=padded),
        frame(http2.CONTINUATION, flags=http2.END_HEADERS, stream=1, payload=TRAILERS[4:]),
    )
    assert connection.statuses == [ANSWERED]


def test_a_body_waits_for_the_windows_and_is_cut_into_frames(connect):
    body = bytes(range(256)) * 400  # 102,400 bytes, and 5 of gRPC's
    connection = connect(Call("/service/method", body), settings={http2.MAX_FRAME_SIZE: 20_000})
    frames = connection.send()
    sizes = [len(payload) for kind, *_, payload in frames if kind == http2.DATA]
    assert sizes == [20_000, 20_000, 20_000, 5_535]
    connection.receive(number_frame(http2.WINDOW_UPDATE, number=10_000))
    assert connection.transport.frames() == []  # the stream's own window is empty, too
    connection.receive(number_frame(http2.WINDOW_UPDATE, stream=1, number=100_000))
    frames += connection.transport.frames()
    connection.receive(number_frame(http2.WINDOW_UPDATE, number=100_000))
    frames += connection.transport.frames()
    data = [each for each in frames if each[0] == http2.DATA]
    assert [len(payload) for *_, payload in data[4:]] == [10_000, 20_000, 6_870]
    assert b"".join(payload for *_, payload in data)[5:] == body
    assert [flags for _, flags, *_ in data] == [0] * 6 + [http2.END_STREAM]


def test_new_settings_widen_the_windows_of_streams_that_wait(connect):
    connection = connect(settings={http2.INITIAL_WINDOW_SIZE: 4})
    assert [len(payload) for *_, payload in connection.send()[1:]] == [4]
    connection.receive(settings_frame({http2.INITIAL_WINDOW_SIZE: 100}))
    assert (http2.DATA, http2.END_STREAM, 1, b"\x07" + MESSAGE) in connection.transport.frames()


def test_requests_wait_until_the_server_allows_another_stream(connect):
    connection = connect(settings={http2.MAX_STREAMS: 1})
    assert {stream for _, _, stream, _ in connection.send(2)} == {1}
    connection.receive(answer(1))
    assert {stream for _, _, stream, _ in connection.transport.frames()} == {3}


def test_nothing_is_written_while_the_socket_is_full(connect):
    connection = connect()
    connection.line.pause_writing()
    assert connection.send() == []
    connection.line.resume_writing()
    assert len(connection.transport.frames()) == 2


def test_a_reset_stream_has_failed_and_a_refused_one_is_sent_again(connect):
    connection = connect()
    connection.send(2)
    connection.receive(
        number_frame(http2.RST_STREAM, stream=1, number=http2.CANCEL),
        number_frame(http2.RST_STREAM, stream=3, number=http2.REFUSED_STREAM),
    )
    assert {stream for _, _, stream, _ in connection.transport.frames()} == {5}
    assert connection.statuses == [RESET, UNANSWERED]
    connection.receive(answer(5))
    assert connection.statuses == [RESET, ANSWERED]


def test_a_server_that_goes_away_answers_only_what_it_promised(connect):
    connection = connect()
    connection.send(3)
    connection.receive(frame(http2.GOAWAY, payload=(3).to_bytes(4, "big") + bytes(4)))
    assert not connection.line.open
    assert connection.statuses == [UNANSWERED, UNANSWERED, LOST]
    assert connection.send() == []
    connection.receive(answer(1))
    connection.line.connection_lost(None)
    assert connection.statuses == [ANSWERED, LOST, LOST, LOST]
    assert connection.ledger.outstanding == 0


def test_what_comes_after_a_connection_was_closed_by_us_does_not_count(connect):
    connection = connect()
    connection.send()
    connection.line.close()
    connection.line.connection_lost(None)
    assert connection.transport.aborted
    assert connection.statuses == [UNANSWERED]


def test_a_request_that_is_past_its_deadline_is_cancelled_or_never_sent(connect):
    connection = connect(
        Call("/service/method", MESSAGE, deadline_ns=1000), settings={http2.MAX_STREAMS: 1}
    )
    connection.ledger.start_ns += 10**12  # the requests are due in the future: none is late
    connection.send(2)
    connection.ledger.start_ns -= 10**13
    connection.line.give_up()
    assert connection.transport.frames() == [
        (http2.RST_STREAM, 0, 1, http2.CANCEL.to_bytes(4, "big"))
    ]
    assert connection.statuses == [-2, -3]
    connection.receive(answer(1))  # too late to count
    assert connection.statuses == [-2, -3]
