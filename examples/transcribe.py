"""Speech, as the energy in bands of frequency, and the digits that the model hears in it.

python examples/transcribe.py --samples artifacts/deepspeech_small/evaluation.npz --output heard.png
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import tritonclient.grpc as triton
from matplotlib.figure import Figure
from tritonclient.utils import InferenceServerException

NOTHING = -1
FRAME_S = 0.016  # of the features


def ask(client: triton.InferenceServerClient, *, model: str, features: np.ndarray) -> list[str]:
    """The words of each recording."""
    tensor = triton.InferInput("features", list(features.shape), "FP32")
    tensor.set_data_from_numpy(features)
    words = client.infer(model, [tensor]).as_numpy("words")
    return [" ".join(str(word) for word in row if word != NOTHING) for row in words]


def draw(features: np.ndarray, heard: list[str], *, output: Path) -> None:
    """Each recording over time, low frequencies below, with its words."""
    figure = Figure(figsize=(8, 1.9 * len(heard)), layout="constrained")
    for axes, bands, words in zip(
        figure.subplots(len(heard), 1, squeeze=False)[:, 0], features, heard, strict=True
    ):
        spoken = np.flatnonzero((bands != bands[-1]).any(axis=1))  # behind it the same silence
        bands = bands[: spoken[-1] + 2] if len(spoken) else bands
        seconds = len(bands) * FRAME_S
        axes.imshow(bands.T, origin="lower", aspect="auto", extent=(0, seconds, 0, bands.shape[1]))
        axes.set_title(f"heard: {words}", fontsize=11)
        axes.set_ylabel("band")
    axes.set_xlabel("seconds")
    figure.savefig(output, dpi=100)


def main() -> None:
    """Ask, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--samples", type=Path, default=Path("artifacts/deepspeech_small/evaluation.npz")
    )
    parser.add_argument("--count", type=int, default=3, help="how many recordings")
    parser.add_argument("--model", default="deepspeech_small")
    parser.add_argument("--url", default="127.0.0.1:8001", help="the server's gRPC port")
    parser.add_argument("--output", type=Path, default=Path("heard.png"))
    given = parser.parse_args()
    features = np.load(given.samples)["features"][: given.count]
    with triton.InferenceServerClient(given.url) as client:
        heard = ask(client, model=given.model, features=features)
    print(*heard, sep="\n")
    draw(features, heard, output=given.output)


if __name__ == "__main__":
    try:
        main()
    except (OSError, InferenceServerException) as error:
        sys.exit(f"{Path(__file__).name}: {error}")
