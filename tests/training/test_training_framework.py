"""Standard error while TensorFlow loads: its notes are left out, everything else arrives."""

import os

import pytest

from training.framework import filtered_stderr


def test_noise_is_left_out_and_other_lines_arrive_in_order(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with filtered_stderr((b"noise",)):
        os.write(2, b"first\nI0000 noise here\nsecond\nno newline")
    os.write(2, b", after\n")
    assert capfd.readouterr().err == "first\nsecond\nno newline, after\n"


def test_an_error_inside_loses_no_line(capfd: pytest.CaptureFixture[str]) -> None:
    def load() -> None:
        with filtered_stderr((b"noise",)):
            os.write(2, b"libcuda is missing\n")
            raise ImportError("libcuda")

    with pytest.raises(ImportError, match="libcuda"):
        load()
    os.write(2, b"still standard error\n")
    assert capfd.readouterr().err == "libcuda is missing\nstill standard error\n"
