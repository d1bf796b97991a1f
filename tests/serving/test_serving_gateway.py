"""The whole gateway in one process: start, stop, and everything in between; and its command."""

import argparse
import asyncio
import json
import os
import signal
import socket
import threading

import pytest
import tritonclient.grpc as grpc_client
import tritonclient.http as http_client

from ridgeline.errors import InvalidInput, NotFound
from serving import command
from serving import registry as registry_module
from serving.gateway import Gateway
from serving.protocol.http_server import HttpServer

pytestmark = pytest.mark.anyio


def _look(gateway: Gateway) -> dict[str, object]:
    """What both official clients see of the gateway; blocks."""
    addresses = gateway.addresses
    seen = {}
    for name, module, port in (
        ("grpc", grpc_client, addresses.grpc_port),
        ("http", http_client, addresses.http_port),
    ):
        client = module.InferenceServerClient(f"{addresses.host}:{port}")
        try:
            seen[name] = (
                client.is_server_live(),
                client.is_server_ready(),
                client.is_model_ready("m"),
            )
        finally:
            client.close()
    return seen


@pytest.fixture
def loading(monkeypatch):
    """Two events: loading has begun; loading may go on."""
    begun, go_on = threading.Event(), threading.Event()
    load = registry_module.load_version

    def wait_and_load(*arguments, **options):
        begun.set()
        go_on.wait(timeout=60)
        return load(*arguments, **options)

    monkeypatch.setattr(registry_module, "load_version", wait_and_load)
    yield begun, go_on
    go_on.set()


async def test_a_gateway_starts_answers_and_stops(repository, models, settings):
    repository.add("m", models.identity())
    gateway = Gateway(settings)

    await gateway.start()
    seen = await asyncio.to_thread(_look, gateway)
    await gateway.stop()

    assert seen == {"grpc": (True, True, True), "http": (True, True, True)}


async def test_while_models_load_the_gateway_is_live_but_not_ready(
    repository, models, settings, loading
):
    repository.add("m", models.identity())
    begun, go_on = loading
    gateway = Gateway(settings)
    starting = asyncio.create_task(gateway.start())
    await asyncio.to_thread(begun.wait, 60)

    early = await asyncio.to_thread(_look, gateway)
    go_on.set()
    await starting
    later = await asyncio.to_thread(_look, gateway)
    await gateway.stop()

    assert early == {"grpc": (True, False, False), "http": (True, False, False)}
    assert later == {"grpc": (True, True, True), "http": (True, True, True)}


async def test_a_gateway_that_was_not_started_can_be_stopped(repository, settings):
    assert repository.root.is_dir()

    await Gateway(settings).stop()


async def test_a_gateway_can_be_stopped_at_every_moment_of_its_start(
    repository, models, settings, loading
):
    repository.add("m", models.identity())
    _, go_on = loading
    go_on.set()
    for steps in range(0, 40, 8):
        gateway = Gateway(settings)
        starting = asyncio.create_task(gateway.start())
        for _ in range(steps):
            await asyncio.sleep(0)
        starting.cancel()

        await gateway.stop()

        await asyncio.wait([starting])


async def test_a_port_that_is_taken_is_named():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InvalidInput, match=f"cannot listen on 127.0.0.1:{port}: .*in use"):
            HttpServer(None, host="127.0.0.1", port=port, drain_seconds=1)


async def test_a_host_that_is_none_is_named():
    with pytest.raises(InvalidInput, match=r"cannot listen on 999\.1\.1\.1:0: "):
        HttpServer(None, host="999.1.1.1", port=0, drain_seconds=1)


async def test_ipv6_is_listened_on():
    server = HttpServer(None, host="::1", port=0, drain_seconds=1)

    assert server.port > 0
    await server.stop()


def _arguments(settings, *, as_json: bool) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", action="store_true")
    command.add_arguments(parser)
    ports = ["--grpc-port=0", "--http-port=0", "--metrics-port=0"]
    flags = [f"--repository={settings.repository}", *ports]
    return parser.parse_args([*flags, "--json"] if as_json else flags)


@pytest.fixture
def stops_when_ready(monkeypatch):
    """Has this process receive SIGTERM once the command has told that it is ready."""
    announce = command._announce

    def announce_and_stop(*arguments, **options):
        announce(*arguments, **options)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(command, "_announce", announce_and_stop)


@pytest.mark.usefixtures("stops_when_ready")
def test_the_command_tells_machines_where_it_listens_and_what_it_serves(
    repository, models, settings, capsys
):
    repository.add("broken", b"garbage")
    repository.add("m", models.identity())
    (repository.root / "hollow").mkdir()

    result = command.run(_arguments(settings, as_json=True))

    ready = json.loads(capsys.readouterr().out)
    assert result == {"answered_requests": 0}
    assert (ready["event"], ready["pid"], ready["host"]) == ("ready", os.getpid(), "127.0.0.1")
    assert len({ready[f"{name}_port"] for name in ("grpc", "http", "metrics")} - {0}) == 3
    assert ready["models"]["m/1"] == "READY"
    assert ready["models"]["broken/1"] == "UNAVAILABLE"
    assert ready["models"]["hollow"].startswith("UNAVAILABLE: ")


@pytest.mark.usefixtures("stops_when_ready")
def test_the_command_tells_people_the_same(repository, models, settings, capsys):
    repository.add("m", models.identity())

    command.show(command.run(_arguments(settings, as_json=False)))

    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [
        "gRPC",
        "HTTP",
        "metrics",
        "model",
        "ready",
        "stopped",
    ]
    assert lines[3] == "model    m/1: READY"
    assert lines[-1] == "stopped after 0 answered requests"


def test_the_command_fails_where_there_is_no_repository(settings):
    with pytest.raises(NotFound, match="there is no model repository at"):
        command.run(_arguments(settings, as_json=True))


def test_a_stop_while_models_load_ends_the_command(repository, models, settings, loading):
    repository.add("m", models.identity())
    begun, go_on = loading

    def stop() -> None:
        begun.wait(timeout=60)
        os.kill(os.getpid(), signal.SIGTERM)
        go_on.set()

    thread = threading.Thread(target=stop)
    thread.start()
    result = command.run(_arguments(settings, as_json=True))
    thread.join()

    assert result == {"answered_requests": 0}
