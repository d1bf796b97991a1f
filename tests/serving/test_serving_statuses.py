"""One table from errors to statuses, the same on both protocols."""

from http import HTTPStatus

import grpc
import pytest

from ridgeline import errors
from serving.execution import EngineFault
from serving.log_settings import UnknownFormat
from serving.model_errors import Cancelled, UnknownFault
from serving.protocol.statuses import status_of
from serving.served import UnknownVersion


@pytest.mark.parametrize(
    ("error", "code", "status"),
    [
        (errors.InvalidInput, grpc.StatusCode.INVALID_ARGUMENT, 400),
        (errors.Malformed, grpc.StatusCode.INVALID_ARGUMENT, 400),
        (errors.Unusable, grpc.StatusCode.INVALID_ARGUMENT, 400),
        (errors.NotFound, grpc.StatusCode.NOT_FOUND, 404),
        (UnknownVersion, grpc.StatusCode.INVALID_ARGUMENT, 404),
        (errors.Overloaded, grpc.StatusCode.RESOURCE_EXHAUSTED, 429),
        (errors.Unavailable, grpc.StatusCode.UNAVAILABLE, 503),
        (errors.DeadlineExceeded, grpc.StatusCode.DEADLINE_EXCEEDED, 504),
        (errors.Unsupported, grpc.StatusCode.UNIMPLEMENTED, 501),
        (errors.CorruptData, grpc.StatusCode.INTERNAL, 500),
        (EngineFault, grpc.StatusCode.INTERNAL, 500),
        (UnknownFault, grpc.StatusCode.UNKNOWN, 400),
        (Cancelled, grpc.StatusCode.CANCELLED, 400),
    ],
)
def test_each_error_has_its_status(error, code, status, caplog):
    assert status_of(error("what was wrong")) == (code, HTTPStatus(status), "what was wrong")
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("error", "code", "status"),
    [
        (errors.Malformed, grpc.StatusCode.INVALID_ARGUMENT, 500),
        (errors.Unusable, grpc.StatusCode.INTERNAL, 500),
        (errors.DeadlineExceeded, grpc.StatusCode.UNAVAILABLE, 503),
        (UnknownFormat, grpc.StatusCode.INVALID_ARGUMENT, 503),
        (errors.InvalidInput, grpc.StatusCode.INVALID_ARGUMENT, 400),
        (errors.NotFound, grpc.StatusCode.NOT_FOUND, 404),
    ],
)
def test_what_was_sent_is_told_as_the_servers_fault_where_tritons_codes_are_asked_for(
    error, code, status
):
    assert status_of(error("text"), like_triton=True) == (code, HTTPStatus(status), "text")


def test_an_unknown_error_is_our_fault_and_logged(caplog):
    try:
        raise KeyError("x")
    except KeyError as error:
        code, status, text = status_of(error)

    assert (code, status) == (grpc.StatusCode.INTERNAL, 500)
    assert text == "internal error: KeyError: 'x'"
    assert "Traceback" in caplog.text


def test_an_error_of_another_stage_is_our_fault_but_its_text_says_enough(caplog):
    assert status_of(errors.ParityFailed("far off"))[0] == grpc.StatusCode.INTERNAL
    assert caplog.text == ""


def test_a_long_text_is_cut_in_the_middle_so_that_it_fits_into_a_trailer():
    _, _, text = status_of(errors.InvalidInput("begin" + "🙂" * 100_000 + "end"))

    assert text.startswith("begin🙂")
    assert text.endswith("🙂end")
    assert len(text.encode()) * 3 < 8 * 1024  # percent-encoded, as gRPC sends it
