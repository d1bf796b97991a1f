"""The statistics of a model version as Triton's message, which both protocols send."""

import dataclasses
from typing import Any

from tritonclient.grpc import service_pb2

from serving.statistics import BatchSizeStatistics, ModelStatistics, ResponseStatistics
from serving.version import ReadyVersion


def statistics_message(version: ReadyVersion) -> Any:
    """inference.ModelStatistics as it stands now. There is no cache: nothing hits or misses it."""
    statistics = version.statistics
    return service_pb2.ModelStatistics(
        name=version.name,
        version=version.version,
        last_inference=statistics.last_inference_ms,
        inference_count=statistics.inference_count,
        execution_count=statistics.execution_count,
        inference_stats=_of_requests(statistics),
        batch_stats=[
            _of_batch_size(size, statistics.by_batch_size[size])
            for size in sorted(statistics.by_batch_size)
        ],
        response_stats={
            key: _of_responses(responses) for key, responses in statistics.by_response.items()
        },
    )


def _of_requests(statistics: ModelStatistics) -> Any:
    count = statistics.success
    return service_pb2.InferStatistics(
        success=_duration(count, statistics.request_ns),
        fail=_duration(statistics.failure.total(), statistics.failure_ns),
        queue=_duration(count, statistics.queue_ns),
        compute_input=_duration(count, statistics.compute_input_ns),
        compute_infer=_duration(count, statistics.compute_infer_ns),
        compute_output=_duration(count, statistics.compute_output_ns),
        cache_hit=_duration(0, 0),
        cache_miss=_duration(0, 0),
    )


def _of_batch_size(size: int, statistics: BatchSizeStatistics) -> Any:
    durations = {name: getattr(statistics, name) for name in _names(BatchSizeStatistics)}
    return service_pb2.InferBatchStatistics(
        batch_size=size,
        **{name: _duration(value.count, value.ns) for name, value in durations.items()},
    )


def _of_responses(statistics: ResponseStatistics) -> Any:
    durations = {name: getattr(statistics, name) for name in _names(ResponseStatistics)}
    return service_pb2.InferResponseStatistics(
        **{name: _duration(value.count, value.ns) for name, value in durations.items()}
    )


def _names(kind: type[BatchSizeStatistics | ResponseStatistics]) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(kind))


def _duration(count: int, ns: int) -> Any:
    return service_pb2.StatisticDuration(count=count, ns=ns)
