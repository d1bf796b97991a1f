"""Everything that there is in an image: draws a box with class and score around each find.

python examples/detect.py --samples artifacts/detector/evaluation.npz --output found.png
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import tritonclient.grpc as triton
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from tritonclient.utils import InferenceServerException

COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#D55E00", "#CC79A7")
OUTPUTS = ("boxes", "scores", "classes", "count")


def ask(
    client: triton.InferenceServerClient, *, model: str, images: np.ndarray
) -> dict[str, np.ndarray]:
    """All outputs; of each image the first `count` entries are finds, the rest is filling."""
    tensor = triton.InferInput("image", list(images.shape), "FP32")
    tensor.set_data_from_numpy(images)
    answer = client.infer(model, [tensor])
    return {name: answer.as_numpy(name) for name in OUTPUTS}


def draw(images: np.ndarray, found: dict[str, np.ndarray], *, output: Path) -> None:
    """Each image with its boxes; boxes are told as shares of the image's sides."""
    figure = Figure(figsize=(2.6 * len(images), 2.7), layout="constrained")
    for row, axes in enumerate(figure.subplots(1, len(images), squeeze=False)[0]):
        axes.imshow(images[row, ..., 0], cmap="gray", vmin=0, vmax=1, extent=(0, 1, 1, 0))
        for place in range(int(found["count"][row])):
            top, left, bottom, right = found["boxes"][row, place]
            colour = COLOURS[place % len(COLOURS)]
            axes.add_patch(
                Rectangle((left, top), right - left, bottom - top, fill=False, ec=colour, lw=1.8)
            )
            caption = f"{found['classes'][row, place]:.0f} {found['scores'][row, place]:.0%}"
            ground = {"facecolor": "black", "edgecolor": "none", "pad": 1}
            height = max(top, 0.08)  # the caption stays inside of the image
            axes.text(left, height, caption, color=colour, fontsize=8, va="bottom", bbox=ground)
        axes.axis("off")
    figure.savefig(output, dpi=100)


def main() -> None:
    """Ask, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=Path, default=Path("artifacts/detector/evaluation.npz"))
    parser.add_argument("--count", type=int, default=4, help="how many images")
    parser.add_argument("--model", default="detector")
    parser.add_argument("--url", default="127.0.0.1:8001", help="the server's gRPC port")
    parser.add_argument("--output", type=Path, default=Path("found.png"))
    given = parser.parse_args()
    images = np.load(given.samples)["image"][: given.count]
    with triton.InferenceServerClient(given.url) as client:
        found = ask(client, model=given.model, images=images)
    for count, classes in zip(found["count"], found["classes"], strict=True):
        print(f"{count} found:", *(f"{kind:.0f}" for kind in classes[: int(count)]))
    draw(images, found, output=given.output)


if __name__ == "__main__":
    try:
        main()
    except (OSError, InferenceServerException) as error:
        sys.exit(f"{Path(__file__).name}: {error}")
