"""The protocol over HTTP: what a server says of itself and of a model, and single requests."""

import io
import json
from typing import TypeVar
from urllib.parse import quote

import aiohttp
from google.protobuf import json_format
from google.protobuf.message import Message as ProtobufMessage
from tritonclient.grpc import model_config_pb2, service_pb2

from loadtest.connection import RequestFailed
from loadtest.messages import Message
from ridgeline.errors import InvalidInput, NotFound, RidgelineError, Unavailable

_READ_TIMEOUT = aiohttp.ClientTimeout(total=10)
_LARGE_BODY_BYTES = 2**20  # aiohttp wants more than this as a file, written piece by piece
_NOT_IMPLEMENTED = {404, 405, 501}
_CONNECTION_ERRORS = (aiohttp.ClientError, OSError)  # a TimeoutError is an OSError

M = TypeVar("M", bound=ProtobufMessage)


class HttpConnection:
    """A pool of keep-alive connections, one for each request under way."""

    def __init__(self, *, url: str, model: str, version: str) -> None:
        self._url, self._model = url, model
        versions = f"/versions/{quote(version, safe='')}" if version else ""
        self._base = f"http://{url}/v2"
        self._model_url = f"{self._base}/models/{quote(model, safe='')}{versions}"
        self._session: aiohttp.ClientSession | None = None

    async def read_server(self) -> service_pb2.ServerMetadataResponse:
        """The server's name, version and extensions."""
        return await self._read(self._base, service_pb2.ServerMetadataResponse())

    async def read_metadata(self) -> service_pb2.ModelMetadataResponse:
        """The model's inputs and outputs."""
        return await self._read(self._model_url, service_pb2.ModelMetadataResponse())

    async def read_config(self) -> model_config_pb2.ModelConfig | None:
        """The model's configuration, or None where the server does not implement the request."""
        url = f"{self._model_url}/config"
        status, body = await self._get(url)
        if status in _NOT_IMPLEMENTED:
            return None
        return self._parsed(url, status, body, model_config_pb2.ModelConfig())

    async def read_statistics(self) -> service_pb2.ModelStatisticsResponse | None:
        """The model's statistics so far, or None where the server does not implement them."""
        url = f"{self._model_url}/stats"
        status, body = await self._get(url)
        if status in _NOT_IMPLEMENTED:
            return None
        return self._parsed(url, status, body, service_pb2.ModelStatisticsResponse())

    async def ask(self, message: Message, *, timeout_s: float) -> bytes:
        """Send one request and return the answer's body as it came. Raises RequestFailed."""
        data = message.body if len(message.body) <= _LARGE_BODY_BYTES else io.BytesIO(message.body)
        headers = {"Content-Type": "application/octet-stream", **message.headers}
        timeout = aiohttp.ClientTimeout(total=timeout_s)
        url = f"http://{self._url}{message.path}"
        try:
            async with self._opened().post(
                url, data=data, headers=headers, timeout=timeout
            ) as response:
                reply = await response.read()
        except TimeoutError as error:
            raise RequestFailed(status="TIMEOUT", detail=_described(error)) from error
        except _CONNECTION_ERRORS as error:
            raise RequestFailed(status="CONNECTION", detail=_described(error)) from error
        if response.status != 200:
            raise RequestFailed(status=f"HTTP {response.status}", detail=_error_text(reply))
        return reply

    async def close(self) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()

    def _opened(self) -> aiohttp.ClientSession:
        """The session; made late, since aiohttp wants a running event loop."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0), auto_decompress=False
            )
        return self._session

    async def _read(self, url: str, message: M) -> M:
        return self._parsed(url, *await self._get(url), message)

    async def _get(self, url: str) -> tuple[int, bytes]:
        try:
            async with self._opened().get(url, timeout=_READ_TIMEOUT) as response:
                return response.status, await response.read()
        except _CONNECTION_ERRORS as error:
            raise Unavailable(f"{self._url} over HTTP: {_described(error)}") from error

    def _parsed(self, url: str, status: int, body: bytes, message: M) -> M:
        if status != 200:
            raise _translated(status, f"{url}: HTTP {status}: {_error_text(body)}")
        try:
            return json_format.Parse(body, message, ignore_unknown_fields=True)
        except (json_format.ParseError, UnicodeDecodeError) as error:
            raise Unavailable(f"{url} did not answer as the protocol asks: {error}") from error


def _translated(status: int, text: str) -> RidgelineError:
    if status == 404:
        return NotFound(text)
    return InvalidInput(text) if 400 <= status < 500 else Unavailable(text)


def _error_text(body: bytes) -> str:
    """The text of the protocol's {"error": ...}, or the start of whatever came instead."""
    try:
        return str(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        return body[:200].decode(errors="replace") or "no details"


def _described(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientResponseError):
        return "it does not speak HTTP (is this its gRPC port?)"
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"cannot connect: {error.os_error.strerror or error.os_error}"
    return str(error) or type(error).__name__
