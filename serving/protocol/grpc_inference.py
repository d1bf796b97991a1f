"""One inference over gRPC: from its message to the data plane, and its outputs as wished, back."""

from collections.abc import Mapping
from typing import Any

from serving.dataplane import DataPlane
from serving.protocol.grpc_codec import decode_request, encode_response, output_wishes
from serving.protocol.outputs import Wishes
from serving.request import InferRequest


def decoded(
    message: Any,
    *,
    dataplane: DataPlane,
    deadline_ns: int | None,
    metadata: Mapping[Any, str | bytes] | None = None,
) -> tuple[InferRequest, Wishes]:
    """The request of a ModelInferRequest, and how its outputs are wanted.

    `metadata` are those of its call. Raises InvalidInput; NotFound for an unknown region, or for a
    model whose labels are asked for.
    """
    request = decode_request(
        message,
        deadline_ns=deadline_ns,
        regions=dataplane.regions,
        headers=dataplane.forwarding.of_grpc(metadata.items()) if metadata else None,
    )
    wishes = output_wishes(message, regions=dataplane.regions)
    if wishes.classify:
        model = dataplane.find(request.model_name, version=request.model_version)
        wishes = wishes.knowing(model)
    return request, wishes


async def answered(
    message: Any,
    *,
    dataplane: DataPlane,
    deadline_ns: int | None,
    metadata: Mapping[Any, str | bytes] | None = None,
) -> Any:
    """The ModelInferResponse. Raises the errors of `decoded`, `DataPlane.infer`."""
    request, wishes = decoded(
        message, dataplane=dataplane, deadline_ns=deadline_ns, metadata=metadata
    )
    return encode_response(await dataplane.infer(request), wishes=wishes)
