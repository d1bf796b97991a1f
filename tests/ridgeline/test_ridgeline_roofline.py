"""Floors, worked out by hand: nothing that must happen is left out, nothing else is counted."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ridgeline import roofline
from ridgeline.cost import LayerWork, ModelCost
from ridgeline.errors import InvalidInput
from ridgeline.fingerprint import Fingerprint
from ridgeline.graph_profile import ELEMENTWISE, PRODUCT, Operator
from ridgeline.hardware import Hardware

KIB, MIB = 2**10, 2**20
MACHINE = Hardware(
    fingerprint=Fingerprint(
        cpu="a processor", cores=2, memory_bytes=2**34, platform="here", numpy="2", blas="some"
    ),
    peak_flops_per_s=100e9,
    memory_bandwidth_bytes_per_s=10e9,
    bandwidth_by_working_set=((256 * KIB, 80e9), (MIB, 40e9), (64 * MIB, 20e9)),
    measured_at="2026-01-02T03:04:05+00:00",
    peaks=(("int8", 200e9),),
)
LENET = ModelCost(
    multiply_adds_per_sample=416_520,
    parameters=61_706,
    weight_bytes=246_824,
    input_bytes_per_sample=4096,
    output_bytes_per_sample=40,
)


def test_the_floor_of_lenet_5_is_that_worked_out_by_hand():
    # 833,040 FLOPs / 100 GFLOP/s = 8.3304 us; 250,960 bytes / 80 GB/s = 3.137 us: FLOPs decide.
    floor = roofline.floor(LENET, batch_size=1, hardware=MACHINE)
    assert floor.ns == floor.simple_ns == pytest.approx(8330.4)
    assert floor.bytes_ns == pytest.approx(3137)
    assert floor.bound_by == "arithmetic"


def test_bytes_decide_where_there_are_many_for_each_operation():
    cost = ModelCost(1, 10**9 // 4, 10**9, 0, 0)
    floor = roofline.floor(cost, batch_size=1, hardware=MACHINE)
    assert floor.ns == pytest.approx(50e6)  # 1 GB at the 20 GB/s of 64 MiB and more
    assert floor.bound_by == "memory"


def test_layers_of_different_kinds_bound_more_than_their_totals():
    # One layer of nothing but arithmetic (10 ms), one of nothing but weights (400 MB / 20 GB/s):
    # together at least 30 ms, though each total alone is hidden behind the other.
    layers = (LayerWork(500_000_000, 0), LayerWork(0, 400_000_000))
    cost = ModelCost(500_000_000, 100_000_000, 400_000_000, 0, 0, layers=layers)
    floor = roofline.floor(cost, batch_size=1, hardware=MACHINE)
    assert floor.simple_ns == pytest.approx(20e6)
    assert floor.ns == pytest.approx(30e6)
    # The weights are read once for a batch, so eight samples hide them: 80 ms of arithmetic.
    assert roofline.floor(cost, batch_size=8, hardware=MACHINE).ns == pytest.approx(100e6)


def test_a_layer_in_whole_numbers_is_bounded_by_their_peak():
    layers = (LayerWork(500_000_000, 0, "int8"),)
    cost = ModelCost(500_000_000, 0, 0, 0, 0, layers=layers)
    assert roofline.floor(cost, batch_size=1, hardware=MACHINE).ns == pytest.approx(5e6)


@given(
    layers=st.lists(st.tuples(st.integers(0, 10**12), st.integers(0, 10**9)), max_size=5),
    batch_size=st.integers(1, 64),
)
def test_the_floor_is_never_below_the_simple_bound_nor_above_the_sum_of_both(layers, batch_size):
    work = tuple(LayerWork(count, size) for count, size in layers)
    total, weights = (sum(each) for each in zip(*layers, strict=True)) if layers else (0, 0)
    cost = ModelCost(total, weights // 4, weights, 0, 0, layers=work)
    floor = roofline.floor(cost, batch_size=batch_size, hardware=MACHINE)
    assert floor.simple_ns <= floor.ns <= (floor.flops_ns + floor.bytes_ns) * (1 + 1e-9)


def test_layers_that_do_not_add_up_are_refused():
    with pytest.raises(InvalidInput, match="add up to 416520 multiply-adds, received 5"):
        dataclasses.replace(LENET, layers=(LayerWork(5, 0),))


@pytest.mark.parametrize("layer", [(-1, 0, "fp32"), (0, -1, "fp32"), (0, 0, "fp64")])
def test_a_layer_that_cannot_be_is_refused(layer):
    with pytest.raises(InvalidInput, match="must"):
        LayerWork(*layer)


def test_the_layers_travel_with_the_model():
    layers = (LayerWork(400_000, 200_000), LayerWork(16_520, 46_824, "int8"))
    cost = dataclasses.replace(LENET, layers=layers)
    parameters = cost.to_parameters()
    assert parameters["ridgeline_layers"] == "400000:200000:fp32 16520:46824:int8"
    assert ModelCost.from_parameters(parameters) == cost
    assert ModelCost.from_table(dataclasses.asdict(cost)) == cost
    without = {key: value for key, value in parameters.items() if "layers" not in key}
    assert ModelCost.from_parameters(without) == LENET


@pytest.mark.parametrize("text", ["4:5", "a:b:fp32", "416520:1:fp64", "1:2:3:4"])
def test_layers_that_cannot_be_read_are_malformed(text):
    with pytest.raises(InvalidInput, match="malformed cost"):
        ModelCost.from_parameters({**LENET.to_parameters(), "ridgeline_layers": text})


def test_the_estimate_charges_activations_and_says_so_by_hand():
    product = Operator("p", "Gemm", PRODUCT, 500_000, 4 * MIB, 64 * KIB)
    # 1 MFLOP takes 10 us; 4 MiB at 40 GB/s and 64 KiB at 80 GB/s take 105.7 us.
    wide = 1e9 * (4 * MIB / 40e9 + 64 * KIB / 80e9)
    adding = Operator("a", "Add", ELEMENTWISE, 0, 0, 2 * MIB)
    assert roofline.estimate_ns([product, adding], hardware=MACHINE) == pytest.approx(
        wide + 1e9 * 2 * MIB / 40e9
    )
