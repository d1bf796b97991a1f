"""How a loaded model runs: threads, instances, times measured while warming up, its policy."""

from dataclasses import replace

import pytest

from ridgeline.errors import InvalidInput
from ridgeline.repository import scan
from serving.backends import onnxruntime as backend
from serving.backends import warm_up
from serving.engine import EngineSettings
from serving.loading import load_version
from serving.onnx_engine import OnnxEngine


@pytest.fixture
def load(repository, settings):
    """Loads version 1 of the only model of the repository."""

    def load():
        [model] = scan(repository.root)
        return load_version(model, version=1, settings=settings, on_engine=lambda _: None)

    return load


@pytest.fixture
def four_cores(monkeypatch):
    """A machine of four cores without a GPU."""
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: set(range(4)))
    monkeypatch.setattr(
        backend, "resolved_provider", lambda name: "cpu" if name == "auto" else name
    )


@pytest.mark.usefixtures("four_cores")
@pytest.mark.parametrize(
    ("config", "engine_threads", "provider", "threads"),
    [
        (None, 0, "cpu", 1),  # a batch a core
        (None, 1, "cpu", 1),
        (None, 3, "cpu", 3),
        ("instance_group { count: 2 }", 0, "cpu", 2),
        ("instance_group { count: 8 }", 0, "cpu", 1),
        ("instance_group { count: 2 }", 3, "cpu", 3),
        ("instance_group { kind: KIND_CPU }", 0, "cpu", 4),
        ("instance_group { kind: KIND_GPU }", 0, "cuda", 4),
        ("instance_group { kind: KIND_GPU count: 2 }", 0, "cuda", 2),
    ],
)
def test_the_instance_groups_decide_about_threads_and_provider(
    repository, models, settings, monkeypatch, config, engine_threads, provider, threads
):
    repository.add("m", models.identity(), config=config)
    given: list[EngineSettings] = []

    def engine(path, *, settings, cache):
        assert cache is None
        given.append(settings)
        return OnnxEngine(path, settings=EngineSettings(threads=1))

    monkeypatch.setattr(backend, "OnnxEngine", engine)

    config = _load(repository, settings=replace(settings, engine_threads=engine_threads)).config

    told = config.parameters["ridgeline_execution_provider"].string_value
    assert told == ("" if provider == "cpu" else provider)
    assert given == [EngineSettings(threads=threads, execution_provider=provider)]


def _load(repository, *, settings):
    [model] = scan(repository.root)
    return load_version(model, version=1, settings=settings, on_engine=lambda _: None)


@pytest.mark.usefixtures("four_cores")
@pytest.mark.parametrize(
    ("config", "engine_threads", "row_ms", "instances", "widened"),
    [
        (None, 0, 1_000, 4, [4]),  # slow: a batch a core, and all cores for one that is alone
        (None, 0, 0.001, 1, [4]),  # more would only cut batches short
        (None, 1, 1_000, 1, []),  # who asks for one thread gets no more
        (None, 2, 1_000, 1, []),
        ("instance_group { count: 2 }", 0, 1_000, 2, []),
        ("instance_group { count: 4 }", 0, 1_000, 4, []),
    ],
)
def test_where_nothing_is_said_the_speed_of_the_model_decides_how_many_batches_run_at_once(
    repository, models, settings, monkeypatch, calibrated,
    config, engine_threads, row_ms, instances, widened,
):  # fmt: skip
    repository.add("m", models.identity(), config=config)
    built: list[EngineSettings] = []
    times = calibrated(lambda rows: int(row_ms * 1_000_000 * rows), max_rows=32)
    monkeypatch.setattr(backend, "measured_times", lambda *_, **__: times)

    def engine(path, *, settings, cache):
        built.append(settings)
        return OnnxEngine(path, settings=settings, cache=cache)

    def remember(narrow, *, build_wide, **_):
        build_wide(True)
        return narrow

    monkeypatch.setattr(backend, "OnnxEngine", engine)
    monkeypatch.setattr(backend, "widened", remember)

    loaded = _load(repository, settings=replace(settings, engine_threads=engine_threads))

    assert loaded.instances == instances
    assert [engine.threads for engine in built[1:]] == widened
    assert all(engine.spins for engine in built[1:])


def _rows_run(monkeypatch) -> list[int]:
    """The batch sizes that any engine runs from now on."""
    sizes: list[int] = []
    run = OnnxEngine.run

    def remember(self, inputs, /, **options):
        sizes.append(inputs["x"].shape[0])
        return run(self, inputs, **options)

    monkeypatch.setattr(OnnxEngine, "run", remember)
    return sizes


def test_every_batch_size_is_timed_before_the_first_request(repository, models, load, monkeypatch):
    repository.add("m", models.identity(), config="max_batch_size: 8")
    sizes = _rows_run(monkeypatch)

    times = load().service_time

    assert {1, 2, 3, 4, 6, 8} <= set(sizes)
    assert sizes.count(6) >= 3  # the first also allocates
    assert all(times.predict_ns(rows) > 0 for rows in range(1, 9))


def test_a_slow_model_is_timed_at_its_smaller_sizes_only(repository, models, load, monkeypatch):
    repository.add("m", models.identity(), config="max_batch_size: 8")
    monkeypatch.setattr(warm_up, "_WARM_UP_NS", 0)
    sizes = _rows_run(monkeypatch)

    times = load().service_time

    assert set(sizes) == {1, 2, 8}  # 2 and 8 show that there is a batch axis
    assert times.predict_ns(8) == pytest.approx(8 * times.predict_ns(1), rel=0.01)


@pytest.mark.parametrize(
    ("model", "options"),
    [("identity", {"shape": ("batch", "length")}), ("lookup", {"offset": 3})],
)
def test_a_model_that_zeros_say_nothing_about_is_timed_by_its_requests(
    repository, models, load, model, options
):
    repository.add("m", getattr(models, model)(**options))

    assert load().service_time is None


def test_a_model_without_a_batch_axis_is_timed_as_one_row(repository, models, load):
    repository.add("m", models.identity(shape=(3, 2)))

    assert load().service_time.sizes == (1,)


def test_the_policy_is_that_of_the_configuration_and_the_settings(repository, models, settings):
    batching = "dynamic_batching { priority_levels: 2 max_queue_delay_microseconds: 7 }"
    repository.add("m", models.identity(), config=f"max_batch_size: 8 {batching}")

    policy = _load(
        repository,
        settings=replace(settings, max_queue_size=3, max_queue_bytes=9, patience_seconds=0.5),
    ).policy

    assert (policy.levels, policy.delay_ns) == (2, 7_000)
    assert policy.queue.max_requests == 3
    assert (policy.max_queue_bytes, policy.patience_ns) == (9, 500_000_000)


def test_a_policy_that_contradicts_the_model_is_refused(repository, models, load):
    repository.add(
        "m",
        models.identity(),
        config="max_batch_size: 8 dynamic_batching { preferred_batch_size: 9 }",
    )

    with pytest.raises(InvalidInput, match=r"preferred_batch_size must lie in .* received \[9\]"):
        load()


@pytest.mark.parametrize(("provider", "cached"), [("cpu", True), ("cuda", False)])
def test_the_optimised_graph_is_cached_for_the_cpu_only(
    repository, models, settings, monkeypatch, tmp_path, provider, cached
):
    repository.add("m", models.dense(32, 32))
    given = []

    def engine(path, *, settings, cache):
        assert settings.execution_provider == provider
        given.append(cache)
        return OnnxEngine(path, settings=EngineSettings(threads=1), cache=cache)

    monkeypatch.setattr(backend, "OnnxEngine", engine)
    folder = tmp_path / "cache"

    _load(repository, settings=replace(settings, execution_provider=provider, graph_cache=folder))

    assert (given[0] is not None) == cached
    assert len(list(folder.glob("*/entry.json"))) == cached
