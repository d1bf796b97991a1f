"""What a case is, the server that it is put to, and how it is judged."""

import http.client
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from tritonclient.grpc import service_pb2

from conformance.answer import Answer, Expected
from conformance.grpc_probe import GrpcProbe
from conformance.http_probe import HttpProbe
from ridgeline.errors import InvalidInput

NO_ANSWER = "NO_ANSWER"  # the connection ended, or nothing came in time


class Verdict(Enum):
    """How a case ended."""

    PASS = "pass"  # noqa: S105 - no password
    FAIL = "fail"
    NOT_RUN = "not run"


@dataclass
class Server:
    """The server under test: a probe for each protocol that is to be tested."""

    grpc: GrpcProbe
    http: HttpProbe
    _ready: dict[str, bool] = field(default_factory=dict)
    _extensions: frozenset[str] | None = None

    @property
    def extensions(self) -> frozenset[str]:
        """What the server's metadata announce."""
        if self._extensions is None:
            body = self.http.get("/v2").body
            listed = body.get("extensions", []) if isinstance(body, dict) else []
            self._extensions = frozenset(listed)
        return self._extensions

    def has(self, model: str) -> bool:
        """Whether that model was ready when it was first asked for."""
        if model not in self._ready:
            request = service_pb2.ModelReadyRequest(name=model)
            answer = self.grpc.call("ModelReady", request)
            self._ready[model] = answer.status == "OK" and bool(answer.body.get("ready"))
        return self._ready[model]


Ask = Callable[[Server], Answer]


@dataclass(frozen=True)
class Case:
    """One named question to a server and the answer that is right.

    The name begins with its protocol: "http/infer/json/fp16-data-is-refused". `extension` must be
    announced and `models` be ready, or the case is not run.
    """

    name: str
    ask: Ask
    expected: Expected
    extension: str | None = None
    models: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.name.startswith(("grpc/", "http/")) or self.name != self.name.lower():
            raise InvalidInput(
                f"a case's name must be lower case and begin with grpc/ or http/, "
                f"received {self.name!r}"
            )

    @property
    def protocol(self) -> str:
        """Over what it asks."""
        return self.name.partition("/")[0]


@dataclass(frozen=True)
class Outcome:
    """A case that was put to a server."""

    name: str
    verdict: Verdict
    reason: str = ""
    answer: Answer | None = None
    took_ns: int = 0

    @property
    def unanswered(self) -> bool:
        """Whether the server seems to be gone."""
        return self.answer is not None and self.answer.status in (NO_ANSWER, "UNAVAILABLE")

    def to_json(self) -> dict[str, Any]:
        """As it is printed and kept."""
        return {
            "case": self.name,
            "verdict": self.verdict.value,
            "reason": self.reason,
            "answer": None if self.answer is None else self.answer.to_json(),
            "took_ms": round(self.took_ns / 1e6, 3),
        }


def put(case: Case, *, to: Server) -> Outcome:
    """Ask, and judge the answer."""
    if case.extension and case.extension not in to.extensions:
        reason = f"the server does not announce {case.extension}"
        return Outcome(case.name, Verdict.NOT_RUN, reason)
    if missing := [model for model in case.models if not to.has(model)]:
        reason = f"not ready: {', '.join(missing)}"
        return Outcome(case.name, Verdict.NOT_RUN, reason)
    begin_ns = time.monotonic_ns()
    try:
        answer = case.ask(to)
    except (OSError, http.client.HTTPException) as error:
        answer = Answer(NO_ANSWER, {"error": f"{type(error).__name__}: {error}"})
    except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
        answer = Answer("UNREADABLE", {"error": f"{type(error).__name__}: {error}"})
    took_ns = time.monotonic_ns() - begin_ns
    fault = case.expected.fault(answer)
    verdict = Verdict.FAIL if fault else Verdict.PASS
    return Outcome(case.name, verdict, fault or "", answer, took_ns)


def chosen(cases: Iterable[Case], *, words: Sequence[str]) -> Iterator[Case]:
    """The cases whose name holds one of the words; all without a word."""
    for case in cases:
        if not words or any(word in case.name for word in words):
            yield case
