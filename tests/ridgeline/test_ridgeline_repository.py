"""The repository: what is published is whole, or not there."""

import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from ridgeline import repository
from ridgeline.cost import ModelCost
from ridgeline.errors import CorruptData, InvalidInput, NotFound
from ridgeline.model import ModelSpec, TensorSpec, config_of
from ridgeline.repository import ModelCard, check_digests, publish, read_card, read_labels, scan

COST = ModelCost(1, 2, 3, 4, 5)


def spec(name="digits", *, size=10):
    return ModelSpec(
        name, 8, (TensorSpec("image", "FP32", (4,)),), (TensorSpec("classes", "FP32", (size,)),)
    )


def publish_one(root, *, name="digits", size=10, content=b"graph", labels=None):
    return publish(
        {"model.onnx": content, "golden.npz": content * 2},
        config=config_of(spec(name, size=size)),
        card=ModelCard(cost=COST, parity={"max_relative_error": 1e-7}),
        labels={"classes": ["zero", "one"]} if labels is None else labels,
        root=root,
    )


@pytest.fixture
def root(tmp_path):
    return tmp_path / "repository"


def test_a_published_version_is_read_back(root):
    directory = publish_one(root)
    (model,) = scan(root)
    assert (model.name, model.versions) == ("digits", (1,))
    assert directory == root / "digits" / "1"
    assert (directory / "model.onnx").read_bytes() == b"graph"
    card = read_card(directory)
    assert card.cost == COST
    assert set(card.sha256) == {"model.onnx", "golden.npz"}
    check_digests(directory, card=card)
    assert read_labels(model.directory, model.read_config()) == {"classes": ("zero", "one")}


def test_the_next_version_stands_beside_the_first(root):
    publish_one(root)
    assert publish_one(root, content=b"better").name == "2"
    (model,) = scan(root)
    assert model.versions == (1, 2)
    assert (model.version_directory(1) / "model.onnx").read_bytes() == b"graph"


def test_a_version_with_other_outputs_is_refused_and_leaves_nothing(root):
    publish_one(root)
    with pytest.raises(InvalidInput, match="other inputs or outputs"):
        publish_one(root, size=11)
    assert [path.name for path in sorted((root / "digits").iterdir())] == [
        "1",
        "classes_labels.txt",
        "config.pbtxt",
    ]


def test_labels_of_an_unknown_output_are_refused(root):
    with pytest.raises(InvalidInput, match="labels are given for 'names'"):
        publish_one(root, labels={"names": ["a"]})
    assert not root.exists()


def test_a_flipped_byte_is_found_by_its_digest(root):
    directory = publish_one(root)
    (directory / "model.onnx").write_bytes(b"grapi")
    with pytest.raises(CorruptData, match=r"model\.onnx has the SHA-256"):
        check_digests(directory, card=read_card(directory))
    (directory / "model.onnx").unlink()
    with pytest.raises(CorruptData, match=r"model\.onnx is missing"):
        check_digests(directory, card=read_card(directory))


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", '{"cost": {"flops": 1}}', '{"unknown": 1}'),
        *('{"cost": null, "parity": null}', '{"cost": null, "parity": {"error": NaN}}'),
    ],
)
def test_a_damaged_card_is_told(root, text):
    directory = publish_one(root)
    (directory / "model_card.json").write_text(text)
    with pytest.raises(CorruptData, match="is not a model card"):
        read_card(directory)


def test_a_folder_without_card_or_configuration_has_neither(root):
    (root / "dropped" / "1").mkdir(parents=True)
    (model,) = scan(root)
    assert model.read_config() is None
    assert read_card(model.version_directory(1)) is None


def test_only_positive_numbers_are_versions_and_hidden_folders_are_no_models(root):
    for folder in ("m/1", "m/02", "m/0", "m/latest", ".git/1"):
        (root / folder).mkdir(parents=True)
    (root / "m" / "3").write_text("a file")
    (model,) = scan(root)
    assert model.versions == (1,)


def test_a_configuration_that_names_another_model_is_refused(root):
    publish_one(root)
    config = root / "digits" / "config.pbtxt"
    config.write_text(config.read_text().replace('name: "digits"', 'name: "letters"'))
    with pytest.raises(InvalidInput, match="names the model 'letters', but its folder is 'digits'"):
        scan(root)[0].read_config()


def test_a_configuration_that_is_no_text_is_told(root):
    publish_one(root)
    (root / "digits" / "config.pbtxt").write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidInput, match=r"config\.pbtxt is not UTF-8 text"):
        scan(root)[0].read_config()


def test_a_missing_label_file_is_told(root):
    publish_one(root)
    (model,) = scan(root)
    (model.directory / "classes_labels.txt").unlink()
    with pytest.raises(NotFound, match=r"classes_labels\.txt is missing"):
        read_labels(model.directory, model.read_config())


def test_a_version_joins_a_model_whose_configuration_leaves_the_contract_to_the_graph(root):
    (root / "digits" / "1").mkdir(parents=True)
    (root / "digits" / "config.pbtxt").write_text("max_batch_size: 4")
    assert publish_one(root).name == "2"


def test_a_missing_repository_is_not_found(root):
    with pytest.raises(NotFound, match="there is no model repository at"):
        scan(root)


def test_a_watcher_never_sees_half_a_version(root):
    root.mkdir()
    stop, problems = threading.Event(), []

    def watch():
        while not stop.is_set():
            for model in scan(root):
                for version in model.versions:
                    directory = model.version_directory(version)
                    card = read_card(directory)
                    if card is None or model.read_config() is None:
                        problems.append(directory)
                        continue
                    try:
                        check_digests(directory, card=card)
                    except CorruptData as error:
                        problems.append(error)

    watcher = threading.Thread(target=watch)
    watcher.start()
    for count in range(30):
        publish_one(root, name=f"model{count % 3}", content=os.urandom(10_000))
    stop.set()
    watcher.join()
    assert not problems
    assert [model.versions for model in scan(root)] == [tuple(range(1, 11))] * 3


def test_concurrent_publishers_get_versions_of_their_own(root):
    with ThreadPoolExecutor(4) as threads:
        folders = list(threads.map(lambda _: publish_one(root).name, range(8)))
    assert sorted(map(int, folders)) == list(range(1, 9))


KILLED_AT = """
import os, signal, sys
from pathlib import Path
sys.path[:0] = {path!r}
from ridgeline import repository
from test_ridgeline_repository import publish_one
real, calls = getattr({owner}, {name!r}), 0
def killing(*args, **kwargs):
    global calls
    calls += 1
    if calls == {call}:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*args, **kwargs)
setattr({owner}, {name!r}, killing)
publish_one(Path({root!r}), content=b"never seen")
"""


@pytest.mark.parametrize(
    ("owner", "name", "call"),
    [
        ("repository", "_write", 1),
        ("repository", "_write", 3),
        ("repository", "_move", 1),
        ("Path", "rename", 1),
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_a_publisher_killed_anywhere_leaves_the_repository_as_it_was(
    root, owner, name, call, first
):
    if not first:
        publish_one(root)
    root.mkdir(exist_ok=True)
    before = [model.versions for model in scan(root)]
    script = KILLED_AT.format(
        path=[os.path.dirname(__file__), *sys.path],
        owner=owner,
        name=name,
        call=call,
        root=str(root),
    )
    killed = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert [model.versions for model in scan(root)] == before
    assert publish_one(root).name == ("1" if first else "2")
    assert not list((root.parent / f".{root.name}.staging").iterdir())


def test_publishing_across_file_systems_is_refused(root, monkeypatch):
    root.mkdir()

    class OtherDevice:
        st_dev = -1

    real = repository.Path.stat
    monkeypatch.setattr(
        repository.Path,
        "stat",
        lambda path, **words: (
            OtherDevice() if path.name.endswith(".staging") else real(path, **words)
        ),
    )
    monkeypatch.setattr(repository.Path, "mkdir", lambda *_, **__: None)
    with pytest.raises(InvalidInput, match="must be on the file system of"):
        publish_one(root)
