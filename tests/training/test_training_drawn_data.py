"""Data that is drawn: right labels, the same for the same seed, tests apart from training."""

import math

import numpy as np
import pytest

from training.datasets import DataSet, canvas, grammar, number_words, spoken_digits


def test_boxes_touch_their_digits_and_masks_lie_within(mnist: DataSet) -> None:
    for image, rows, mask in canvas.draw(mnist.test, count=40, most=3, seed=4):
        assert image.shape == mask.shape == (48, 48)
        assert 1 <= len(rows) <= 3
        inside = np.zeros((48, 48), bool)
        for kind, *box in rows:
            top, left, bottom, right = (round(48 * edge) for edge in box)
            part = mask[top:bottom, left:right]
            assert set(np.unique(part)) == {0, 1 + int(kind)}
            for edge in (part[0], part[-1], part[:, 0], part[:, -1]):
                assert edge.any()
            inside[top:bottom, left:right] = True
        assert not mask[~inside].any()
        assert image.min() >= 0
        assert image.max() <= 1


def test_the_same_seed_draws_the_same_canvases(mnist: DataSet) -> None:
    first, again, other = (
        canvas.draw(mnist.test, count=3, most=3, seed=seed)[2][0] for seed in (1, 1, 2)
    )
    assert (first == again).all()
    assert (first != other).any()


def test_canvases_for_another_seed_are_others_of_the_same_kind() -> None:
    data = canvas.load_masks(training=5, test=1)
    assert data.redraw is not None
    first, again, other = (data.redraw(5, seed) for seed in (7, 7, 8))
    assert (first.inputs == again.inputs).all()
    drawn = [sample.inputs.tobytes() for sample in (data.training, first, other)]
    assert len(set(drawn)) == 3
    assert other.labels.shape == data.training.labels.shape
    assert other.labels.dtype == data.training.labels.dtype


def test_resizing_keeps_a_plane_flat_and_a_slope_a_slope() -> None:
    flat = canvas.resize(np.full((28, 28), 0.3, np.float32), side=19)
    assert flat == pytest.approx(0.3)
    slope = canvas.resize(np.tile(np.arange(28, dtype=np.float32), (28, 1)), side=56)
    assert np.diff(slope[5, 2:-2]) == pytest.approx(0.5, abs=1e-4)


def test_the_grammar_has_294_sentences_whose_chances_add_up() -> None:
    found = grammar.sentences()
    assert len(found) == 294
    assert sum(found.values()) == pytest.approx(1)
    assert found["my", "dog", "sleeps"] == pytest.approx(0.2 * 0.6 * 0.8 * 0.4)
    on_its_own = found["my", "dog", "sleeps", "on", "my", "bed"]
    assert on_its_own == pytest.approx(0.2 * 0.6 * 0.8 * 0.6 * 0.7 * 0.7)


def test_the_entropy_is_the_sum_of_that_of_each_choice() -> None:
    def choice(*chances: float) -> float:
        return -sum(chance * math.log(chance) for chance in chances)

    by_hand = choice(0.5, 0.2, 0.3) + choice(0.6, 0.4) + choice(0.2, 0.8) + choice(0.6, 0.4)
    for determiner, often in (("a", 0.5), ("my", 0.2), ("the", 0.3)):
        others = {"a": 0.5, "my": 0.2, "the": 0.3}
        rest = 1 - others.pop(determiner)
        place = choice(0.7, *(0.3 * share / rest for share in others.values())) + choice(0.7, 0.3)
        by_hand += often * (0.2 + 0.6) * place
    assert grammar.entropy_nats() == pytest.approx(by_hand)


def test_sentences_begin_and_end_with_eos_and_labels_are_the_next_words() -> None:
    data = grammar.load()
    assert data.classes[:5] == ("EOS", "a", "my", "sleeps", "on")
    for words, labels in zip(data.test.inputs, data.test.labels, strict=True):
        length = int((labels >= 0).sum())
        assert words[0] == 0
        assert (words[1:length] == labels[: length - 1]).all()
        assert labels[length - 1] == 0
        assert (labels[length:] == -1).all()


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0, "zero"),
        (17, "seventeen"),
        (40, "forty"),
        (342, "three hundred and forty two"),
        (1000, "one thousand"),
        (1_006, "one thousand and six"),
        (102_006, "one hundred and two thousand and six"),
        (999_999, "nine hundred and ninety nine thousand nine hundred and ninety nine"),
    ],
)
def test_numbers_are_spoken_as_in_britain(number: int, words: str) -> None:
    assert " ".join(number_words.spoken(number)) == words


def test_no_number_of_the_test_set_is_trained_on_and_labels_are_its_digits() -> None:
    data = number_words.load(training=3000)
    kept = {tuple(row[:12]) for row in data.training.inputs}
    assert not kept & {tuple(row[:12]) for row in data.test.inputs}
    for row, labels in zip(data.test.inputs[:200], data.test.labels, strict=False):
        digits = [str(digit) for digit in labels if 0 <= digit < 10]
        assert number_words.encode(number_words.spoken(int("".join(digits)))) == row[:12].tolist()
        assert row[12] == number_words.END
        assert row[13 : 12 + len(digits)].tolist() == labels[: len(digits) - 1].tolist()


def test_voices_held_out_differ_from_all_that_are_trained_on() -> None:
    random = np.random.default_rng(1)
    trained = [spoken_digits.draw_voice(held_out=False, random=random) for _ in range(200)]
    held_out = [spoken_digits.draw_voice(held_out=True, random=random) for _ in range(200)]
    for low, high in ((105, 120), (170, 190), (240, 260)):
        assert not [voice for voice in trained if low < voice.pitch_hz < high]
        assert [voice for voice in held_out if low < voice.pitch_hz < high]


def test_a_hiss_is_high_a_vowel_is_low_and_silence_is_quiet() -> None:
    random = np.random.default_rng(1)
    voice = spoken_digits.Voice(pitch_hz=120, mouth=1.0, rate=1.0, noise=0.002)
    six = spoken_digits.features(spoken_digits.speak([6], voice, random=random))
    one = spoken_digits.features(spoken_digits.speak([1], voice, random=random))
    assert six.shape == (160, 40)
    assert six[:, 36:].max() > one[:, 36:].max() + 0.3
    assert one[:, :12].max() > one[:, 36:].max() + 0.3
    assert six[120:].max() < -1
