"""What Triton's config.pbtxt says about queues and batches, and what is not taken."""

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from ridgeline.errors import InvalidInput
from serving.policy import BatchPolicy, QueuePolicy, batch_policy

PLAIN = QueuePolicy(max_requests=7)


def _policy(text: str, *, max_batch_size: int = 8) -> BatchPolicy:
    config = model_config_pb2.ModelConfig(max_batch_size=max_batch_size)
    text_format.Merge(text, config)
    return batch_policy(config, max_queue_size=7, max_queue_bytes=100, patience_s=1.5)


@pytest.mark.parametrize("text", ["", "dynamic_batching {}"])
def test_where_nothing_is_said_the_servers_limits_hold(text):
    assert _policy(text) == BatchPolicy(queue=PLAIN, max_queue_bytes=100, patience_ns=1_500_000_000)


def test_every_field_is_taken_over():
    policy = _policy(
        """
        dynamic_batching {
          preferred_batch_size: [8, 4]
          max_queue_delay_microseconds: 500
          preserve_ordering: true
          priority_levels: 3
          default_priority_level: 2
          default_queue_policy {
            max_queue_size: 5
            default_timeout_microseconds: 20
            timeout_action: DELAY
            allow_timeout_override: true
          }
          priority_queue_policy { key: 1 value { default_timeout_microseconds: 3 } }
        }
        parameters { key: "ridgeline_latency_budget_ms" value { string_value: "2.5" } }
        """
    )

    delaying = QueuePolicy(max_requests=5, timeout_ns=20_000, delays=True, overridable=True)
    rejecting = QueuePolicy(max_requests=7, timeout_ns=3_000, delays=False, overridable=False)
    assert policy == BatchPolicy(
        queue=delaying,
        max_queue_bytes=100,
        patience_ns=1_500_000_000,
        budget_ns=2_500_000,
        delay_ns=500_000,
        preferred_rows=(4, 8),
        preserve_ordering=True,
        levels=3,
        default_level=2,
        level_queues={1: rejecting},
    )
    assert policy.queues[1:] == (rejecting, delaying, delaying)


def test_a_queue_without_a_size_has_the_servers():
    assert _policy("dynamic_batching { default_queue_policy {} }").queue == QueuePolicy(
        max_requests=7, overridable=False
    )


@pytest.mark.parametrize(("levels", "default"), [(1, 1), (2, 1), (3, 2), (4, 2), (5, 3)])
def test_without_a_default_the_middle_level_is_it(levels, default):
    assert _policy(f"dynamic_batching {{ priority_levels: {levels} }}").default_level == default


@pytest.mark.parametrize(("priority", "level"), [(0, 2), (1, 1), (2, 2), (3, 3), (4, 3), (99, 3)])
def test_a_priority_out_of_range_gets_the_lowest_level(priority, level):
    text = "dynamic_batching { priority_levels: 3 default_priority_level: 2 }"

    assert _policy(text).level_of(priority) == level


def test_a_model_without_levels_has_one():
    assert [_policy("").level_of(priority) for priority in (0, 1, 5)] == [1, 1, 1]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "dynamic_batching { priority_levels: 2 default_priority_level: 3 }",
            "at most priority_levels, which is 2, received 3",
        ),
        ("dynamic_batching { default_priority_level: 2 }", "which is 1, received 2"),
        ("dynamic_batching { preferred_batch_size: [4, 9] }", r"which is 8, received \[4, 9\]"),
        ("dynamic_batching { preferred_batch_size: 0 }", r"lie in 1\.\.max_batch_size.*\[0\]"),
        ("dynamic_batching { preferred_batch_size: -1 }", r"received \[-1\]"),
    ],
)
def test_values_that_contradict_each_other_are_refused(text, words):
    with pytest.raises(InvalidInput, match=words):
        _policy(text)


def test_a_model_without_a_batch_axis_prefers_no_size():
    with pytest.raises(InvalidInput, match="which is 0, received"):
        _policy("dynamic_batching { preferred_batch_size: 1 }", max_batch_size=0)


@pytest.mark.parametrize("text", ["", "soon", "0", "-1", "inf", "nan"])
def test_a_latency_budget_must_be_a_positive_number(text):
    with pytest.raises(InvalidInput, match=f"'ridgeline_latency_budget_ms'.*received '{text}'"):
        _policy(
            "parameters { key: 'ridgeline_latency_budget_ms' "
            f"value {{ string_value: '{text}' }} }}"
        )
