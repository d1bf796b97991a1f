"""A run of the suite: every chosen case, put to one server, one after the other."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPException

from conformance.case import Outcome, Server, Verdict, chosen, put
from conformance.cases import every_case
from conformance.grpc_probe import GrpcProbe
from conformance.http_probe import HttpProbe
from ridgeline.errors import InvalidInput, Unavailable

CASE_TIMEOUT_S = 10.0  # of each exchange of a case


@contextmanager
def connected(*, grpc: str, http: str, timeout_s: float = CASE_TIMEOUT_S) -> Iterator[Server]:
    """A server at two addresses, HOST:PORT. Raises Unavailable where nobody answers there."""
    server = Server(GrpcProbe(grpc, timeout_s=timeout_s), HttpProbe(http, timeout_s=timeout_s))
    try:
        for name, answer in (("gRPC", server.grpc.call("ServerLive")), ("HTTP", _live(server))):
            if answer != "OK" and getattr(answer, "status", answer) not in ("OK", "200"):
                raise Unavailable(f"no server of the protocol over {name}: {answer}")
        yield server
    finally:
        server.grpc.close()


def run(
    server: Server,
    *,
    words: Sequence[str] = (),
    spare: Callable[[str], bool] = lambda _: False,
) -> list[Outcome]:
    """The outcomes of all cases whose names hold one of the words, but those to be spared.

    Raises InvalidInput where no case does.
    """
    outcomes: list[Outcome] = []
    ended_by: str | None = None
    for case in chosen(every_case(), words=words):
        if ended_by or spare(case.name):
            reason = f"the server was gone after {ended_by}" if ended_by else "spared"
            outcome = Outcome(case.name, Verdict.NOT_RUN, reason)
        else:
            outcome = put(case, to=server)
            ended_by = case.name if outcome.unanswered and _live(server) != "200" else None
        outcomes.append(outcome)
    if not outcomes:
        raise InvalidInput(f"no case has a name with {' or '.join(map(repr, words))} in it")
    return outcomes


def ready(*, grpc: str, http: str) -> bool:
    """Whether a server at these addresses says that it is ready."""
    probe = GrpcProbe(grpc, timeout_s=1)
    try:
        answer = probe.call("ServerReady")
        return answer.status == "OK" and bool(answer.body.get("ready")) and _answers(http)
    finally:
        probe.close()


def _answers(http: str) -> bool:
    try:
        return HttpProbe(http, timeout_s=1).get("/v2/health/ready").status == "200"
    except (OSError, HTTPException):
        return False


def counted(outcomes: Sequence[Outcome]) -> dict[str, int]:
    """How many cases ended which way."""
    return {
        verdict.value: sum(outcome.verdict is verdict for outcome in outcomes)
        for verdict in Verdict
    }


def _live(server: Server) -> str:
    try:
        return server.http.get("/v2/health/live").status
    except (OSError, HTTPException) as error:
        return str(error)
