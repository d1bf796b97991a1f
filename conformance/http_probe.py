"""HTTP as bytes on a socket, so that anything can be sent, with a bound on the whole exchange."""

import contextlib
import http
import http.client
import io
import json
import socket
import time
from collections.abc import Mapping
from typing import Any

from conformance.answer import Answer
from conformance.samples import from_plain
from ridgeline.errors import InvalidInput

HEADER_LENGTH = "Inference-Header-Content-Length"
_MOST_BYTES = 64 * 1024 * 1024  # of a response
_CHUNK_BYTES = 1 << 16


class HttpProbe:
    """Sends requests to one server, each over a connection of its own, each within `timeout_s`."""

    def __init__(self, address: str, *, timeout_s: float) -> None:
        self._host, self._port = split_address(address)
        self._timeout_s = timeout_s

    def get(self, path: str, **headers: str) -> Answer:
        """A GET, its body read as JSON where it is some."""
        return self.ask("GET", path, headers=headers)

    def post(
        self, path: str, body: Any = None, *, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """A POST of bytes as they are, or of anything else as JSON."""
        return self.ask("POST", path, body=body, headers=headers)

    def ask(
        self, method: str, path: str, *, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Any method."""
        status, fields, data = self.exchange(method, path, body=body, headers=headers)
        return Answer(str(status), _read(data, fields))

    def exchange(
        self, method: str, path: str, *, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        """Status, header fields and body of a response."""
        payload = b"" if body is None else body
        if not isinstance(payload, bytes):
            payload = json.dumps(body).encode()
        sent = {"Host": f"{self._host}:{self._port}", "Connection": "close", **(headers or {})}
        if "Transfer-Encoding" not in sent and (payload or method in ("POST", "PUT")):
            sent.setdefault("Content-Length", str(len(payload)))
        lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {text}" for name, text in sent.items())]
        return self.raw("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + payload, method=method)

    def raw(
        self, request: bytes, *, method: str = "GET"
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        """Send bytes, read one response. Raises OSError or HTTPException where there is none."""
        deadline = time.monotonic() + self._timeout_s
        with socket.create_connection((self._host, self._port), self._timeout_s) as connection:
            # Refused before all was sent: the answer may be there already.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.sendall(request)
            stream = io.BufferedReader(_Bounded(connection, deadline=deadline))
            response = http.client.HTTPResponse(_Readable(stream), method=method)  # type: ignore[arg-type]
            response.begin()
            return response.status, response.headers, response.read(_MOST_BYTES)

    def infer(
        self,
        model: str,
        body: Any,
        *,
        binary: bytes | None = None,
        header_length: str | None = None,
        headers: Mapping[str, str] | None = None,
        version: str = "",
    ) -> Answer:
        """An inference, its outputs as lists whether they came as JSON or binary."""
        payload = body if isinstance(body, bytes) else json.dumps(body).encode()
        sent = dict(headers or {})
        if binary is not None:
            sent[HEADER_LENGTH] = str(len(payload)) if header_length is None else header_length
            payload += binary
        elif header_length is not None:
            sent[HEADER_LENGTH] = header_length
        path = f"/v2/models/{model}" + (f"/versions/{version}" if version else "") + "/infer"
        status, fields, data = self.exchange("POST", path, body=payload, headers=sent)
        length = fields.get(HEADER_LENGTH)
        if length is None:
            table = _read(data, fields)
            return Answer(str(status), _with_hex(table) if status == http.HTTPStatus.OK else table)
        table = json.loads(data[: int(length)])
        return Answer(str(status), _with_hex(_with_binary(table, data[int(length) :])))


def split_address(address: str) -> tuple[str, int]:
    """HOST:PORT as its two parts. Raises InvalidInput."""
    host, _, port = address.removeprefix("http://").rpartition(":")
    if not host or not port.isdecimal():
        raise InvalidInput(f"expected HOST:PORT, received {address!r}")
    return host, int(port)


def _read(data: bytes, fields: http.client.HTTPMessage) -> Any:
    """JSON where it is JSON, else what kind of bytes came."""
    if not data:
        return None
    try:
        return json.loads(data)
    except ValueError:
        kind = fields.get_content_type() if "Content-Type" in fields else "no type"
        return {"not_json": kind}


def _with_binary(table: dict[str, Any], data: bytes) -> dict[str, Any]:
    """Binary outputs as hexadecimal text, in place of their sizes."""
    position = 0
    for output in table.get("outputs", []):
        size = output.get("parameters", {}).get("binary_data_size")
        if size is not None:
            output["hex"] = data[position : position + size].hex()
            position += size
    if position != len(data):
        table["bytes_that_no_output_announces"] = len(data) - position
    return table


def _with_hex(table: dict[str, Any]) -> dict[str, Any]:
    """JSON outputs as hexadecimal text, too, so that values compare whatever their spelling."""
    for output in table.get("outputs", []):
        if "data" not in output:
            output["form"] = "binary"
            if output.get("parameters", {}).get("binary_data_size") == 0:
                output["hex"] = ""  # a server may leave the header field out where nothing follows
            continue
        output["form"] = "json"
        found = from_plain(output["data"], datatype=output.get("datatype", ""))
        if found is not None:
            del output["data"]
            output["hex"] = found
    return table


class _Bounded(io.RawIOBase):
    """A socket whose reading ends at a deadline, however slowly bytes arrive."""

    def __init__(self, connection: socket.socket, *, deadline: float) -> None:
        self._connection, self._deadline = connection, deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("no complete answer in time")
        self._connection.settimeout(left)
        data = self._connection.recv(min(len(buffer), _CHUNK_BYTES))
        buffer[: len(data)] = data
        return len(data)


class _Readable:
    """What HTTPResponse wants of a socket: a file to read from."""

    def __init__(self, stream: io.BufferedReader) -> None:
        self._stream = stream

    def makefile(self, _mode: str) -> io.BufferedReader:
        return self._stream
