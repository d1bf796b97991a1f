"""The test repository, written once, and a gateway that serves it."""

import pytest

from conformance import repository, suite

# As Triton's own mode, which alone allows models to be loaded and unloaded.
EXPLICIT = ("--model-control-mode=explicit", "--load-model=*")


@pytest.fixture(scope="session")
def conformance_repository(tmp_path_factory):
    """The folder with every model that the cases ask for."""
    root = tmp_path_factory.mktemp("conformance") / "repository"
    repository.write(root)
    return root


@pytest.fixture(scope="session")
def served(conformance_repository, gateway_over, front_end, tmp_path_factory):
    """A gateway over it, by each front end in turn."""
    errors = tmp_path_factory.mktemp("served") / "stderr"
    flags = (f"--front-end={front_end}", *EXPLICIT)
    running = gateway_over(conformance_repository, *flags, errors=errors)
    yield running
    code, _, text = running.stop()
    assert code == 0, text
    if front_end == "direct":  # grpcio logs what is no protobuf, with a traceback
        assert "Traceback" not in text


@pytest.fixture(scope="session")
def outcomes(served):
    """The outcome of every case, by name, at that gateway."""
    with suite.connected(grpc=served.grpc_url, http=served.http_url) as server:
        return {outcome.name: outcome for outcome in suite.run(server)}
