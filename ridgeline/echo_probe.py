"""How long bytes take to another process on this machine and back: what no server can beat."""

import contextlib
import functools
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

_TIMEOUT_SECONDS = 10.0
_SIZE_BYTES = 4096

_TCP_SERVER = """
import socket, sys
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
client, _ = server.accept()
client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
while data := client.recv(int(sys.argv[1])):
    client.sendall(data)
"""
_GRPC_SERVER = """
import concurrent.futures, grpc
class Echo(grpc.GenericRpcHandler):
    def service(self, details):
        return grpc.unary_unary_rpc_method_handler(lambda request, context: request)
server = grpc.server(concurrent.futures.ThreadPoolExecutor(1))
server.add_generic_rpc_handlers((Echo(),))
print(server.add_insecure_port("127.0.0.1:0"), flush=True)
server.start()
server.wait_for_termination()
"""


def tcp_ns(*, round_trips: int = 2000, size_bytes: int = _SIZE_BYTES) -> list[int]:
    """Round trips of `size_bytes` over TCP on the loopback, after a tenth that is thrown away."""
    with _server(_TCP_SERVER, size_bytes) as port:
        address = ("127.0.0.1", port)
        with socket.create_connection(address, timeout=_TIMEOUT_SECONDS) as client:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return _times_ns(
                functools.partial(_exchange, client, bytes(size_bytes)), count=round_trips
            )


def grpc_ns(*, calls: int = 600, size_bytes: int = _SIZE_BYTES) -> list[int]:
    """The same over gRPC, with the library grpcio at both ends."""
    import grpc

    with _server(_GRPC_SERVER) as port, grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.unary_unary("/echo/Echo")
        ask = functools.partial(call, bytes(size_bytes), timeout=_TIMEOUT_SECONDS)
        ask(wait_for_ready=True)
        return _times_ns(ask, count=calls)


@contextlib.contextmanager
def _server(program: str, *words: object) -> Iterator[int]:
    """A process that answers until the block ends, and its port."""
    process = subprocess.Popen(  # noqa: S603 - our own program
        [sys.executable, "-c", program, *map(str, words)], stdout=subprocess.PIPE, text=True
    )
    try:
        yield int(process.stdout.readline()) if process.stdout else 0
    finally:
        process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()


def _exchange(client: socket.socket, payload: bytes) -> None:
    client.sendall(payload)
    missing = len(payload)
    while missing:
        missing -= len(client.recv(missing))


def _times_ns(call: Callable[[], object], *, count: int) -> list[int]:
    times = []
    for _ in range(count):
        start_ns = time.perf_counter_ns()
        call()
        times.append(time.perf_counter_ns() - start_ns)
    return times[count // 10 :]
