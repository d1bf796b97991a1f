"""Plans of ensembles: what is refused at load, with which words, and what fits."""

import pytest

from ridgeline.errors import NotFound, Unavailable
from serving.registry import Registry

pytestmark = pytest.mark.anyio

ROW = "data_type: TYPE_FP32 dims: 2"


def step(model: str, inputs: dict[str, str], outputs: dict[str, str], more: str = "") -> str:
    maps = [f'input_map {{ key: "{key}" value: "{value}" }}' for key, value in inputs.items()]
    maps += [f'output_map {{ key: "{key}" value: "{value}" }}' for key, value in outputs.items()]
    return f'step {{ model_name: "{model}" model_version: -1 {" ".join(maps)} {more} }}'


def ensemble(*steps: str, batch: int = 4, more: str = "", inputs="a", outputs="d") -> str:
    tensors = [f'input {{ name: "{name}" {ROW} }}' for name in inputs]
    tensors += [f'output {{ name: "{name}" {ROW} }}' for name in outputs]
    return "\n".join(
        [
            'platform: "ensemble"',
            f"max_batch_size: {batch}",
            *tensors,
            f"ensemble_scheduling {{ {' '.join(steps)} }}",
            more,
        ]
    )


ONE = step("plain", {"x": "a"}, {"y": "d"})


@pytest.fixture
async def served(repository, models, settings):
    """Loads a repository of simple models and the ensemble "e" of a configuration."""
    registry = Registry(settings)

    async def serve(config: str) -> Registry:
        files = {
            "plain": models.identity(),
            "whole": models.identity("INT64"),
            "wide": models.identity(shape=("batch", 3)),
            "pair": models.two_inputs(),
            "broken": b"garbage",
        }
        for name, file in files.items():
            if f'"{name}"' in config:
                repository.add(name, file, config="max_batch_size: 4")
        (repository.root / "e" / "1").mkdir(parents=True)
        (repository.root / "e" / "config.pbtxt").write_text(config)
        await registry.load()
        return registry

    yield serve
    await registry.close(drain_seconds=60)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (ensemble(), "must specify 'step' for ensemble 'e'"),
        ('platform: "ensemble"', "ensemble scheduling must be set for ensemble e"),
        (ensemble(step("", {"x": "a"}, {"y": "d"})), "must specify 'model_name' in step 0"),
        (ensemble(step("plain", {}, {"y": "d"})), "must specify 'input_map' in step 0"),
        (ensemble(ONE, step("plain", {"x": "d"}, {})), "must specify 'output_map' in step 1"),
        (ensemble(ONE, ONE), "'d' can appear in an output map only once for ensemble 'e'"),
        (ensemble(ONE, step("plain", {"x": "d"}, {"y": "u"})), "'u' is unused in ensemble 'e'"),
        (ensemble(ONE, step("plain", {"x": "d"}, {"y": "a"})), "'a' is an input of ensemble 'e'"),
        (ensemble(step("pair", {"a": "a", "b": "n"}, {"sum": "d"})), "'n' is neither an input"),
        (ensemble(ONE, inputs="ab"), "ensemble input 'b' for ensemble 'e' is not used"),
        (ensemble(ONE, outputs="dg"), "output 'g' for ensemble 'e' is not made by any step"),
        (ensemble(ONE, more="instance_group { count: 2 }"), "instance group should not be"),
        (ensemble(step("plain", {"x": "a"}, {"y": "d"}, 'model_namespace: "n"')), "a namespace"),
        (
            ensemble(
                step("pair", {"a": "a", "b": "c"}, {"sum": "b"}),
                step("plain", {"x": "b"}, {"y": "c"}),
                step("plain", {"x": "b"}, {"y": "d"}),
            ),
            r"the steps of ensemble 'e' form a cycle: p.*\(step \d\) -> p",
        ),
        (ensemble(ONE).replace("-1", "-2"), "or -1 for the newest, received -2"),
        (ensemble(ONE).replace("platform", "backend"), "asks for 'ensemble'"),
        (ensemble(ONE).replace('platform: "ensemble"', ""), 'its platform must be "ensemble"'),
        (ensemble(ONE).replace('"plain"', '"nope"'), "ensemble 'e' depends on 'nope'"),
        (ensemble(ONE).replace("-1", "7"), "not available: .*'plain' version '7'"),
        (ensemble(ONE).replace('"plain"', '"broken"'), "'broken' has no available versions"),
        (ensemble(ONE).replace('"plain"', '"e"'), "depends on 'e' which has no loaded version"),
        (ensemble(ONE, batch=8), "allows maximum batch size 8, .* plain which only allows .* 4"),
        (ensemble(ONE).replace('"x"', '"q"'), "tensor a is mapping to non-existing input q"),
        (ensemble(ONE).replace('"y"', '"q"'), "tensor d is mapping from non-existing output q"),
        (
            ensemble(step("pair", {"a": "a"}, {"sum": "d"})).replace("dims: 2", "dims: 3"),
            "the required input b of model pair has no ensemble tensor",
        ),
        (
            ensemble(ONE).replace('"plain"', '"whole"'),
            "tensor a: inconsistent data type: FP32 is inferred from model e while INT64",
        ),
        (
            ensemble(ONE).replace('"plain"', '"wide"'),
            r"a: inconsistent shape: \[-1, 2\] is inferred from model e while \[-1, 3\]",
        ),
        (ensemble(ONE, batch=0).replace("dims: 2", "dims: [ 4, 1, 2 ]"), "inconsistent shape"),
    ],
)  # fmt: skip
async def test_a_plan_that_cannot_work_makes_the_ensemble_unavailable_and_says_why(
    served, config, words
):
    registry = await served(config)

    with pytest.raises((Unavailable, NotFound), match=words):
        registry.find("e")


@pytest.mark.parametrize(
    "config",
    [
        ensemble(ONE),
        ensemble(ONE, outputs="da"),  # an input may go straight through
        ensemble(ONE, batch=2),
        ensemble(ONE, batch=0),
        ensemble(ONE, batch=0).replace("dims: 2", "dims: [ 1, 2 ]"),
        ensemble(ONE, batch=0).replace("dims: 2", "dims: [ -1, 2 ]"),
        ensemble(ONE).replace("dims: 2", "dims: -1"),
        ensemble(ONE).replace("-1", "1"),
    ],
)
async def test_a_plan_that_fits_is_ready(served, config):
    registry = await served(config)

    ready = registry.find("e")

    assert ready.loaded.platform == "ensemble"
    assert ready.loaded.depends_on == ("plain",)
    assert ready.loaded.config.version_policy.latest.num_versions == 1
