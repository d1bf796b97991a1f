"""A sentence that is begun, and ended by the model: draws how likely each word was at each place.

python examples/continue_sentence.py the dog --output sentence.png

With --stateful the model remembers the words before, and only one word is sent at a time.
"""

import argparse
import sys
import uuid
from pathlib import Path

import numpy as np
import tritonclient.grpc as triton
from matplotlib.figure import Figure
from tritonclient.utils import InferenceServerException

WORDS = ("EOS", "a", "my", "sleeps", "on", "dog", "cat", "the", "bed", "floor")
EOS, STEPS = 0, 16  # EOS stands at the beginning, at the end, and behind it


def ask(client: triton.InferenceServerClient, *, model: str, words: list[int]) -> np.ndarray:
    """How likely each word is to be the next: [words]."""
    padded = np.array([[EOS, *words] + [EOS] * (STEPS - 1 - len(words))], dtype=np.int32)
    tensor = triton.InferInput("words", list(padded.shape), "INT32")
    tensor.set_data_from_numpy(padded)
    return client.infer(model, [tensor]).as_numpy("probabilities")[0, len(words)]


def ask_step(
    client: triton.InferenceServerClient,
    *,
    model: str,
    words: list[int],
    sequence: str,
    ends: bool = False,
) -> np.ndarray:
    """The same, of a model that has seen all words but the last one in this sequence."""
    tensor = triton.InferInput("word", [1, 1], "INT32")
    tensor.set_data_from_numpy(np.array([[words[-1] if words else EOS]], dtype=np.int32))
    place = {"sequence_id": sequence, "sequence_start": not words, "sequence_end": ends}
    return client.infer(model, [tensor], **place).as_numpy("probabilities")[0]


def draw(given: int, words: list[int], chances: np.ndarray, *, output: Path) -> None:
    """A column for each word of the sentence, as likely as the darkness of the squares."""
    figure = Figure(figsize=(1.1 * len(words) + 2, 4.2), layout="constrained")
    axes = figure.subplots()
    shown = axes.imshow(chances.T, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    axes.set_yticks(range(len(WORDS)), WORDS)
    axes.set_xticks(range(len(words)), [WORDS[word] for word in words])
    for place, word in enumerate(words):
        chance = chances[place, word]
        colour = "#D55E00" if place < given else "black"
        ground = {"facecolor": "white", "edgecolor": "none", "pad": 2}
        axes.text(place, word, f"{chance:.0%}", ha="center", va="center", color=colour, bbox=ground)
    axes.set_title("orange: given; the others: the model's likeliest next word")
    figure.colorbar(shown, label="probability")
    figure.savefig(output, dpi=100)


def main() -> None:
    """Ask for one word after the other, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("words", nargs="+", choices=WORDS[1:], help="how the sentence begins")
    parser.add_argument("--model", default="gru_language")
    parser.add_argument("--url", default="127.0.0.1:8001", help="the server's gRPC port")
    parser.add_argument("--output", type=Path, default=Path("sentence.png"))
    parser.add_argument("--stateful", action="store_true", help="ask <model>_step, word by word")
    given = parser.parse_args()
    begun = [WORDS.index(word) for word in given.words[: STEPS - 2]]
    words: list[int] = []
    chances = []
    stepwise = {"model": f"{given.model}_step", "sequence": uuid.uuid4().hex}
    with triton.InferenceServerClient(given.url) as client:
        while len(words) < STEPS - 1 and (not words or words[-1] != EOS):
            if given.stateful:
                chances.append(ask_step(client, words=words, **stepwise))
            else:
                chances.append(ask(client, model=given.model, words=words))
            known = len(words) < len(begun)
            words.append(begun[len(words)] if known else int(chances[-1].argmax()))
        if given.stateful:
            ask_step(client, words=words, ends=True, **stepwise)
    print(" ".join(WORDS[word] for word in words))
    draw(len(begun), words, np.array(chances), output=given.output)


if __name__ == "__main__":
    try:
        main()
    except (OSError, InferenceServerException) as error:
        sys.exit(f"{Path(__file__).name}: {error}")
