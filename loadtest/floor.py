"""The physical floor of a run: what the model costs, and what the server's machine can do."""

import socket
from dataclasses import dataclass
from pathlib import Path

from ridgeline import repository, roofline
from ridgeline.cost import ModelCost
from ridgeline.errors import NotFound
from ridgeline.hardware import Hardware
from ridgeline.roof import Roof

_NS_PER_MS = 1e6
_NO_COST = (
    "the server does not tell what the model costs; name its model repository with --repository"
)


@dataclass(frozen=True)
class Beside:
    """Latency and throughput of one run beside the floor. None where it is unknown or zero.

    `floor_ms` is that of `ridgeline.roofline`, layer by layer where the layers are known;
    `simple_floor_ms` max(FLOPs / peak, bytes / bandwidth) of the whole pass, and `bound_by` says
    which of the two decides. `ratio_to_floor` holds latency / floor, `share_of_peak` the FLOPs per
    second that the run achieved over those that the machine can do. `note` says why the floor is
    unknown or doubtful.
    """

    floor_ms: float | None = None
    simple_floor_ms: float | None = None
    bound_by: str | None = None
    ratio_to_floor: dict[str, float] | None = None
    achieved_flops_per_s: float | None = None
    share_of_peak: float | None = None
    note: str | None = None


def beside_floor(
    *,
    latencies_ms: dict[str, float],
    samples_per_s: float,
    batch_size: int,
    cost: ModelCost | None,
    hardware: Roof | None,
    note: str | None,
) -> Beside:
    """Compare a run with the floor of one pass over `batch_size` samples on `hardware`."""
    if cost is None:
        return Beside(note=_NO_COST)
    achieved = samples_per_s * cost.flops_per_sample
    if hardware is None:
        return Beside(achieved_flops_per_s=achieved, note=note)
    bound = roofline.floor(cost, batch_size=batch_size, hardware=hardware)
    floor_ms = bound.ns / _NS_PER_MS
    ratios = {name: value / floor_ms for name, value in latencies_ms.items()} if floor_ms else None
    if ratios and min(ratios.values()) < 1:
        note = (
            "a latency lies below the floor: the model runs on other hardware than the one "
            "measured, or that was busy when measured (try `ridgeline hardware --again`)"
        )
    return Beside(
        floor_ms=floor_ms,
        simple_floor_ms=bound.simple_ns / _NS_PER_MS,
        bound_by=bound.bound_by,
        ratio_to_floor=ratios,
        achieved_flops_per_s=achieved,
        share_of_peak=achieved / hardware.peak_flops_per_s,
        note=note,
    )


def roof_under(
    hardware: Hardware | None, *, device: str, note: str | None
) -> tuple[Roof | None, str | None]:
    """The roof of the device that a model runs on, or None and why it is unknown."""
    if hardware is None:
        return None, note
    try:
        return hardware.roof_of(device), note
    except NotFound as error:
        return None, f"the model runs on {device}: {error}"


def cost_in_repository(root: Path, *, model: str, version: str) -> ModelCost | None:
    """The cost in the model card of that version (the newest if empty); None where it has none.

    Raises NotFound where the repository does not hold it.
    """
    found = next((entry for entry in repository.scan(root) if entry.name == model), None)
    if found is None or not found.versions:
        raise NotFound(f"the repository {root} holds no version of a model {model!r}")
    number = int(version) if version.isdecimal() else found.versions[-1]
    if number not in found.versions:
        raise NotFound(
            f"the repository {root} holds the versions {list(found.versions)} of {model!r}, "
            f"not {version}"
        )
    card = repository.read_card(found.version_directory(number))
    return card.cost if card else None


def is_this_machine(host: str) -> bool:
    """Whether `host` is an address of this machine: one that a socket can be bound to here."""
    try:
        addresses = socket.getaddrinfo(host, 0, type=socket.SOCK_DGRAM)
    except OSError:
        return False
    return any(_bindable(family, address) for family, _, _, _, address in addresses)


def _bindable(family: int, address: tuple[object, ...]) -> bool:
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind(address)
    except OSError:
        return False
    return True
