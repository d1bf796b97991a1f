"""Numbers in words and in digits: a translation with one right answer, which needs attention.

"four hundred and twelve thousand and six" becomes 4 1 2 0 0 6. How many digits there are, and where
zeros stand that nobody says, depends on words far away. Numbers for testing are never trained on.

Inputs int32 [samples, 12 + 7]: the words, filled with END; then what the decoder is given while it
learns, BEGIN and the digits. Labels int64 [samples, 7]: the digits and END, -1 behind it.
"""

import numpy as np

from training.datasets.samples import DataSet, Samples

_ONES = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
]
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
WORDS = ("END", *_ONES, *_TENS, "hundred", "thousand", "and")
END_WORD = 0
DIGITS = ("0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "END")
END = 10  # also what the decoder is given at the beginning
NOTHING = -1
WORD_STEPS, DIGIT_STEPS = 12, 7
LARGEST = 999_999
_SEED = 9


def load(*, training: int = 30_000, test: int = 2_000) -> DataSet:
    """Numbers with one to six digits: long ones as often of each length, and all below 1,000."""
    random = np.random.default_rng(_SEED)
    digits = random.integers(1, 7, 4 * training)
    drawn = random.integers(10 ** (digits - 1), 10**digits)
    numbers = random.permutation(np.unique(np.concatenate([drawn, np.arange(1000)])))
    return DataSet(
        training=_samples(numbers[test : test + training].tolist()),
        test=_samples(numbers[:test].tolist()),
        classes=DIGITS,
    )


def spoken(number: int) -> list[str]:
    """The number in British words: spoken(102_006) is "one hundred and two thousand and six"."""
    thousands, rest = divmod(number, 1000)
    if not thousands:
        return _below_thousand(rest)
    words = [*_below_thousand(thousands), "thousand"]
    if not rest:
        return words
    return [*words, *(["and"] if rest < 100 else []), *_below_thousand(rest)]


def encode(words: list[str]) -> list[int]:
    """The numbers of the words, filled with END to twelve."""
    numbers = [WORDS.index(word) for word in words]
    return numbers + [END_WORD] * (WORD_STEPS - len(numbers))


def _below_thousand(number: int) -> list[str]:
    hundreds, rest = divmod(number, 100)
    if not hundreds:
        return _below_hundred(rest)
    return [_ONES[hundreds], "hundred", *(["and", *_below_hundred(rest)] if rest else [])]


def _below_hundred(number: int) -> list[str]:
    if number < len(_ONES):
        return [_ONES[number]]
    tens, ones = divmod(number, 10)
    return [_TENS[tens - 2], *([_ONES[ones]] if ones else [])]


def _samples(numbers: list[int]) -> Samples:
    inputs = np.zeros((len(numbers), WORD_STEPS + DIGIT_STEPS), np.int32)
    labels = np.full((len(numbers), DIGIT_STEPS), NOTHING, np.int64)
    for row, number in enumerate(numbers):
        digits = [int(digit) for digit in str(number)]
        given = [END, *digits, *[END] * DIGIT_STEPS][:DIGIT_STEPS]
        inputs[row] = encode(spoken(number)) + given
        labels[row, : len(digits) + 1] = [*digits, END]
    return Samples(inputs=inputs, labels=labels)
