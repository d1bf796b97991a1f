"""What is logged, as clients may set it while the server runs: Triton's logging extension.

Acts on the handlers of Python's root logger, which the command line has set up.
"""

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace

from ridgeline.errors import InvalidInput, Malformed, Unsupported

LogValue = bool | int | str
_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_DATE_FORMATS = {"default": None, "ISO8601": "%Y-%m-%dT%H:%M:%S%z"}
_MOST_VERBOSE = 2**32 - 1


@dataclass(frozen=True)
class LogSettings:
    """Triton's settings; `log_verbose_level` above 0 shows what is for debugging.

    Raises InvalidInput where a value is of the wrong kind.
    """

    log_file: str = ""
    log_info: bool = True
    log_warning: bool = True
    log_error: bool = True
    log_verbose_level: int = 0
    log_format: str = "default"

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if type(value) is not field.type:
                kind = getattr(field.type, "__name__", field.type)
                raise Malformed(f"{field.name} must be a {kind}, received {str(value)[:80]!r}")
        if self.log_format not in _DATE_FORMATS:
            raise UnknownFormat(
                f"log_format must be default or ISO8601, received {self.log_format[:80]!r}"
            )
        if not 0 <= self.log_verbose_level <= _MOST_VERBOSE:
            raise InvalidInput(
                f"log_verbose_level must lie in 0..{_MOST_VERBOSE}, "
                f"received {self.log_verbose_level}"
            )

    def shows(self, level: int) -> bool:
        """Whether a record of that level is to be shown."""
        if level >= logging.ERROR:
            return self.log_error
        if level >= logging.WARNING:
            return self.log_warning
        return self.log_info if level >= logging.INFO else self.log_verbose_level > 0


class UnknownFormat(InvalidInput):
    """There is no such format of log lines."""


class LogControl:
    """Holds the settings of this process. Nothing changes until somebody sets one."""

    def __init__(self) -> None:
        self._settings = LogSettings()

    @property
    def table(self) -> dict[str, LogValue]:
        """The settings as they are, by name."""
        return asdict(self._settings)

    def update(self, changes: Mapping[str, LogValue | None]) -> None:
        """Change some settings, all or none; unknown names and None are ignored, as in Triton.

        Raises InvalidInput for a wrong value, Unsupported for log_file: what a client could make
        the server write to is decided where it is started.
        """
        known = {name: value for name, value in changes.items() if value is not None}
        known = {name: value for name, value in known.items() if name in self.table}
        if "log_file" in known:
            raise Unsupported("log file location can not be updated through network protocol")
        if not known:
            return
        self._settings = replace(self._settings, **known)  # type: ignore[arg-type]
        self._apply()

    def _apply(self) -> None:
        settings, root = self._settings, logging.getLogger()
        root.setLevel(logging.DEBUG if settings.log_verbose_level else logging.INFO)
        formatter = logging.Formatter(_FORMAT, datefmt=_DATE_FORMATS[settings.log_format])
        for handler in root.handlers:
            for filter_ in [f for f in handler.filters if isinstance(f, _Shown)]:
                handler.removeFilter(filter_)
            handler.addFilter(_Shown(settings))
            handler.setFormatter(formatter)


class _Shown(logging.Filter):
    def __init__(self, settings: LogSettings) -> None:
        super().__init__()
        self._settings = settings

    def filter(self, record: logging.LogRecord) -> bool:
        return self._settings.shows(record.levelno)
