"""The protocols by their names: a connection over the one that was asked for."""

from loadtest.connection import Connection, check_address


def connect(*, protocol: str, url: str, model: str, version: str) -> Connection:
    """A connection to a model (its newest version where `version` is empty); opens it lazily.

    Raises WrongUsage where `url` is not HOST:PORT.
    """
    check_address(url)
    if protocol == "grpc":
        from loadtest.grpc_connection import GrpcConnection

        return GrpcConnection(url=url, model=model, version=version)
    from loadtest.http_connection import HttpConnection

    return HttpConnection(url=url, model=model, version=version)
