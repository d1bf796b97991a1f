"""The cheap load generator against real servers: what is counted, and that nothing hangs."""

import asyncio
import json
import socket
import subprocess
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import grpc
import numpy as np
import pytest
import uvloop
from tritonclient.grpc import service_pb2

from loadtest.wire import generator
from loadtest.wire.ledger import ANSWERED, GAVE_UP, LOST, NEVER_SENT, RESET
from loadtest.wire.spec import DeadlineClass, Phase, Spec
from ridgeline.errors import Unavailable

INFER = "/inference.GRPCInferenceService/ModelInfer"
LONG_MS = 60_000.0  # a deadline that no test reaches


class Grpc:
    """A grpcio server of which a test decides how it answers; notes what it was sent."""

    def __init__(self, *options):
        self.sizes, self.deadlines_s = [], []
        self.running = self.most_running = 0
        self.lock = threading.Lock()
        self.answer = lambda _number, _context: b"answer"
        self.server = grpc.server(ThreadPoolExecutor(8), options=options)
        self.server.add_generic_rpc_handlers((self,))
        self.port = self.server.add_insecure_port("127.0.0.1:0")
        self.server.start()

    def service(self, _details):
        return grpc.unary_unary_rpc_method_handler(self.handle)

    def handle(self, request, context):
        with self.lock:
            self.sizes.append(len(request))
            self.deadlines_s.append(context.time_remaining())
            number = len(self.sizes)
            self.running += 1
            self.most_running = max(self.running, self.most_running)
        try:
            return self.answer(number, context)
        finally:
            with self.lock:
                self.running -= 1


@pytest.fixture
def start_grpc():
    """Starts servers; none outlives the test."""
    started = []

    def start(*options):
        started.append(Grpc(*options))
        return started[-1]

    yield start
    for each in started:
        each.server.stop(None).wait()


@pytest.fixture
def message(tmp_path):
    """Writes a message of so many bytes and names the file."""

    def message(size_bytes=4096):
        path = tmp_path / f"message-{size_bytes}"
        path.write_bytes(bytes(size_bytes))
        return str(path)

    return message


def drive(spec):
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(generator.drive(spec))


def closed(port, message_path, **settings):
    """A closed loop of a fifth of a second."""
    settings = {"protocol": "grpc", "path": INFER, "duration_s": 0.2, "in_flight": 4} | settings
    return Spec(port=port, classes=(DeadlineClass(message_path),), **settings)


def poisson(port, *classes, rate_per_s=500.0, duration_s=0.3, **settings):
    settings = {"protocol": "grpc", "path": INFER} | settings
    return Spec(port=port, classes=classes, phases=(Phase(rate_per_s, duration_s),), **settings)


def statuses(outcome):
    return Counter(outcome.entries.statuses.tolist())


def test_every_request_of_a_closed_loop_is_sent_whole_answered_and_counted(start_grpc, message):
    server = start_grpc()
    outcome = drive(closed(server.port, message(), connections=2))
    entries = outcome.entries
    assert statuses(outcome) == {ANSWERED: len(server.sizes)}
    assert set(server.sizes) == {4096}
    assert (entries.intended_ns <= entries.sent_ns).all()
    assert (entries.sent_ns < entries.done_ns).all()
    assert entries.on_time.all()
    assert server.most_running <= 4
    assert outcome.client.cpu_s > 0


def test_an_open_loop_sends_what_its_schedule_says_and_no_more(start_grpc, message):
    server = start_grpc()
    spec = poisson(server.port, DeadlineClass(message(), LONG_MS), seed=7)
    outcome = drive(spec)
    assert outcome.entries.intended_ns.tolist() == spec.arrivals_ns().tolist()
    assert statuses(outcome) == {ANSWERED: len(spec.arrivals_ns())} == {0: len(server.sizes)}
    assert (outcome.client.lags_ns >= 0).all()


def test_refusals_are_counted_by_their_status(start_grpc, message):
    server = start_grpc()

    def answer(number, context):
        if number % 3 == 0:  # the text differs each time, as that of a queue's length may
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{number} wait already")
        if number % 3 == 1:
            context.abort(grpc.StatusCode.UNAVAILABLE, "stopping: später")
        return b"answer"

    server.answer = answer
    spec = poisson(server.port, DeadlineClass(message()))
    numbers = range(1, len(spec.arrivals_ns()) + 1)
    codes = (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.OK)
    expected = Counter(codes[number % 3].value[0] for number in numbers)
    assert statuses(drive(spec)) == expected


def test_each_class_tells_its_deadline_to_the_server(start_grpc, message):
    server = start_grpc()
    classes = (DeadlineClass(message(1), LONG_MS), DeadlineClass(message(2)))
    outcome = drive(poisson(server.port, *classes))
    for size, deadline_s in zip(server.sizes, server.deadlines_s, strict=True):
        # grpcio tells of centuries where there is none.
        assert 0 < deadline_s <= LONG_MS / 1000 if size == 1 else deadline_s > 1e9
    assert Counter(server.sizes) == Counter((outcome.entries.kinds + 1).tolist())


def test_messages_larger_than_the_windows_and_frames_arrive_whole(start_grpc, message):
    server = start_grpc(("grpc.http2.lookahead_bytes", 1024), ("grpc.http2.bdp_probe", 0))
    outcome = drive(closed(server.port, message(200_000), in_flight=8))
    assert statuses(outcome) == {ANSWERED: len(server.sizes)}
    assert set(server.sizes) == {200_000}


def test_no_more_streams_are_opened_than_the_server_allows(start_grpc, message):
    server = start_grpc(("grpc.max_concurrent_streams", 2))
    outcome = drive(closed(server.port, message(), in_flight=6))
    assert statuses(outcome) == {ANSWERED: len(server.sizes)}
    assert server.most_running <= 2


def test_a_server_that_stops_in_the_middle_is_a_failure_and_no_hang(start_grpc, message):
    server = start_grpc()
    stopping = threading.Thread(target=lambda: server.server.stop(0))

    def answer(number, _context):
        if number == 20:
            stopping.start()
        return b"answer"

    server.answer = answer
    spec = poisson(server.port, DeadlineClass(message()), duration_s=60.0, rate_per_s=200.0)
    found = statuses(drive(spec))
    stopping.join()
    assert found[ANSWERED] >= 10
    assert found[LOST] >= 1
    cut_off = {LOST, RESET, NEVER_SENT, *(code.value[0] for code in grpc.StatusCode)}
    assert set(found) <= cut_off
    assert found.total() == len(spec.arrivals_ns())


def test_at_its_deadline_a_request_is_given_up_and_the_server_told(start_grpc, message):
    server = start_grpc()
    cancelled, over = threading.Event(), threading.Event()

    def answer(_number, context):
        context.add_callback(cancelled.set)
        over.wait()
        return b"answer"

    server.answer = answer
    spec = poisson(server.port, DeadlineClass(message(), 10.0), drain_s=30.0)
    found = statuses(drive(spec))
    over.set()
    assert cancelled.wait(30)
    deadline_exceeded = grpc.StatusCode.DEADLINE_EXCEEDED.value[0]  # the server may be first
    assert found[GAVE_UP] + found[deadline_exceeded] + found[NEVER_SENT] == found.total()
    assert found[GAVE_UP]


def test_a_server_that_is_not_there_is_named():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        spec = Spec("grpc", port, INFER, (DeadlineClass("/dev/null"),), in_flight=1, duration_s=1)
        with pytest.raises(Unavailable, match=f"127.0.0.1:{port} cannot be reached"):
            drive(spec)


# --- HTTP/1.1 -------------------------------------------------------------------------------------


class Http(ThreadingHTTPServer):
    """Answers POST with 200 or, every third time, with 429; every `closes`-th closes."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, *, closes=0):
        self.bodies, self.peers, self.lock, self.closes = [], set(), threading.Lock(), closes
        super().__init__(("127.0.0.1", 0), HttpHandler)


class HttpHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 65536  # one write for each answer

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with self.server.lock:
            self.server.bodies.append(len(body))
            self.server.peers.add(self.client_address)
            number = len(self.server.bodies)
        self.send_response(429 if number % 3 == 0 else 200)
        if self.server.closes and number % self.server.closes == 0:
            self.send_header("Connection", "close")
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_):
        pass


@pytest.fixture
def start_http():
    started = []

    def start(**settings):
        server = Http(**settings)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        started.append((server, thread))
        return server

    yield start
    for server, thread in started:
        server.shutdown()
        server.server_close()
        thread.join()


def test_over_http_a_few_connections_carry_all_requests(start_http, message):
    server = start_http()
    spec = poisson(
        *(server.server_address[1], DeadlineClass(message())),
        **{"protocol": "http", "path": "/inference", "connections": 3},
    )
    found = statuses(drive(spec))
    count = len(spec.arrivals_ns())
    assert found == {ANSWERED: count - count // 3, 429: count // 3}
    assert server.bodies == [4096] * count
    assert len(server.peers) <= 3


def test_over_http_a_connection_that_the_server_closes_is_opened_again(start_http, message):
    server = start_http(closes=5)
    spec = closed(
        server.server_address[1], message(), protocol="http", path="/", connections=4, in_flight=4
    )
    found = statuses(drive(spec))
    assert set(found) == {ANSWERED, 429}
    assert found.total() == len(server.bodies)
    assert len(server.peers) > 4


def test_over_http_what_waits_for_a_connection_is_given_up_at_its_deadline(message):
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, and never answers
        spec = poisson(
            *(silent.getsockname()[1], DeadlineClass(message(), 5.0)),
            **{"protocol": "http", "path": "/", "connections": 1, "drain_s": 0.1},
        )
        outcome = drive(spec)
    found = statuses(outcome)
    assert found[NEVER_SENT] == found.total() - 1  # one has the connection
    assert not outcome.entries.on_time.any()


# --- as a command ---------------------------------------------------------------------------------


def test_the_command_prints_what_a_real_gateway_answered(gateway, tmp_path):
    request = service_pb2.ModelInferRequest(model_name="identity_FP32")
    request.inputs.add(name="x", datatype="FP32", shape=(1, 2))
    request.raw_input_contents.append(np.zeros(2, dtype="<f4").tobytes())
    (tmp_path / "message").write_bytes(request.SerializeToString())
    spec = {
        "protocol": "grpc",
        "port": gateway.ready["grpc_port"],
        "path": INFER,
        "classes": [{"message_path": str(tmp_path / "message"), "deadline_ms": LONG_MS}],
        "phases": [[200, 0.2], [50, 0.2]],
    }
    figures = command(spec, rc=0)
    assert figures["answered"] == figures["on_time"] == figures["requests"] > 0
    assert figures["refused"] == figures["failed"] == {}
    assert sum(figures["series"]["on_time"]) == figures["requests"]
    assert figures["recovery_ms"] == 0
    assert figures["client"]["cpu_us_per_request"] > 0
    request.model_name = "unknown"
    (tmp_path / "message").write_bytes(request.SerializeToString())
    figures = command(spec, rc=0)
    assert figures["refused"] == {"NOT_FOUND": figures["requests"]}
    assert figures["verdict"] == "INVALID"
    assert "no request was answered" in figures["reasons"]


def test_the_command_says_what_is_wrong_with_its_specification():
    assert "protocol must be one of" in command(
        {"protocol": "smtp", "port": 1, "path": "/", "classes": [{"message_path": "x"}]}, rc=1
    )


def command(spec, *, rc):
    done = subprocess.run(
        [sys.executable, "-m", "loadtest.wire.generator", "--json-spec", "-"],
        input=json.dumps(spec),
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert done.returncode == rc, done.stderr
    return done.stderr if rc else json.loads(done.stdout)
