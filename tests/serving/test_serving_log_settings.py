"""Logging settings act on Python's logging."""

import logging

import pytest

from ridgeline.errors import InvalidInput, Unsupported
from serving.log_settings import LogControl


@pytest.fixture
def shown(monkeypatch):
    """What a handler of the root logger lets through."""
    records = []

    class Handler(logging.Handler):
        def emit(self, record):
            records.append(self.format(record))

    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [Handler()])
    level = root.level
    yield records
    root.setLevel(level)


def _log_all():
    logger = logging.getLogger("a")
    logger.debug("debug")
    logger.info("info")
    logger.warning("warning")
    logger.error("error")


def test_each_level_can_be_switched(shown):
    control = LogControl()
    for changes, words in (
        ({"log_info": False}, ["warning", "error"]),
        ({"log_warning": False}, ["error"]),
        ({"log_error": False}, []),
        ({"log_verbose_level": 1}, ["debug"]),
        ({"log_info": True, "log_verbose_level": 0}, ["info"]),
    ):
        shown.clear()
        control.update(changes)
        _log_all()
        assert [line.rsplit(" ", 1)[1] for line in shown] == words


def test_the_time_is_written_as_iso_8601_where_asked(shown):
    LogControl().update({"log_format": "ISO8601"})
    _log_all()
    assert "T" in shown[0].split(" ")[0]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"log_info": 1}, "log_info must be a bool, received '1'"),
        ({"log_verbose_level": True}, "log_verbose_level must be a int"),
        ({"log_verbose_level": -1}, r"must lie in 0\.\.4294967295, received -1"),
        ({"log_format": "xml"}, "must be default or ISO8601, received 'xml'"),
    ],
)
def test_wrong_values_change_nothing(changes, words):
    control = LogControl()
    before = control.table
    with pytest.raises(InvalidInput, match=words):
        control.update({"log_warning": False, **changes})
    assert control.table == before


def test_unknown_names_are_ignored_and_the_file_cannot_be_moved():
    control = LogControl()
    before = control.table
    control.update({"nope": 1, "log_info": None})
    assert control.table == before
    with pytest.raises(Unsupported, match="can not be updated through network protocol"):
        control.update({"log_file": "x"})
