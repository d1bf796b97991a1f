"""What a model's configuration says about its queue and its batches (`dynamic_batching`)."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from tritonclient.grpc import model_config_pb2

from ridgeline.errors import InvalidInput

# A parameter of config.pbtxt: every request is to be answered within so many milliseconds.
BUDGET_PARAMETER = "ridgeline_latency_budget_ms"
_NS_PER_US = 1_000
_NS_PER_MS = 1_000_000
_NS_PER_S = 1_000_000_000


@dataclass(frozen=True)
class QueuePolicy:
    """The queue of one priority level, as Triton's ModelQueuePolicy.

    A request that waits longer than `timeout_ns` (0: no limit) is refused, or, where `delays`,
    goes behind all others. A request may shorten that where `overridable`.
    """

    max_requests: int
    timeout_ns: int = 0
    delays: bool = False
    overridable: bool = True


@dataclass(frozen=True)
class BatchPolicy:
    """How one model's requests are queued and batched.

    `preferred_rows` and `delay_ns` are Triton's preferred_batch_size and max_queue_delay; without
    them a batch is what arrived while the engine was busy. `budget_ns` (0: none) bounds the time
    of every request. A request without any deadline is ordered, and admitted, as if it had
    `patience_ns`; it is never dropped for that. `levels` are the priority levels, from 1.
    """

    queue: QueuePolicy
    max_queue_bytes: int
    patience_ns: int
    budget_ns: int = 0
    delay_ns: int = 0
    preferred_rows: tuple[int, ...] = ()
    preserve_ordering: bool = False
    levels: int = 1
    default_level: int = 1
    level_queues: Mapping[int, QueuePolicy] = field(default_factory=dict)
    queues: tuple[QueuePolicy, ...] = field(init=False)  # by level

    def __post_init__(self) -> None:
        queues = [self.level_queues.get(level, self.queue) for level in range(self.levels + 1)]
        object.__setattr__(self, "queues", tuple(queues))

    def level_of(self, priority: int) -> int:
        """The level of a request; 0 asks for the default, what is out of range gets the lowest."""
        return min(priority, self.levels) or self.default_level


def batch_policy(
    config: model_config_pb2.ModelConfig,
    *,
    max_queue_size: int,
    max_queue_bytes: int,
    patience_s: float,
) -> BatchPolicy:
    """The policy of a model; where its configuration is silent, the server's own limits.

    Raises InvalidInput for values that contradict each other.
    """
    batching = config.dynamic_batching
    queue = QueuePolicy(max_requests=max_queue_size)
    if batching.HasField("default_queue_policy"):
        queue = _queue_policy(batching.default_queue_policy, max_queue_size=max_queue_size)
    levels = max(1, batching.priority_levels)
    default_level = batching.default_priority_level or (levels + 1) // 2
    if default_level > levels:
        raise InvalidInput(
            f"default_priority_level must be at most priority_levels, which is {levels}, "
            f"received {default_level}"
        )
    preferred = tuple(sorted(batching.preferred_batch_size))
    if preferred and not 1 <= preferred[0] <= preferred[-1] <= config.max_batch_size:
        raise InvalidInput(
            f"preferred_batch_size must lie in 1..max_batch_size, which is "
            f"{config.max_batch_size}, received {list(preferred)}"
        )
    return BatchPolicy(
        queue=queue,
        max_queue_bytes=max_queue_bytes,
        patience_ns=int(patience_s * _NS_PER_S),
        budget_ns=_budget_ns(config),
        delay_ns=batching.max_queue_delay_microseconds * _NS_PER_US,
        preferred_rows=preferred,
        preserve_ordering=batching.preserve_ordering,
        levels=levels,
        default_level=default_level,
        level_queues={
            level: _queue_policy(policy, max_queue_size=max_queue_size)
            for level, policy in batching.priority_queue_policy.items()
        },
    )


def _queue_policy(policy: model_config_pb2.ModelQueuePolicy, *, max_queue_size: int) -> QueuePolicy:
    return QueuePolicy(
        max_requests=policy.max_queue_size or max_queue_size,
        timeout_ns=policy.default_timeout_microseconds * _NS_PER_US,
        delays=policy.timeout_action == model_config_pb2.ModelQueuePolicy.DELAY,
        overridable=policy.allow_timeout_override,
    )


def _budget_ns(config: model_config_pb2.ModelConfig) -> int:
    if BUDGET_PARAMETER not in config.parameters:
        return 0
    text = config.parameters[BUDGET_PARAMETER].string_value
    try:
        budget_ms = float(text)
    except ValueError:
        budget_ms = 0.0
    if not 0 < budget_ms < float("inf"):
        raise InvalidInput(
            f"the parameter {BUDGET_PARAMETER!r} must be a positive number, received {text!r}"
        )
    return int(budget_ms * _NS_PER_MS)
