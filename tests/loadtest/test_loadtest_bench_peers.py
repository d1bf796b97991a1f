"""The peers, as far as it goes without them: what they are told, and that nothing of them stays."""

import contextlib
import os
import sys
from dataclasses import replace

import pytest
from tritonclient.grpc import model_config_pb2

from loadtest.bench import mosec_server, peers
from loadtest.bench.peers import MosecSettings, Peer, TritonSettings
from loadtest.bench.processes import server_process, session_process_ids, wait_until
from ridgeline.errors import InvalidInput, NotFound, StepFailed
from ridgeline.model import ModelSpec, TensorSpec, config_of, spec_of
from ridgeline.repository import ModelCard, publish, scan

SPEC = ModelSpec(
    "digits", 64, (TensorSpec("image", "FP32", (4,)),), (TensorSpec("classes", "FP32", (2,)),)
)
TUNED = TritonSettings(
    instances=2,
    max_queued_requests=64,
    queue_timeout_us=20_000,
    allow_timeout_override=True,
    max_queue_delay_us=100,
)
# A server with a worker, which ignores SIGTERM as those of mosec do.
WORKER = """
import signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("up", flush=True)
while True:
    signal.pause()
"""
STAND_IN = f"""
import signal, subprocess, sys
subprocess.Popen([sys.executable, "-c", {WORKER!r}])
signal.pause()
"""


@pytest.fixture
def root(tmp_path):
    """A repository with two versions of one model."""
    config = config_of(SPEC)
    config.parameters["ridgeline_parameters"].string_value = "8"
    for content in (b"old", b"new"):
        publish(
            {"model.onnx": content},
            config=config,
            card=ModelCard(),
            labels={"classes": ["zero", "one"]},
            root=tmp_path / "repository",
        )
    return tmp_path / "repository"


@pytest.fixture
def venv(tmp_path):
    """An environment, as far as a command line needs one."""
    folder = tmp_path / "venv"
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").symlink_to(sys.executable)
    return folder


def triton_config_of(root, tmp_path, *, settings):
    """What Triton will find, read back, and the folder it is in."""
    (model,) = scan(root)
    peers.write_triton_repository(model, settings=settings, root=tmp_path / "copy")
    (copy,) = scan(tmp_path / "copy")
    return copy.read_config(), copy


def test_by_default_triton_is_told_what_we_publish(root, tmp_path):
    config, _ = triton_config_of(root, tmp_path, settings=TritonSettings())
    assert [group.count for group in config.instance_group] == [1]
    config.ClearField("instance_group")
    assert config == scan(root)[0].read_config()
    assert config.HasField("dynamic_batching")
    assert not config.dynamic_batching.HasField("default_queue_policy")


def test_a_tuned_triton_has_a_bounded_queue_and_the_same_contract(root, tmp_path):
    config, _ = triton_config_of(root, tmp_path, settings=TUNED)
    policy = config.dynamic_batching.default_queue_policy
    assert policy.timeout_action == model_config_pb2.ModelQueuePolicy.REJECT
    assert policy.default_timeout_microseconds == 20_000
    assert policy.allow_timeout_override
    assert policy.max_queue_size == 64
    assert config.dynamic_batching.max_queue_delay_microseconds == 100
    assert [group.count for group in config.instance_group] == [2]
    assert spec_of(config) == SPEC
    assert config.parameters["ridgeline_parameters"].string_value == "8"


@pytest.mark.parametrize(
    "settings",
    [
        TritonSettings(max_queued_requests=1),
        TritonSettings(queue_timeout_us=1),
        TritonSettings(allow_timeout_override=True),
    ],
)
def test_each_setting_of_the_queue_makes_a_policy(root, tmp_path, settings):
    config, _ = triton_config_of(root, tmp_path, settings=settings)
    assert config.dynamic_batching.HasField("default_queue_policy")


def test_triton_gets_a_copy_of_the_newest_version_alone(root, tmp_path):
    before = (root / "digits" / "config.pbtxt").read_bytes()
    _, copy = triton_config_of(root, tmp_path, settings=TUNED)
    assert copy.versions == (2,)
    assert (copy.version_directory(2) / "model.onnx").read_bytes() == b"new"
    assert (copy.directory / "classes_labels.txt").exists()
    assert (root / "digits" / "config.pbtxt").read_bytes() == before


def test_triton_needs_a_configuration(root, tmp_path):
    (root / "digits" / "config.pbtxt").unlink()
    with pytest.raises(StepFailed, match=r"has no config\.pbtxt, and Triton needs one"):
        triton_config_of(root, tmp_path, settings=TUNED)


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        (TritonSettings, "instances", 0),
        (TritonSettings, "queue_timeout_us", -1),
        (MosecSettings, "workers", 0),
        (MosecSettings, "capacity", 0),
        (MosecSettings, "threads", -1),
    ],
)
def test_settings_out_of_range_are_refused(kind, name, value):
    with pytest.raises(InvalidInput, match=rf"{name} must be at least \d, received {value}"):
        replace(kind(), **{name: value})


def test_the_command_line_of_triton_starts_the_real_server(venv, root):
    start, *words = peers.triton_words(venv, repository=root, grpc_port=1, http_port=2)
    assert os.access(start, os.X_OK)
    assert words == [str(venv), str(root), "1", "2"]


def test_the_command_line_of_mosec_names_every_setting(venv, tmp_path):
    settings = MosecSettings(
        workers=3, threads=4, max_batch_size=5, max_wait_ms=6, capacity=7, timeout_ms=8
    )
    python, *words = peers.mosec_words(
        venv, model=tmp_path / "model.onnx", port=9, work=tmp_path, settings=settings
    )
    assert python == str(venv / "bin" / "python")
    assert words[1] == mosec_server.__file__
    assert set(words[2:]) == {
        f"--model={tmp_path / 'model.onnx'}",
        "--workers=3",
        "--threads=4",
        "--max-batch-size=5",
        "--max-wait-ms=6",
        "--capacity=7",
        "--timeout=8",
        "--address=127.0.0.1",
        "--port=9",
        f"--path={tmp_path / 'sockets'}",
        "--log-level=warning",
    }


@pytest.mark.parametrize("peer", [peers.triton, peers.mosec])
def test_a_peer_that_is_not_installed_is_named_with_the_way_to_install_it(peer, root, tmp_path):
    with (
        pytest.raises(StepFailed, match="make bench-peers"),
        peer(root, model="digits", venv=tmp_path / "none"),
    ):
        pass


@pytest.mark.parametrize("peer", [peers.triton, peers.mosec])
def test_a_model_that_is_not_there_is_named(peer, root, tmp_path):
    with pytest.raises(StepFailed, match="holds no model 'none'"), peer(root, model="none"):
        pass
    with pytest.raises(NotFound), peer(tmp_path / "none", model="none"):
        pass


def test_a_peer_that_ends_at_once_is_reported_with_what_it_wrote(venv, root):
    # The environment has no mosec: this is how a broken installation ends.
    with (
        pytest.raises(StepFailed, match=r"mosec ended with exit code 1: (?s:.*)No module named"),
        peers.mosec(root, model="digits", venv=venv),
    ):
        pass


@contextlib.contextmanager
def stand_in(folder):
    """The stand-in, when its worker is up."""
    with server_process([sys.executable, "-c", STAND_IN], log=folder / "log") as server:
        wait_until(lambda: "up" in server.log_text(), server=server, name="stand-in")
        yield server


def test_a_server_and_its_workers_end_with_the_block(tmp_path):
    with stand_in(tmp_path) as server:
        peer = Peer("stand-in", "http", 1, path="/", session_id=server.session_id)
        assert len(peer.process_ids()) == 2
        assert server.session_id in peer.process_ids()
        assert os.getpid() not in peer.process_ids()
    assert peer.process_ids() == ()


def test_they_end_too_when_the_block_fails(tmp_path):
    with pytest.raises(KeyboardInterrupt), stand_in(tmp_path) as server:
        raise KeyboardInterrupt
    assert session_process_ids(server.session_id) == ()


def test_a_server_that_has_ended_leaves_no_worker_behind(tmp_path):
    with stand_in(tmp_path) as server:
        server.process.kill()
        server.process.wait()
        assert len(session_process_ids(server.session_id)) == 1
    assert session_process_ids(server.session_id) == ()
