"""FLOPs counted from exported graphs against TensorFlow's profiler, the difference explained.

`python -m export.profiler_table` does the same for the whole zoo, into docs/measurement.md; here
are the networks that are quickly built, at least one for each reason to differ.
"""

import subprocess

import pytest

from export import profiler_table
from export.convert import convert
from export.profiler import profiled
from export.saved_model import SavedModel
from ridgeline import graph
from training import zoo

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
PAGE = f"""# Measuring

{profiler_table.TABLE.title}

What the columns mean.

## Load
"""


@pytest.fixture
def both(tmp_path):
    """both(network): FLOPs of one sample as counted here, and as TensorFlow's profiler does."""

    def both(name):
        network = zoo.build(name)
        network.export(str(tmp_path / name), verbose=False)
        saved = SavedModel(tmp_path / name)
        ours = graph.cost_of(convert(saved, name=name), batches=True).flops_per_sample
        return ours, profiled(saved.positional())

    return both


@pytest.mark.parametrize("name", ["lenet5", "perceptron", "mlp", "vertical_edges"])
def test_products_count_as_in_tensorflow(both, name):
    ours, theirs = both(name)
    assert theirs.products == theirs.explained == ours
    assert 0 <= theirs.rest < 0.02 * ours  # biases, pooling, softmax


def test_transposed_and_normalised_convolutions_count_as_in_tensorflow(both):
    ours, theirs = both("unet")
    assert theirs.products == ours == theirs.explained
    assert 0 < theirs.rest < 0.01 * ours


def test_products_of_attention_are_missing_in_tensorflow(both):
    ours, theirs = both("transformer_language")
    # Two blocks of four heads: 16 words ask 16 words, with 12 numbers each, and gather as many.
    assert theirs.einsum == 2 * 2 * 4 * 16 * 16 * 12 * 2
    assert theirs.loops == theirs.unused == 0
    assert theirs.explained == ours


@pytest.mark.parametrize("name", ["gru_language", "translator_small"])
def test_loops_and_what_is_behind_them_are_missing_in_tensorflow(both, name):
    ours, theirs = both(name)
    assert theirs.loops > 0 > theirs.unused
    assert theirs.open > 0
    assert theirs.explained == ours


def test_a_loop_of_sixteen_words_lacks_what_was_worked_out_by_hand(both):
    ours, theirs = both("lstm_language")
    step = 2 * (16 + 48) * 4 * 48  # a word of 16 numbers and a state of 48, four gates of 48
    assert theirs.loops == 16 * step
    assert theirs.unused == -step  # tried once before the loop
    assert theirs.open == 2 * 16 * 48 * 10  # the next word, one of ten, behind the loop
    assert theirs.explained == ours


def test_the_table_gets_a_row_for_each_network_and_tells_what_failed(tmp_path, monkeypatch, capsys):
    page = tmp_path / "page.md"
    page.write_text(PAGE)

    def counted(network):
        if network == "lenet5":
            raise subprocess.CalledProcessError(1, "ridgeline", stderr="it is broken")
        return (network, *["done"] * 8), 7 if network == "mlp" else 0

    monkeypatch.setattr(profiler_table, "counted", counted)
    assert profiler_table.main(["perceptron", "--page", str(page)]) == 0
    assert profiler_table.main(["lenet5", "--page", str(page)]) == 1
    assert profiler_table.main(["mlp", "--page", str(page)]) == 1  # 7 FLOPs are not explained
    part = page.read_text().partition("## Load")[0].strip()
    done = " | done" * 8
    assert part.endswith(f"| mlp{done} |\n| perceptron{done} |")
    assert "lenet5: it is broken" in capsys.readouterr().err


def test_a_network_is_counted_as_users_build_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    row, left = profiler_table.counted("perceptron")
    assert left == 0
    assert row == ("perceptron", "20,480", "20,480", *["0"] * 5, "60 (0.3%)")
    assert list(tmp_path.iterdir()) == []
