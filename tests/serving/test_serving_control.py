"""What is served: by request, or as the repository changes; what answers goes on answering."""

import asyncio
import json
import os
from dataclasses import replace

import numpy as np
import pytest

from ridgeline.errors import InvalidInput, NotFound, Unavailable
from serving.control import IndexEntry, ModelControl
from serving.dataplane import DataPlane
from serving.override import Override
from serving.registry import Registry
from serving.request import InferRequest
from serving.served import LoadFault, State

pytestmark = pytest.mark.anyio


@pytest.fixture
async def make_plane(settings):
    """A data plane over the repository, started with those settings; closed in the end."""
    made = []

    async def make(**what):
        registry = Registry(replace(settings, **what))
        plane = DataPlane(registry)
        made.append((plane, registry))
        await plane.control.start()
        return plane

    yield make
    for plane, registry in made:
        await plane.control.close()
        await registry.close(drain_seconds=60)


async def _answer(plane, model="m"):
    request = InferRequest(model, {"x": np.ones((1, 2), np.float32)})
    response = await plane.infer(request)
    return response.model_version, float(response.outputs["y"].flat[0])


def _change(path, content):
    path.write_bytes(content)
    os.utime(path, ns=(1, path.stat().st_mtime_ns + 1))


async def _settled(control):
    """Look twice: what has changed is then acted on."""
    assert await control.look()
    assert not await control.look()


async def test_a_version_published_later_replaces_the_one_before(repository, models, make_plane):
    repository.add("m", models.dense(2, 1, weight=1))
    plane = await make_plane(model_control_mode="none")
    before = plane.generation
    repository.add("m", models.dense(2, 1, weight=5), version=2)

    await _settled(plane.control)

    assert await _answer(plane) == ("2", 10)
    assert plane.generation > before
    with pytest.raises(Unavailable, match="version 1 is unavailable: unloaded"):
        plane.find("m", version="1")


async def test_a_change_is_not_acted_on_while_it_goes_on(repository, models, make_plane):
    path = repository.add("m", models.dense(2, 1, weight=1)) / "model.onnx"
    plane = await make_plane(model_control_mode="none")

    _change(path, b"the first half")
    assert await plane.control.look()
    _change(path, models.dense(2, 1, weight=7))
    assert await plane.control.look()
    assert await _answer(plane) == ("1", 2)
    assert not await plane.control.look()

    assert await _answer(plane) == ("1", 14)
    assert not await plane.control.look()


async def test_models_that_come_and_go_are_followed(repository, models, make_plane):
    repository.add("old", models.dense(2, 1))
    plane = await make_plane(model_control_mode="none")
    (repository.root / "old").rename(repository.root.parent / "elsewhere")
    repository.add("m", models.dense(2, 1))

    await _settled(plane.control)

    assert await _answer(plane) == ("1", 2)
    with pytest.raises(NotFound):
        plane.find("old")


async def test_a_repository_that_is_away_for_a_while_changes_nothing(
    repository, models, make_plane, caplog
):
    repository.add("m", models.dense(2, 1))
    plane = await make_plane(model_control_mode="none")
    repository.root.rename(repository.root.parent / "elsewhere")

    assert not await plane.control.look()
    assert not await plane.control.look()

    assert await _answer(plane) == ("1", 2)
    assert "cannot be looked at" in caplog.text
    assert await plane.control.index() == [IndexEntry("m", "1", "READY")]


async def test_what_was_served_stays_where_its_successor_cannot_be_loaded(
    repository, models, make_plane
):
    repository.add("m", models.dense(2, 1, weight=1))
    plane = await make_plane(model_control_mode="explicit", load_model=("*",))
    repository.add("m", b"garbage", version=2)

    with pytest.raises(InvalidInput, match=r"load failed for model 'm': version 2 .* ONNX"):
        await plane.control.load("m")
    assert await _answer(plane) == ("1", 2)

    (repository.root / "m" / "config.pbtxt").write_text("garbage {")
    with pytest.raises(LoadFault, match="failed to load 'm'"):
        await plane.control.load("m")
    assert await _answer(plane) == ("1", 2)
    assert {e.version: e.state for e in await plane.control.index()} == {
        "1": "READY",
        "2": "UNAVAILABLE",
    }


async def test_versions_that_have_not_changed_are_not_loaded_again(repository, models, make_plane):
    repository.add("m", models.dense(2, 1), config="version_policy { all {} }")
    plane = await make_plane(model_control_mode="explicit", load_model=("m",))
    first = plane.find("m", version="1")

    repository.add("m", models.dense(2, 1), version=2, config="version_policy { all { } }")
    await plane.control.load("m")
    assert plane.find("m", version="1") is first
    assert plane.find("m").version == "2"

    (repository.root / "m" / "config.pbtxt").write_text("version_policy { latest {} }")
    second = plane.find("m")
    await plane.control.load("m")
    assert plane.find("m") is second
    with pytest.raises(Unavailable):
        plane.find("m", version="1")

    (repository.root / "m" / "config.pbtxt").write_text("max_batch_size: 3")
    await plane.control.load("m")
    assert plane.find("m").loaded.spec.max_batch_size == 3


async def test_what_a_replaced_version_has_accepted_it_answers(
    repository, models, make_plane, monkeypatch
):
    path = repository.add("m", models.dense(2, 1, weight=1)) / "model.onnx"
    plane = await make_plane(model_control_mode="explicit", load_model=("m",))
    old = plane.find("m")
    with monkeypatch.context() as patch:
        patch.setattr(old.batcher, "_dispatch", lambda: None)  # it starts no batch
        waiting = asyncio.create_task(_answer(plane))
        await asyncio.sleep(0)
        _change(path, models.dense(2, 1, weight=3))
        await plane.control.load("m")
        assert await _answer(plane) == ("1", 6)
        assert not waiting.done()
    old.batcher._dispatch()

    assert await waiting == ("1", 2)


async def test_only_mode_explicit_loads_and_unloads_by_request(repository, models, make_plane):
    repository.add("m", models.dense(2, 1))
    for mode in ("none", "poll"):
        control = (await make_plane(model_control_mode=mode)).control
        with pytest.raises(Unavailable, match=f"not allowed: .*{mode!r}, expected 'explicit'"):
            await control.load("m")
        with pytest.raises(Unavailable, match="not allowed"):
            await control.unload("m")


async def test_the_index_tells_what_could_be_served_and_what_is(repository, models, make_plane):
    for name in ("a", "m", "z"):
        repository.add(name, models.dense(2, 1))
    (repository.root / "hollow").mkdir()
    plane = await make_plane(model_control_mode="explicit", load_model=("m", "hollow", "nowhere"))
    control = plane.control
    for version in (2, 10):
        repository.add("m", models.dense(2, 1), version=version)
        await control.load("m")
    await control.load("a")
    await control.unload("a")
    await asyncio.gather(*plane._registry._draining)

    entries = await control.index()

    assert [(e.name, e.version, e.state) for e in entries] == [
        ("a", "1", "UNAVAILABLE"),
        ("hollow", "", "UNAVAILABLE"),
        ("m", "1", "UNAVAILABLE"),
        ("m", "2", "UNAVAILABLE"),
        ("m", "10", "READY"),
        ("nowhere", "", "UNAVAILABLE"),
        ("z", "", ""),
    ]
    assert entries[0].reason == "unloaded"
    assert "no version" in entries[1].reason
    assert await control.index(ready=True) == [IndexEntry("m", "10", "READY")]


@pytest.mark.usefixtures("repository")
async def test_unloading_what_is_not_there_does_nothing(make_plane):
    control = (await make_plane(model_control_mode="explicit")).control

    await control.unload("nowhere")

    assert await control.index() == []


@pytest.mark.parametrize("name", ["nowhere", "", "../m", "m/../m", "m/1", "m\0", "ü" * 99])
async def test_what_is_no_model_of_the_repository_cannot_be_loaded(
    repository, models, make_plane, name
):
    repository.add("m", models.dense(2, 1))
    control = (await make_plane(model_control_mode="explicit")).control

    with pytest.raises(LoadFault, match="failed to load"):
        await control.load(name)


@pytest.mark.parametrize("name", [".", ".."])
@pytest.mark.usefixtures("repository")
async def test_the_repository_itself_and_what_holds_it_are_no_models(make_plane, name):
    control = (await make_plane(model_control_mode="explicit")).control

    with pytest.raises(InvalidInput, match="a model is a folder of the repository"):
        await control.load(name)


async def test_a_configuration_may_stand_in_for_that_of_the_repository(
    repository, models, make_plane
):
    repository.add("m", models.dense(2, 1))
    plane = await make_plane(model_control_mode="explicit", load_model=("m",))

    await plane.control.load("m", override=Override(json.dumps({"maxBatchSize": 3})))
    assert plane.find("m").loaded.spec.max_batch_size == 3

    await plane.control.load("m")
    assert plane.find("m").loaded.spec.max_batch_size == 32


async def test_files_may_stand_in_for_those_of_the_repository_and_go_with_the_model(
    repository, models, make_plane
):
    repository.add("m", models.dense(2, 1, weight=1))
    plane = await make_plane(model_control_mode="explicit", load_model=("m",))
    files = {"7/model.onnx": models.dense(2, 1, weight=9)}

    for name in ("m", "new"):
        await plane.control.load(name, override=Override("{}", files))
        assert await _answer(plane, name) == ("7", 18)
    folders = [served.folder.path for served in plane._registry if served.folder]
    assert len(folders) == 2
    assert all(folder.stat().st_mode & 0o077 == 0 for folder in folders)

    await plane.control.load("m")
    await plane.control.unload("new")
    await asyncio.gather(*plane._registry._draining)
    assert await _answer(plane) == ("1", 2)
    assert not any(folder.exists() for folder in folders)
    with pytest.raises(LoadFault):
        await plane.control.load("new")


async def test_a_failed_override_leaves_no_folder(repository, make_plane, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(repository.root.parent))
    control = (await make_plane(model_control_mode="explicit")).control

    with pytest.raises(InvalidInput, match="load failed"):
        await control.load("m", override=Override("{}", {"1/model.onnx": b"garbage"}))
    clash = {"1/a": b"", "1/a/b": b""}
    with pytest.raises(LoadFault, match="cannot be written"):
        await control.load("m", override=Override("{}", clash))

    assert not list(repository.root.parent.glob("ridgeline-model-*"))


async def test_a_caller_that_leaves_does_not_leave_a_model_half_loaded(
    repository, models, make_plane
):
    repository.add("m", models.dense(2, 1))
    plane = await make_plane(model_control_mode="explicit")

    leaving = asyncio.create_task(plane.control.load("m"))
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    await plane.control.load("m")  # after the one before

    assert await _answer(plane) == ("1", 2)
    assert [served.state for served in plane._registry] == [State.READY]


@pytest.mark.usefixtures("repository")
async def test_nothing_is_loaded_while_the_server_stops(make_plane):
    plane = await make_plane(model_control_mode="explicit")
    await plane._registry.close(drain_seconds=0)

    with pytest.raises(Unavailable, match="stopping"):
        await plane.control.load("m")


async def test_polling_goes_on_by_itself(repository, models, make_plane):
    plane = await make_plane(model_control_mode="poll", repository_poll_secs=0.001)
    repository.add("m", models.dense(2, 1))

    while not plane.model_ready("m"):
        await asyncio.sleep(0.001)

    assert await _answer(plane) == ("1", 2)
    assert isinstance(plane.control, ModelControl)


ENSEMBLE = """
platform: "ensemble"
max_batch_size: 8
input { name: "x" data_type: TYPE_FP32 dims: [ 2 ] }
output { name: "y" data_type: TYPE_FP32 dims: [ 1 ] }
ensemble_scheduling { step {
  model_name: "m" model_version: -1
  input_map { key: "x" value: "x" } output_map { key: "y" value: "y" }
} }
"""


@pytest.fixture
def ensemble(repository, models):
    """A model, and an ensemble "above" that hands everything to it."""
    repository.add("m", models.dense(2, 1, weight=1))
    (repository.root / "above" / "1").mkdir(parents=True)
    (repository.root / "above" / "config.pbtxt").write_text(ENSEMBLE)


@pytest.mark.usefixtures("ensemble")
async def test_an_ensemble_comes_with_its_models_and_goes_and_returns_with_them(make_plane):
    plane = await make_plane(model_control_mode="explicit")
    await plane.control.load("above")
    assert await _answer(plane, "above") == ("1", 2)
    assert plane.model_ready("m")

    await plane.control.unload("m")
    assert not plane.model_ready("above")
    await plane.control.load("m")
    assert await _answer(plane, "above") == ("1", 2)

    await plane.control.unload("above")
    assert plane.model_ready("m")
    await plane.control.load("m")
    assert not plane.model_ready("above")  # it was unloaded by request

    await plane.control.load("above")
    await plane.control.unload("above", dependents=True)
    assert not plane.model_ready("m")


@pytest.mark.usefixtures("ensemble")
async def test_what_an_ensemble_needs_is_loaded_at_the_start(make_plane):
    plane = await make_plane(model_control_mode="explicit", load_model=("above",))

    assert await _answer(plane, "above") == ("1", 2)


@pytest.mark.usefixtures("ensemble")
async def test_a_model_waits_for_the_ensembles_above_it_before_it_goes(make_plane, monkeypatch):
    plane = await make_plane(model_control_mode="explicit", load_model=("above",))
    below = plane.find("m")
    with monkeypatch.context() as patch:
        patch.setattr(below.batcher, "_dispatch", lambda: None)  # it starts no batch
        waiting = asyncio.create_task(_answer(plane, "above"))
        while not below.batcher.waiting_requests:
            await asyncio.sleep(0)
        unloading = asyncio.create_task(plane.control.unload("m"))
        while plane.model_ready("above"):
            await asyncio.sleep(0)
        assert plane.model_ready("m")
    below.batcher._dispatch()

    assert await waiting == ("1", 2)
    await unloading
    assert not plane.model_ready("m")


@pytest.mark.usefixtures("ensemble")
async def test_an_ensemble_returns_with_the_model_that_it_waits_for(repository, make_plane):
    (repository.root / "m").rename(repository.root.parent / "m")
    plane = await make_plane(model_control_mode="none")
    assert not plane.model_ready("above")

    (repository.root.parent / "m").rename(repository.root / "m")
    await _settled(plane.control)

    assert await _answer(plane, "above") == ("1", 2)
