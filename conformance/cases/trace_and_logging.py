"""The trace and logging extensions: settings read, changed, cleared, refused."""

import functools
from collections.abc import Iterator
from typing import Any

from tritonclient.grpc import service_pb2

from conformance.answer import ANY, Answer, Expected
from conformance.ask import get, post, rpc, steps
from conformance.case import Ask, Case, Server

_TRACE, _LOGGING = "trace", "logging"


def cases() -> Iterator[Case]:
    """Every case of this file."""
    for protocol in ("http", "grpc"):
        yield from _trace(protocol)
        yield from _refused_trace(protocol)
        yield from _logging(protocol)


def _good(protocol: str) -> tuple[str, ...]:
    return ("200",) if protocol == "http" else ("OK",)


def _bad(protocol: str) -> tuple[str, ...]:
    return (
        ("400", "404", "501", "503")
        if protocol == "http"
        else ("INVALID_ARGUMENT", "NOT_FOUND", "UNAVAILABLE", "UNIMPLEMENTED")
    )


def _trace_ask(protocol: str, settings: dict[str, Any] | None = None, *, model: str = "") -> Ask:
    """Read the settings, or change some and read them."""
    if protocol == "http":
        path = f"/v2/models/{model}/trace/setting" if model else "/v2/trace/setting"
        return get(path) if settings is None else post(path, settings)
    request = service_pb2.TraceSettingRequest(model_name=model)
    for name, value in (settings or {}).items():
        field = request.settings[name]
        values = value if isinstance(value, list) else [] if value is None else [value]
        field.value.extend(map(str, values))
    return _flat(rpc("TraceSetting", request))


def _flat(ask: Ask) -> Ask:
    """The settings of a gRPC answer as HTTP has them: lists of one are texts, but for the level."""

    def asked(server: Server) -> Answer:
        answer = ask(server)
        if answer.failed:
            return answer
        body = {}
        for name, field in answer.body.get("settings", {}).items():
            values = field.get("value", [])
            body[name] = values if name == "trace_level" or len(values) != 1 else values[0]
        return Answer(answer.status, body)

    return asked


def _trace_case(protocol: str, name: str, ask: Ask, expected: Expected, *models: str) -> Case:
    return Case(f"{protocol}/trace/{name}", ask, expected, extension=_TRACE, models=models)


def _trace(protocol: str) -> Iterator[Case]:
    good, case = _good(protocol), functools.partial(_trace_case, protocol)
    everything = {"trace_level": ["OFF"], "trace_rate": "1000", "trace_count": "-1"}
    yield case("settings", _trace_ask(protocol), Expected(good, everything))
    yield case(
        "settings-of-a-model",
        _trace_ask(protocol, model="simple"),
        Expected(good, everything),
        "simple",
    )
    for name, settings in (
        ("rate", {"trace_rate": "7"}),
        ("count", {"trace_count": "5"}),
        ("log-frequency", {"log_frequency": "9"}),
    ):
        clear = dict.fromkeys(settings)
        yield case(
            f"set-and-clear/{name}",
            steps(
                set=_trace_ask(protocol, settings, model="simple"),
                read=_trace_ask(protocol, model="simple"),
                others=_trace_ask(protocol),
                clear=_trace_ask(protocol, clear, model="simple"),
            ),
            Expected(good, {"set": {"body": settings}, "read": {"body": settings}}),
            "simple",
        )
        yield case(
            f"set-and-clear-globally/{name}",
            steps(
                set=_trace_ask(protocol, settings),
                model=_trace_ask(protocol, model="simple"),
                clear=_trace_ask(protocol, clear),
            ),
            Expected(good, {"set": {"body": settings}, "model": {"body": settings}}),
            "simple",
        )


def _refused_trace(protocol: str) -> Iterator[Case]:
    case = functools.partial(_trace_case, protocol)
    bad = Expected(_bad(protocol), {"error": ANY})
    either = Expected((*_good(protocol), *_bad(protocol)))  # Triton ignores what it does not know
    refused: tuple[tuple[str, dict[str, Any], Expected], ...] = (
        ("unknown-setting", {"trace_colour": "blue"}, either),
        ("unknown-level", {"trace_level": ["EVERYTHING"]}, either),
        ("level-without-a-file", {"trace_level": ["TIMESTAMPS"]}, either),
        ("rate-a-word", {"trace_rate": "often"}, bad),
        ("rate-negative", {"trace_rate": "-1"}, either),
        ("count-a-word", {"trace_count": "many"}, bad),
        ("count-below-minus-one", {"trace_count": "-2"}, bad),
        ("log-frequency-a-word", {"log_frequency": "often"}, bad),
        ("file", {"trace_file": "/nonexistent/trace.json"}, bad),
        ("mode", {"trace_mode": "triton"}, either),
    )
    for name, wrong, expected in refused:
        yield case(f"refused/{name}", _and_back(protocol, wrong), expected)
    yield case("unknown-model", _trace_ask(protocol, model="nope"), bad)
    yield case("unknown-model-set", _trace_ask(protocol, {"trace_rate": "7"}, model="nope"), bad)
    if protocol == "http":
        for name, body in (("broken", b"{"), ("a-list", b"[]"), ("a-number", {"trace_rate": 7})):
            yield case(f"body-{name}", post("/v2/trace/setting", body), Expected(("200", "400")))


def _and_back(protocol: str, settings: dict[str, Any]) -> Ask:
    """Change settings, and put everything back, whatever became of it: only the status counts."""

    def asked(server: Server) -> Answer:
        answer = _trace_ask(protocol, settings)(server)
        names = ("trace_level", "trace_rate", "trace_count", "log_frequency")
        _trace_ask(protocol, dict.fromkeys(names))(server)
        return answer if answer.failed else Answer(answer.status)

    return asked


def _log_ask(protocol: str, settings: dict[str, Any] | None = None) -> Ask:
    if protocol == "http":
        return get("/v2/logging") if settings is None else post("/v2/logging", settings)
    request = service_pb2.LogSettingsRequest()
    kinds = {bool: "bool_param", int: "uint32_param", str: "string_param"}
    for name, value in (settings or {}).items():
        setattr(request.settings[name], kinds[type(value)], value)
    ask = rpc("LogSettings", request)

    def asked(server: Server) -> Answer:
        answer = ask(server)
        if answer.failed:
            return answer
        settings = answer.body.get("settings", {})
        return Answer(
            answer.status, {name: next(iter(field.values())) for name, field in settings.items()}
        )

    return asked


def _logging(protocol: str) -> Iterator[Case]:
    good = _good(protocol)
    kept = {"log_file", "log_info", "log_warning", "log_error", "log_verbose_level", "log_format"}

    def case(name: str, ask: Ask, expected: Expected) -> Case:
        return Case(f"{protocol}/logging/{name}", ask, expected, extension=_LOGGING)

    yield case("settings", _names(_log_ask(protocol)), Expected(good, sorted(kept)))
    for name, change, back in (
        ("info", {"log_info": True}, {"log_info": False}),
        ("verbose-level", {"log_verbose_level": 1}, {"log_verbose_level": 0}),
        ("format", {"log_format": "ISO8601"}, {"log_format": "default"}),
    ):
        yield case(
            f"set/{name}",
            steps(
                set=_picked(_log_ask(protocol, change), change),
                read=_picked(_log_ask(protocol), change),
                back=_picked(_log_ask(protocol, back), change),
            ),
            Expected(
                good, {"set": {"body": change}, "read": {"body": change}, "back": {"body": back}}
            ),
        )
    bad = Expected(_bad(protocol), {"error": ANY})
    for name, settings in (
        ("unknown-setting", {"log_colour": "blue"}),
        ("info-a-text", {"log_info": "yes"}),
        ("verbose-level-a-text", {"log_verbose_level": "high"}),
        ("unknown-format", {"log_format": "roman"}),
        ("format-a-number", {"log_format": 7}),
        ("file", {"log_file": "/nonexistent/log"}),
    ):
        unknown = Expected((*good, *bad.statuses)) if name == "unknown-setting" else bad
        yield case(f"refused/{name}", _only_status(_log_ask(protocol, settings)), unknown)
    if protocol == "http":
        for name, body in (("broken", b"{"), ("a-list", b"[]")):
            yield case(f"body-{name}", post("/v2/logging", body), Expected(("400",)))


def _only_status(ask: Ask) -> Ask:
    def asked(server: Server) -> Answer:
        answer = ask(server)
        return answer if answer.failed else Answer(answer.status)

    return asked


def _names(ask: Ask) -> Ask:
    def asked(server: Server) -> Answer:
        answer = ask(server)
        return answer if answer.failed else Answer(answer.status, sorted(answer.body))

    return asked


def _picked(ask: Ask, names: dict[str, Any]) -> Ask:
    def asked(server: Server) -> Answer:
        answer = ask(server)
        if answer.failed:
            return answer
        return Answer(answer.status, {name: answer.body.get(name) for name in names})

    return asked
