"""The graph cache: what an entry is made of, when it counts, what happens to one that does not."""

import fcntl
import json
import os
import subprocess
import sys

import onnxruntime
import pytest

from serving import graph_cache
from serving.graph_cache import CachedGraph, GraphCache

DIGEST = {"model.onnx": "aa"}


@pytest.fixture
def version(tmp_path):
    """A folder with a file model.onnx, of which the cache needs to know no more than its bytes."""
    folder = tmp_path / "m" / "1"
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(b"a graph")
    return folder


@pytest.fixture
def cache(tmp_path):
    return GraphCache(tmp_path / "cache", max_bytes=12_000)


@pytest.fixture
def graph(cache, version):
    return cache.graph_of(version / "model.onnx", digests=DIGEST)


def _save(content: bytes = b"optimised"):
    def save(to):
        to.write_bytes(content)
        (to.parent / "weights.bin").write_bytes(2 * content)

    return save


def _again(graph: CachedGraph) -> CachedGraph:
    """The same place, as the next start sees it."""
    return CachedGraph(graph.cache, graph.made_of)


def test_what_was_written_is_found_by_the_next_start(graph):
    assert graph.find() is None

    written = graph.write(_save())

    assert written == graph.directory / "model.onnx"
    assert _again(graph).find() == written
    assert written.read_bytes() == b"optimised"
    assert graph.cache.root.stat().st_mode & 0o077 == 0  # nobody else may write there


@pytest.mark.parametrize("file", ["model.onnx", "weights.bin"])
def test_an_entry_of_which_one_byte_differs_is_ignored_and_written_anew(graph, caplog, file):
    path = graph.write(_save()).parent / file
    content = bytearray(path.read_bytes())
    content[3] ^= 1
    path.write_bytes(content)
    next_start = _again(graph)

    assert next_start.find() is None

    assert "has been altered" in caplog.text
    assert next_start.write(_save()) == _again(graph).find()


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"made_of": 1}', '{"made_of": {}, "files": {}}', "\udcff"]
)
def test_a_foreign_entry_is_ignored_and_written_anew(graph, text):
    graph.directory.mkdir(parents=True)
    (graph.directory / "entry.json").write_bytes(text.encode("utf-8", "surrogateescape"))

    assert graph.find() is None

    assert graph.write(_save()) is not None


def test_an_entry_that_lacks_a_file_is_none(graph):
    (graph.write(_save()).parent / "weights.bin").unlink()

    assert _again(graph).find() is None


def test_an_entry_for_another_model_in_the_place_of_this_one_is_ignored(graph):
    entry = graph.write(_save()).parent / "entry.json"
    table = json.loads(entry.read_text())
    table["made_of"]["files"] = {"model.onnx": "bb"}
    entry.write_text(json.dumps(table))

    assert _again(graph).find() is None


def test_whatever_decides_about_the_graph_decides_about_its_place(
    cache, graph, version, monkeypatch
):
    path = version / "model.onnx"
    places = {graph.directory}
    assert cache.graph_of(path, digests=DIGEST).directory in places

    places.add(cache.graph_of(path, digests={"model.onnx": "bb"}).directory)
    places.add(cache.graph_of(path, digests={}).directory)
    path.write_bytes(b"another graph")
    places.add(cache.graph_of(path, digests={}).directory)
    (version / "more_weights").write_bytes(b"0")
    places.add(cache.graph_of(path, digests=DIGEST).directory)
    monkeypatch.setattr(onnxruntime, "__version__", "0.0.1")
    places.add(cache.graph_of(path, digests=DIGEST).directory)
    monkeypatch.setattr(graph_cache, "_processor", lambda: "another")
    places.add(cache.graph_of(path, digests=DIGEST).directory)

    assert len(places) == 7


def test_the_card_of_a_version_does_not_count(cache, graph, version):
    (version / "model_card.json").write_text("{}")

    assert cache.graph_of(version / "model.onnx", digests=DIGEST).directory == graph.directory


def test_a_graph_that_cannot_be_written_is_done_without(graph, caplog):
    def fail(_to):
        raise OSError("no space left")

    assert graph.write(fail) is None

    assert "could not be cached: no space left" in caplog.text
    assert [path.name for path in graph.cache.root.iterdir()] == [".lock"]


def test_a_folder_that_cannot_be_made_is_done_without(tmp_path, version, caplog):
    (tmp_path / "file").write_text("")
    cache = GraphCache(tmp_path / "file", max_bytes=1)

    assert cache.graph_of(version / "model.onnx", digests=DIGEST).write(_save()) is None

    assert "could not be cached" in caplog.text


def test_nobody_waits_for_another_writer(graph):
    graph.cache.root.mkdir()
    with (graph.cache.root / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)

        assert graph.write(_save()) is None

    assert graph.write(_save()) is not None


def test_what_a_killed_writer_left_is_cleared_and_never_read(graph):
    staging = graph.cache.root / ".writing"
    script = f"""
import os, pathlib
from serving.graph_cache import _only_writer
with _only_writer(pathlib.Path({str(graph.cache.root)!r})) as staging:
    (staging / "model.onnx").write_bytes(b"half")
    os._exit(9)
"""
    killed = subprocess.run([sys.executable, "-c", script], check=False)
    assert killed.returncode == 9
    assert (staging / "model.onnx").exists()
    assert graph.find() is None

    graph.write(_save())

    assert not staging.exists()
    assert graph.directory.joinpath("model.onnx").read_bytes() == b"optimised"


def test_what_has_not_been_used_for_the_longest_makes_room(cache, version):
    graphs = []
    for number in range(3):
        graph = cache.graph_of(version / "model.onnx", digests={"model.onnx": str(number)})
        graph.write(_save(b"x" * 1000))  # 3000 bytes, and what describes them
        os.utime(graph.directory, (number, number))
        graphs.append(graph)
    _again(graphs[0]).find()  # used just now

    last = cache.graph_of(version / "model.onnx", digests={"model.onnx": "last"})
    assert last.write(_save(b"x" * 1000)) is not None

    kept = [graph.directory.exists() for graph in (*graphs, last)]
    assert kept == [True, False, True, True]


def test_an_entry_larger_than_the_whole_cache_is_the_only_one(graph):
    assert graph.write(_save(b"x" * 20_000)) is not None

    assert graph.directory.exists()


def test_without_processor_information_graphs_are_cached_all_the_same(monkeypatch):
    def missing(*_arguments, **_options):
        raise FileNotFoundError

    monkeypatch.setattr(graph_cache.Path, "read_text", missing)

    assert graph_cache._processor() == ""
