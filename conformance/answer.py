"""What a server answered, in a form that can be compared with what is expected and kept as JSON."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


class _Any:
    """A place in a pattern where anything may stand."""

    def __repr__(self) -> str:
        return "anything"


ANY = _Any()


@dataclass(frozen=True)
class Answer:
    """A status ("200", "INVALID_ARGUMENT") and a body made of what JSON knows.

    The text of an error stands under "error" and nowhere else, so that it can be left out of
    comparisons.
    """

    status: str
    body: Any = None

    @property
    def failed(self) -> bool:
        """Whether this is the answer to something that could not be done."""
        return self.status != "OK" and not self.status.startswith("2")

    def to_json(self) -> dict[str, Any]:
        """As it is kept in a file."""
        return {"status": self.status, "body": self.body}

    def comparable(self) -> dict[str, Any]:
        """Without the wording of errors."""
        return {"status": self.status, "body": _without_texts(self.body)}


@dataclass(frozen=True)
class Expected:
    """Statuses that are right, and a pattern that the body must match."""

    statuses: tuple[str, ...]
    body: Any = ANY

    def fault(self, answer: Answer, /) -> str | None:
        """What is wrong with the answer, None where nothing is."""
        if answer.status not in self.statuses:
            text = _error_text(answer.body)
            received = f"{answer.status} ({text})" if text else answer.status
            return f"expected {' or '.join(self.statuses)}, received {received}"
        return mismatch(self.body, answer.body, at="")


def ok(body: Any = ANY, *, protocol: str) -> Expected:
    """Success, with a body that matches."""
    return Expected(("200",) if protocol == "http" else ("OK",), body)


def mismatch(pattern: Any, value: Any, *, at: str) -> str | None:
    """Where a value differs from its pattern. Objects may hold more keys than the pattern names."""
    if value is _MISSING:
        return f"{at} is missing"
    if pattern is ANY:
        return None
    if callable(pattern):
        return None if pattern(value) else f"{at or 'the body'}: {value!r} will not do"
    if isinstance(pattern, Mapping) and isinstance(value, Mapping):
        return _first_fault(
            (f"{at}.{key}", inner, value.get(key, _MISSING)) for key, inner in pattern.items()
        )
    if isinstance(pattern, list) and isinstance(value, list) and len(pattern) == len(value):
        return _first_fault(
            (f"{at}[{position}]", inner, item)
            for position, (inner, item) in enumerate(zip(pattern, value, strict=True))
        )
    if same(pattern, value):
        return None
    return f"{at or 'the body'}: expected {_short(pattern)}, received {_short(value)}"


_MISSING = object()


def _first_fault(places: Iterable[tuple[str, Any, Any]]) -> str | None:
    faults = (mismatch(pattern, value, at=at) for at, pattern, value in places)
    return next((fault for fault in faults if fault), None)


def same(left: Any, right: Any, /) -> bool:
    """Equality as of JSON: 1 is no True, NaN equals NaN, inside of objects and lists, too."""
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, bool) != isinstance(right, bool):
        return False
    if isinstance(left, float) and isinstance(right, float) and math.isnan(left):
        return math.isnan(right)
    return bool(left == right)


def _without_texts(body: Any) -> Any:
    if isinstance(body, Mapping):
        return {
            key: "some text" if key == "error" else _without_texts(value)
            for key, value in body.items()
        }
    if isinstance(body, list):
        return [_without_texts(item) for item in body]
    return body


def _error_text(body: Any) -> str:
    return str(body["error"])[:200] if isinstance(body, Mapping) and "error" in body else ""


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 160 else f"{text[:150]} ..."
