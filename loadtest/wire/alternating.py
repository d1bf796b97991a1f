"""Puts the same load on two servers in turn, block by block, from one process.

Usage: python -m loadtest.wire.alternating, with {"specs": [SPEC, SPEC], "pairs": 40, "block_s":
0.1, "seed": 0} on standard input; prints {"p50_ns": [[...], [...]], "per_s": ..., "failed": ...}.
Each pair is measured in an order of its own, drawn by the seed.
"""

import asyncio
import dataclasses
import json
import os
import sys
from typing import Any

import numpy as np
import uvloop

from loadtest.wire.generator import drive
from loadtest.wire.ledger import ANSWERED
from loadtest.wire.spec import Spec
from ridgeline.errors import RidgelineError

_NS_PER_S = 1_000_000_000


async def alternate(
    specs: tuple[Spec, Spec], *, pairs: int, block_s: float, seed: int
) -> dict[str, Any]:
    """Medians and rates of each block, for each of the two; `failed` counts what was not answered.

    A block in which nothing was answered has a median of 0.
    """
    blocks = [dataclasses.replace(spec, duration_s=block_s) for spec in specs]
    found: dict[str, Any] = {"p50_ns": [[], []], "per_s": [[], []], "failed": [0, 0]}
    orders = np.random.default_rng(seed).random(pairs) < 0.5
    for swapped in orders.tolist():
        figures: dict[int, tuple[float, float, int]] = {}
        for place in (1, 0) if swapped else (0, 1):
            figures[place] = await _block(blocks[place])
        for place, (p50_ns, per_s, failed) in figures.items():
            found["p50_ns"][place].append(p50_ns)
            found["per_s"][place].append(per_s)
            found["failed"][place] += failed
    return found


async def _block(spec: Spec) -> tuple[float, float, int]:
    entries = (await drive(spec)).entries
    answered = entries.statuses == ANSWERED
    count = int(np.count_nonzero(answered))
    latencies_ns = (entries.done_ns - entries.intended_ns)[answered]
    end_ns = max(int(spec.load_s * _NS_PER_S), int(entries.done_ns.max(initial=0)))
    p50_ns = float(np.median(latencies_ns)) if count else 0.0
    return p50_ns, _NS_PER_S * count / end_ns, len(answered) - count


def main() -> int:
    """Run what standard input tells, print the figures. Returns the exit code."""
    try:
        told = json.load(sys.stdin)
        one, other = (Spec.from_json(json.dumps(spec)) for spec in told["specs"])
        if one.core is not None:
            os.sched_setaffinity(0, {one.core})
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            found = runner.run(
                alternate(
                    (one, other),
                    pairs=told["pairs"],
                    block_s=told["block_s"],
                    seed=told.get("seed", 0),
                )
            )
    except (RidgelineError, OSError, KeyError, TypeError, ValueError) as error:
        print(f"alternating: {error}", file=sys.stderr)
        return 1
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
