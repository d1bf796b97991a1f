"""The registry: who can answer, who cannot and why, and that one does not stop the other."""

import asyncio
import threading
from dataclasses import replace

import numpy as np
import pytest

from ridgeline.errors import NotFound, Overloaded, Unavailable
from serving import registry as registry_module
from serving.registry import Registry
from serving.served import State

pytestmark = pytest.mark.anyio


@pytest.fixture
def registry(settings):
    return Registry(settings)


async def test_a_model_that_fails_to_load_says_why_and_does_not_stop_the_others(
    repository, models, registry
):
    repository.add("broken", b"garbage")
    repository.add("good", models.identity())
    repository.add("misconfigured", models.identity(), config="max_batch_size: many")
    (repository.root / "hollow").mkdir()

    await registry.load()

    assert registry.loaded
    assert registry.find("good").version == "1"
    with pytest.raises(
        NotFound, match=r"'broken' .*version 1 is unavailable: ONNX Runtime cannot load"
    ):
        registry.find("broken")
    with pytest.raises(
        NotFound, match=r"'misconfigured' has no available versions: .*not a valid model conf"
    ):
        registry.find("misconfigured")
    with pytest.raises(NotFound, match=r"'hollow' has no available versions: .* holds no version"):
        registry.find("hollow")
    assert sorted(registry.broken) == ["hollow", "misconfigured"]
    states = {served.name: served.state for served in registry}
    assert states == {"broken": State.UNAVAILABLE, "good": State.READY}


async def test_a_fault_of_ours_makes_one_model_unavailable_and_is_logged(
    repository, models, registry, monkeypatch, caplog
):
    repository.add("m", models.identity())

    def fail(*_arguments, **_options):
        raise AssertionError

    monkeypatch.setattr(registry_module, "load_version", fail)
    await registry.load()

    with pytest.raises(NotFound, match="version 1 is unavailable: AssertionError"):
        registry.find("m")
    assert "Traceback" in caplog.text


async def test_unknown_models_and_versions_are_not_found(repository, models, registry):
    for version in (1, 3):
        repository.add("m", models.identity(), version=version, config="version_policy { all {} }")
    await registry.load()

    with pytest.raises(NotFound, match="unknown model: 'nope' is not found"):
        registry.find("nope")
    for version in ("2", "03", "x", "-1", "9" * 5_000, "٣"):
        with pytest.raises(
            NotFound, match=r"'m' version '.*' is not found; served versions are 1, 3"
        ):
            registry.find("m", version=version)


async def test_without_a_version_the_newest_that_is_ready_answers(repository, models, registry):
    for version, model in ((1, models.identity()), (2, models.identity()), (10, b"garbage")):
        repository.add("m", model, version=version, config="version_policy { all {} }")
    await registry.load()

    assert registry.find("m").version == "2"
    assert registry.find("m", version="1").version == "1"
    assert registry.versions("m") == ["1", "2"]
    with pytest.raises(Unavailable, match="'m' version 10 is unavailable"):
        registry.find("m", version="10")


async def test_only_the_newest_version_is_served_by_default(repository, models, registry):
    for version in (1, 2):
        repository.add("m", models.identity(), version=version)
    await registry.load()

    assert registry.versions("m") == ["2"]
    with pytest.raises(NotFound, match="served versions are 2"):
        registry.find("m", version="1")


async def test_a_model_is_unavailable_while_it_loads_and_before(
    repository, models, registry, monkeypatch
):
    repository.add("m", models.identity())
    with pytest.raises(Unavailable, match="'m' is unavailable: the server is still loading"):
        registry.find("m")
    load, states = registry_module.load_version, []

    def look_and_load(*arguments, **options):
        states.append([(served.state, served.reason) for served in registry])
        with pytest.raises(Unavailable, match="'m' version 1 is unavailable: it is still loading"):
            registry.find("m")
        return load(*arguments, **options)

    monkeypatch.setattr(registry_module, "load_version", look_and_load)
    await registry.load()

    assert states == [[(State.LOADING, "it is still loading")]]
    assert registry.find("m").version == "1"


@pytest.mark.parametrize("stop_first", [False, True])
async def test_a_stop_cuts_the_warm_up_of_a_model_short(
    repository, models, registry, monkeypatch, stop_first
):
    repository.add("m", models.slow(1))
    load = registry_module.load_version
    made, stopped, engines = threading.Event(), threading.Event(), []

    def load_and_wait(*arguments, on_engine, **options):
        def wait(engine):
            engines.append(engine)
            if stop_first:
                made.set()
                stopped.wait(timeout=60)
            on_engine(engine)
            if not stop_first:
                made.set()
                stopped.wait(timeout=60)

        return load(*arguments, on_engine=wait, **options)

    monkeypatch.setattr(registry_module, "load_version", load_and_wait)
    loading = asyncio.create_task(registry.load())
    await asyncio.to_thread(made.wait, 60)
    await registry.close(drain_seconds=0)
    stopped.set()
    await loading

    with pytest.raises(Exception, match="terminate flag"):
        engines[0].run({"x": np.ones((1, 2), np.float32)}, outputs=["y"])


async def test_models_are_loaded_beside_the_event_loop(repository, models, registry, monkeypatch):
    repository.add("m", models.identity())
    load, threads = registry_module.load_version, []

    def remember_thread(*arguments, **options):
        threads.append(threading.current_thread())
        return load(*arguments, **options)

    monkeypatch.setattr(registry_module, "load_version", remember_thread)
    await registry.load()

    assert threads != [threading.current_thread()]


async def test_a_missing_repository_is_an_error(settings, tmp_path):
    registry = Registry(replace(settings, repository=tmp_path / "nowhere"))

    with pytest.raises(NotFound, match=r"no model repository at .*nowhere"):
        await registry.load()


async def test_an_empty_repository_is_served(repository, registry):
    assert repository.root.is_dir()
    await registry.load()

    assert registry.loaded
    assert list(registry) == []


async def test_every_model_that_has_come_makes_a_new_generation(repository, models, registry):
    for name, model in (("a", models.identity()), ("b", b"garbage"), ("c", models.identity())):
        repository.add(name, model)
    before = registry.generation

    await registry.load()

    assert registry.generation == before + 2


async def test_the_models_share_the_cores_and_each_has_its_own_policy(
    repository, models, registry, settings
):
    queue = "dynamic_batching { default_queue_policy { max_queue_size: 5 } }"
    repository.add("short", models.identity(), config=f"max_batch_size: 4 {queue}")
    repository.add("usual", models.identity())
    await registry.load()

    short, usual = (registry.find(name).batcher for name in ("short", "usual"))

    assert short._budget is usual._budget
    assert short._policy.queue.max_requests == 5
    assert usual._policy.queue.max_requests == settings.max_queue_size
    assert usual.admission.rows_per_s > 0  # learned while warming up
    await registry.close(drain_seconds=0)


@pytest.mark.parametrize(("status", "refusal"), [("precise", Overloaded), ("triton", Unavailable)])
async def test_a_refusal_is_told_as_the_settings_say(
    repository, models, settings, monkeypatch, ask, status, refusal
):
    repository.add("m", models.identity(), config="max_batch_size: 4")
    registry = Registry(replace(settings, status_codes=status, max_queue_size=1))
    await registry.load()
    batcher = registry.find("m").batcher
    x = np.ones((1, 2), np.float32)
    with monkeypatch.context() as patch:
        patch.setattr(batcher, "_dispatch", lambda: None)  # it starts no batch
        waiting = await ask(batcher, x=x)
        refused = await ask(batcher, x=x)
        assert type(refused.exception()) is refusal

    await registry.close(drain_seconds=60)
    assert (await waiting)["y"].tolist() == [[1, 1]]


async def test_a_closed_registry_refuses_with_the_reason(repository, models, registry, infer):
    repository.add("m", models.identity())
    await registry.load()
    batcher = registry.find("m").batcher
    x = np.ones((1, 2), np.float32)
    assert (await infer(batcher, x=x))["y"].tolist() == [[1, 1]]
    generation = registry.generation

    await registry.close(drain_seconds=1)

    with pytest.raises(Unavailable, match="'m' version 1 is unavailable: the server is stopping"):
        registry.find("m")
    with pytest.raises(Unavailable, match="'m' is stopping and takes no new requests"):
        await infer(batcher, x=x)
    assert registry.generation != generation  # whoever remembers the model looks again
