"""What is to be traced, as a client or the command line says it."""

import re
from dataclasses import dataclass
from typing import Any

from ridgeline.errors import InvalidInput, Malformed

TraceValue = list[str] | str | None
OFF, TIMESTAMPS, TENSORS = LEVELS = ("OFF", "TIMESTAMPS", "TENSORS")
_LIMITS = {
    "trace_rate": (1, 2**32 - 1),
    "trace_count": (-1, 2**31 - 1),
    "log_frequency": (0, 2**32 - 1),
}
_WHOLE_NUMBER = re.compile("-?[0-9]{1,20}")
_SHOWN = 80


@dataclass(frozen=True)
class TraceSettings:
    """Triton's settings: one of `trace_rate` requests is traced, `trace_count` in all (-1: any).

    After `log_frequency` traces the next file begins; 0 writes all into one. Raises InvalidInput.
    """

    trace_level: tuple[str, ...] = (OFF,)
    trace_rate: int = 1000
    trace_count: int = -1
    log_frequency: int = 0

    def __post_init__(self) -> None:
        unknown = [level for level in self.trace_level if level not in LEVELS]
        if unknown or not self.trace_level:
            words = ", ".join(unknown)[:_SHOWN]
            raise InvalidInput(f"trace_level must be of {', '.join(LEVELS)}, received {words!r}")
        if OFF in self.trace_level and len(self.trace_level) > 1:
            raise InvalidInput("trace_level OFF stands alone")
        for name, (least, most) in _LIMITS.items():
            if not least <= getattr(self, name) <= most:
                raise InvalidInput(
                    f"{name} must lie in {least}..{most}, received {getattr(self, name)}"
                )

    @property
    def on(self) -> bool:
        """Whether anything is to be traced."""
        return self.trace_level != (OFF,)


def ordered(levels: list[str] | tuple[str, ...]) -> tuple[str, ...]:
    """Each once, in the order of LEVELS; unknown ones are left for TraceSettings to refuse."""
    return (*(one for one in LEVELS if one in levels), *(set(levels) - set(LEVELS)))


def parsed(name: str, value: Any) -> Any:
    """The value of a setting, as a client gives it. Raises InvalidInput."""
    if name == "trace_level":
        if type(value) is not list or not all(type(one) is str for one in value):
            raise Malformed(f"{name} must be a list of texts, received {str(value)[:_SHOWN]!r}")
        return ordered(value)
    if type(value) is list:
        raise InvalidInput(f"{name} must be one value, received {len(value)}")
    if type(value) is not str or not _WHOLE_NUMBER.fullmatch(value):
        shown = str(value)[:_SHOWN]
        fault = InvalidInput if type(value) is str else Malformed
        raise fault(f"{name} must be a whole number as a text, received {shown!r}")
    return int(value)
