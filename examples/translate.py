"""Numbers in words, translated into digits: draws both.

python examples/translate.py "four hundred and twelve thousand and six" --output number.png
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import tritonclient.grpc as triton
from matplotlib.figure import Figure
from tritonclient.utils import InferenceServerException

_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_TEENS = "eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen"
_ONES = "zero one two three four five six seven eight nine ten"
WORDS = ("END", *f"{_ONES} {_TEENS} {_TENS} hundred thousand and".split())
END, STEPS, NOTHING = 0, 12, -1


def ask(client: triton.InferenceServerClient, *, model: str, words: list[str]) -> str:
    """The digits."""
    source = [WORDS.index(word) for word in words]
    padded = np.array([source + [END] * (STEPS - len(source))], dtype=np.int32)
    tensor = triton.InferInput("source", list(padded.shape), "INT32")
    tensor.set_data_from_numpy(padded)
    digits = client.infer(model, [tensor]).as_numpy("digits")[0]
    return "".join(str(digit) for digit in digits if digit != NOTHING)


def draw(sentences: list[list[str]], numbers: list[str], *, output: Path) -> None:
    """A line for each number."""
    figure = Figure(figsize=(8, 0.4 + 0.5 * len(numbers)))
    for line, (words, number) in enumerate(zip(sentences, numbers, strict=True)):
        height = 1 - (line + 0.7) / (len(numbers) + 0.4)
        figure.text(0.02, height, " ".join(words), fontsize=11)
        figure.text(0.98, height, number, fontsize=14, family="monospace", ha="right")
    figure.savefig(output, dpi=100)


def main() -> None:
    """Ask, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("numbers", nargs="+", help="below a million, in words")
    parser.add_argument("--model", default="translator_small")
    parser.add_argument("--url", default="127.0.0.1:8001", help="the server's gRPC port")
    parser.add_argument("--output", type=Path, default=Path("number.png"))
    given = parser.parse_args()
    sentences = [text.split() for text in given.numbers]
    for words in sentences:
        if unknown := [word for word in words if word not in WORDS[1:]]:
            parser.error(f"{unknown[0]!r} is no word of a number")
        if len(words) > STEPS:
            parser.error(f"a number may have {STEPS} words, received {len(words)}")
    with triton.InferenceServerClient(given.url) as client:
        numbers = [ask(client, model=given.model, words=words) for words in sentences]
    for words, number in zip(sentences, numbers, strict=True):
        print(f"{' '.join(words)} = {number}")
    draw(sentences, numbers, output=given.output)


if __name__ == "__main__":
    try:
        main()
    except (OSError, InferenceServerException) as error:
        sys.exit(f"{Path(__file__).name}: {error}")
