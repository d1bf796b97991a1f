"""Header fields of a call that become parameters of its request (Triton's forward patterns)."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

_MAX_FIELDS = 100  # of one request; more are never a client's own


@dataclass(frozen=True)
class HeaderForwarding:
    """What of the header fields is forwarded, over gRPC (metadata) and over HTTP.

    The patterns are searched for in the fields' names, whatever their case; an empty one finds
    nothing.
    """

    grpc_pattern: str = ""
    http_pattern: str = ""

    def of_grpc(self, fields: Iterable[tuple[str | bytes, str | bytes]]) -> Mapping[str, str]:
        """The parameters that a call's metadata become, by their names in lower case."""
        return _forwarded(fields, pattern=self.grpc_pattern)

    def of_http(self, fields: Iterable[tuple[str | bytes, str | bytes]]) -> Mapping[str, str]:
        """The parameters that a request's header fields become, by their names in lower case."""
        return _forwarded(fields, pattern=self.http_pattern)


def _forwarded(
    fields: Iterable[tuple[str | bytes, str | bytes]], *, pattern: str
) -> Mapping[str, str]:
    """The last value of each field, where that is text."""
    if not pattern:
        return {}
    search = re.compile(pattern, re.IGNORECASE).search
    found: dict[str, str] = {}
    for raw_name, raw_value in fields:
        name = _text(raw_name).lower()
        if name.startswith(":") or name.endswith("-bin") or len(found) >= _MAX_FIELDS:
            continue  # HTTP/2's own, and bytes
        if search(name):
            found[name] = _text(raw_value)
    return found


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("latin-1")
