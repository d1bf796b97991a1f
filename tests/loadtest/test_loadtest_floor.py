import dataclasses

import pytest
from tritonclient.grpc import model_config_pb2

from loadtest.floor import beside_floor, cost_in_repository, is_this_machine, roof_under
from ridgeline.cost import ModelCost
from ridgeline.errors import NotFound
from ridgeline.gpu import Gpu
from ridgeline.model import ModelSpec, TensorSpec, config_of
from ridgeline.repository import ModelCard, publish
from ridgeline.roof import Roof

COST = ModelCost(
    multiply_adds_per_sample=1_000_000,
    parameters=100_000,
    weight_bytes=400_000,
    input_bytes_per_sample=1000,
    output_bytes_per_sample=40,
)


def beside(machine, *, cost=COST, batch_size=1, note=None, p50=4.0, p99=8.0, samples_per_s=100.0):
    return beside_floor(
        latencies_ms={"p50": p50, "p99": p99},
        samples_per_s=samples_per_s,
        batch_size=batch_size,
        cost=cost,
        hardware=machine,
        note=note,
    )


def test_floor_and_ratios_are_those_worked_out_by_hand(machine):
    # 2 MFLOP at 1 GFLOP/s are 2 ms; 401,040 bytes at 4 GB/s are 0.1 ms.
    result = beside(machine)
    assert result.floor_ms == pytest.approx(2.0)
    assert result.ratio_to_floor == pytest.approx({"p50": 2.0, "p99": 4.0})
    assert result.achieved_flops_per_s == pytest.approx(200e6)  # 100 samples/s x 2 MFLOP
    assert result.share_of_peak == pytest.approx(0.2)
    assert result.note is None


def test_a_batch_of_ten_has_ten_times_the_operations(machine):
    assert beside(machine, batch_size=10, p50=40, p99=50).floor_ms == pytest.approx(20.0)


def test_weights_decide_where_there_is_little_arithmetic(machine):
    cost = dataclasses.replace(COST, multiply_adds_per_sample=1, weight_bytes=400_000_000)
    # 400 MB at the 2 GB/s of the largest working set measured.
    assert beside(machine, cost=cost, p50=500, p99=500).floor_ms == pytest.approx(200, rel=1e-4)


def test_the_floor_is_that_of_the_device_that_runs_the_model(machine):
    roof = Roof(
        peak_flops_per_s=1e12,
        memory_bandwidth_bytes_per_s=4e9,
        bandwidth_by_working_set=((2**20, 4e9),),
    )
    with_gpu = dataclasses.replace(machine, gpus=(Gpu("card", "GPU-a", "1", 2**34, roof=roof),))
    found, note = roof_under(with_gpu, device="gpu:0", note=None)
    assert (found, note) == (roof, None)
    assert beside(found).floor_ms == pytest.approx(0.1, rel=0.01)  # the bytes decide there
    assert roof_under(with_gpu, device="cpu", note=None) == (with_gpu, None)
    found, note = roof_under(machine, device="gpu:0", note=None)
    assert found is None
    assert note is not None
    assert note.startswith("the model runs on gpu:0: this machine has 0 GPUs")
    assert roof_under(None, device="gpu:0", note="far away") == (None, "far away")


def test_a_latency_below_the_floor_is_doubted(machine):
    result = beside(machine, p50=1.0)
    assert result.note is not None
    assert "below the floor" in result.note
    assert result.ratio_to_floor == pytest.approx({"p50": 0.5, "p99": 4.0})


def test_without_a_cost_the_floor_is_unknown_and_the_note_says_how_to_give_it(machine):
    result = beside(machine, cost=None)
    assert (result.floor_ms, result.ratio_to_floor, result.share_of_peak) == (None, None, None)
    assert "--repository" in (result.note or "")


def test_without_the_machine_the_floor_is_unknown_and_the_note_says_why():
    result = beside(None, note="elsewhere is another machine")
    assert (result.floor_ms, result.ratio_to_floor) == (None, None)
    assert result.achieved_flops_per_s == pytest.approx(200e6)
    assert result.note == "elsewhere is another machine"


def test_a_model_that_costs_nothing_has_no_ratio(machine):
    free = ModelCost(0, 0, 0, 0, 0)
    result = beside(machine, cost=free)
    assert result.floor_ms == 0
    assert result.ratio_to_floor is None


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_the_loopback_is_this_machine(host):
    assert is_this_machine(host)


@pytest.mark.parametrize("host", ["192.0.2.1", "203.0.113.7"])
def test_an_address_set_aside_for_documentation_is_another_machine(host):
    assert not is_this_machine(host)


@pytest.fixture
def root(tmp_path):
    spec = ModelSpec("net", 8, (TensorSpec("x", "FP32", (4,)),), (TensorSpec("y", "FP32", (4,)),))
    root = tmp_path / "repository"
    for multiply_adds in (5, 7):
        cost = dataclasses.replace(COST, multiply_adds_per_sample=multiply_adds)
        config: model_config_pb2.ModelConfig = config_of(spec)
        publish(
            {"model.onnx": b"graph"}, config=config, card=ModelCard(cost=cost), labels={}, root=root
        )
    return root


@pytest.mark.parametrize(("version", "expected"), [("", 7), ("2", 7), ("1", 5)])
def test_the_cost_is_read_from_the_newest_version_or_the_one_asked_for(root, version, expected):
    cost = cost_in_repository(root, model="net", version=version)
    assert cost is not None
    assert cost.multiply_adds_per_sample == expected


def test_a_version_without_a_card_has_no_cost(root):
    (root / "net" / "2" / "model_card.json").unlink()
    assert cost_in_repository(root, model="net", version="") is None


def test_a_model_or_version_that_the_repository_lacks_is_named(root):
    with pytest.raises(NotFound, match="holds no version of a model 'other'"):
        cost_in_repository(root, model="other", version="")
    with pytest.raises(NotFound, match=r"versions \[1, 2\] of 'net', not 9"):
        cost_in_repository(root, model="net", version="9")
