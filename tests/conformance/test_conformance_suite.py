"""Ridgeline speaks the protocol: every case of the suite passes, on both front ends."""

import fnmatch
from collections import Counter

import pytest

from conformance import suite
from conformance.answer import Answer, Expected
from conformance.case import Case, Server, Verdict, put
from conformance.cases import every_case
from conformance.grpc_probe import GrpcProbe
from conformance.http_probe import HttpProbe
from ridgeline.errors import InvalidInput, Unavailable

# Cases of parts that the gateway does not have yet. What it does not announce is not run.
NOT_YET = (
    "http/infer/json/parameter-that-is-*",
    "http/infer/raw/*",
    "http/generate*",
)


def _not_yet(name):
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in NOT_YET)


def test_every_case_passes(outcomes):
    failed = {
        outcome.name: f"{outcome.verdict.value}: {outcome.reason}"
        for outcome in outcomes.values()
        if outcome.verdict is Verdict.FAIL and not _not_yet(outcome.name)
    }

    assert failed == {}
    passed = [outcome for outcome in outcomes.values() if outcome.verdict is Verdict.PASS]
    assert len(passed) > 500


def test_no_case_takes_long(outcomes):
    assert [name for name, outcome in outcomes.items() if outcome.took_ns > 10 * 10**9] == []


def test_there_are_cases_of_every_datatype_on_every_path():
    names = [case.name for case in every_case()]

    for path in ("http/infer/json", "http/infer/binary", "grpc/infer/raw"):
        for kind in ("identity", "plain"):
            count = Counter(name.startswith(f"{path}/{kind}/") for name in names)
            assert count[True] == 14, path


def test_names_are_chosen_by_the_words_in_them(served):
    with suite.connected(grpc=served.grpc_url, http=served.http_url) as server:
        outcomes = suite.run(server, words=["health/live", "health/standard"])
        with pytest.raises(InvalidInput, match="no case has a name with 'nothing-like-it' in it"):
            suite.run(server, words=["nothing-like-it"])

    assert {outcome.name.split("/")[1] for outcome in outcomes} == {"health"}
    assert suite.counted(outcomes) == {"pass": len(outcomes), "fail": 0, "not run": 0}


def test_a_server_that_is_not_there_is_unavailable():
    with (
        pytest.raises(Unavailable, match="no server of the protocol over gRPC"),
        suite.connected(grpc="127.0.0.1:1", http="127.0.0.1:1", timeout_s=1),
    ):
        pass


def test_http_that_nobody_speaks_is_unavailable(served):
    with (
        pytest.raises(Unavailable, match="no server of the protocol over HTTP"),
        suite.connected(grpc=served.grpc_url, http="127.0.0.1:1", timeout_s=1),
    ):
        pass


def _server(http="127.0.0.1:1"):
    return Server(GrpcProbe("127.0.0.1:1", timeout_s=1), HttpProbe(http, timeout_s=0.5))


def _outcome(ask, **fields):
    case = Case("http/x", ask, Expected(("200",), {"a": 1}), **fields)
    return put(case, to=_server())


def test_a_case_fails_with_what_was_expected_and_received():
    assert _outcome(lambda _: Answer("200", {"a": 1, "b": 2})).verdict is Verdict.PASS
    other = _outcome(lambda _: Answer("400", {"error": "too bad"}))
    assert (other.verdict, other.reason) == (Verdict.FAIL, "expected 200, received 400 (too bad)")
    wrong = _outcome(lambda _: Answer("200", {"a": 2}))
    assert (wrong.verdict, wrong.reason) == (Verdict.FAIL, ".a: expected 1, received 2")


def test_a_server_that_breaks_the_connection_fails_the_case():
    broken = _outcome(lambda server: server.http.get("/v2"))

    assert broken.verdict is Verdict.FAIL
    assert broken.reason.startswith("expected 200, received NO_ANSWER (ConnectionRefusedError")


def test_an_answer_of_another_form_fails_the_case():
    odd = _outcome(lambda _: Answer("200", {}.__getitem__("outputs")))

    assert odd.verdict is Verdict.FAIL
    assert "UNREADABLE (KeyError: 'outputs')" in odd.reason


def test_a_case_whose_model_is_not_there_is_not_run():
    absent = _outcome(lambda _: Answer("200"), models=("simple",))

    assert (absent.verdict, absent.reason) == (Verdict.NOT_RUN, "not ready: simple")


def test_a_case_of_an_extension_that_is_not_announced_is_not_run(served):
    case = Case("http/x", lambda _: Answer("200"), Expected(("200",)), extension="teleportation")
    with suite.connected(grpc=served.grpc_url, http=served.http_url) as server:
        outcome = put(case, to=server)

    assert outcome.verdict is Verdict.NOT_RUN
    assert outcome.reason == "the server does not announce teleportation"


@pytest.mark.parametrize("name", ["infer/x", "grpc", "HTTP/x", "http/X"])
def test_a_name_says_over_what_it_asks(name):
    with pytest.raises(InvalidInput, match=f"received '{name}'"):
        Case(name, lambda _: Answer("200"), Expected(("200",)))
