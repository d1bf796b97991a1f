"""The command `ridgeline serve`."""

import argparse
import asyncio
import gc
import json
import logging
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ridgeline.settings import add_settings, load_settings
from serving.compiled import INTERPRETED_BECAUSE
from serving.settings import SECTION, ServeSettings

if TYPE_CHECKING:
    from serving.gateway import Gateway

logger = logging.getLogger(__name__)

_GC_THRESHOLDS = (50_000, 20, 100)
_SWITCH_INTERVAL_S = 0.0005


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One flag per setting."""
    add_settings(parser, cls=ServeSettings, section=SECTION)


def run(arguments: argparse.Namespace) -> Mapping[str, Any]:
    """Serve until SIGTERM or Ctrl-C, then drain. With `--json` the first line tells the ports."""
    settings = load_settings(
        ServeSettings, section=SECTION, arguments=arguments, environ=os.environ
    )
    import uvloop  # what follows needs the `serve` extra; `--help` does not

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(settings, as_json=arguments.json))


def show(result: Mapping[str, Any]) -> None:
    """Say how the server ended."""
    print(f"stopped after {result['answered_requests']} answered requests")


async def _serve(settings: ServeSettings, *, as_json: bool) -> Mapping[str, Any]:
    from serving.gateway import Gateway

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if INTERPRETED_BECAUSE is not None:
        logger.warning("requests pass through interpreted code: %s", INTERPRETED_BECAUSE)
    gateway = Gateway(settings)
    starting = asyncio.create_task(gateway.start())
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            starting.result()  # raises what kept the server from starting
            _tame_interpreter()
            _announce(gateway, as_json=as_json)
        await stopping
    finally:
        starting.cancel()
        stopping.cancel()
        statistics = [served.ready.statistics for served in gateway.registry if served.ready]
        await gateway.stop()
    return {"answered_requests": sum(model.success for model in statistics)}


def _tame_interpreter() -> None:
    """Spend less on collecting garbage, and let engine threads have their turn sooner.

    Requests leave no cycles behind: what is alive now stays, and young objects are looked through
    less often. A thread that comes back from the engine waits for the interpreter at most the
    switch interval, 5 ms by default, which is longer than many a batch takes.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)
    sys.setswitchinterval(_SWITCH_INTERVAL_S)


def _announce(gateway: "Gateway", *, as_json: bool) -> None:
    addresses = gateway.addresses
    models = {
        f"{served.name}/{served.version}": served.state.value for served in gateway.registry
    } | {name: f"UNAVAILABLE: {reason}" for name, reason in gateway.registry.broken.items()}
    if as_json:
        ready = {
            "event": "ready",
            "pid": os.getpid(),
            **asdict(addresses),
            "models": models,
            "compiled": INTERPRETED_BECAUSE is None,
        }
        print(json.dumps(ready), flush=True)
        return
    host = addresses.host
    print(f"gRPC     {host}:{addresses.grpc_port}")
    print(f"HTTP     http://{host}:{addresses.http_port}/v2")
    print(f"metrics  http://{host}:{addresses.metrics_port}/metrics")
    for name, state in models.items():
        print(f"model    {name}: {state}")
    print("ready", flush=True)
