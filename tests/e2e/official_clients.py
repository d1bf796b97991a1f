"""One request through an official client of either protocol, for the tests beside this file."""

import contextlib

import tritonclient.grpc as grpc_client
import tritonclient.http as http_client

from ridgeline.datatypes import DATATYPES

PROTOCOLS = {"grpc": grpc_client, "http": http_client}


@contextlib.contextmanager
def connect(gateway, protocol):
    """The official client of that protocol."""
    url = gateway.grpc_url if protocol == "grpc" else gateway.http_url
    client = PROTOCOLS[protocol].InferenceServerClient(url)
    try:
        yield client
    finally:
        client.close()


def tensors(protocol, arrays, *, binary=True):
    """The inputs of a request, by name."""
    module, inputs = PROTOCOLS[protocol], []
    for name, array in arrays.items():
        tensor = module.InferInput(name, array.shape, datatype_of(array))
        options = {} if protocol == "grpc" else {"binary_data": binary}
        inputs.append(tensor.set_data_from_numpy(array, **options))
    return inputs


def datatype_of(array):
    return next(d.name for d in DATATYPES.values() if d.numpy == array.dtype)


def ask(gateway, protocol, model, arrays, **options):
    """One inference over a connection of its own."""
    with connect(gateway, protocol) as client:
        return client.infer(model, tensors(protocol, arrays), **options)


def same(left, right):
    if right.dtype.kind == "O":
        return left.tolist() == right.tolist()
    return left.dtype == right.dtype and left.tobytes() == right.tobytes()
