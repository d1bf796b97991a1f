"""What there is in an image, and where: draws the class and its box.

python examples/localize.py --samples artifacts/localizer/evaluation.npz --output boxes.png
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import tritonclient.grpc as triton
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from tritonclient.utils import InferenceServerException


def ask(
    client: triton.InferenceServerClient, *, model: str, images: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """`score:class:label` of the likeliest class, and its box: top, left, bottom, right."""
    tensor = triton.InferInput("image", list(images.shape), "FP32")
    tensor.set_data_from_numpy(images)
    wanted = [
        triton.InferRequestedOutput("probabilities", class_count=1),
        triton.InferRequestedOutput("box"),
    ]
    answer = client.infer(model, [tensor], outputs=wanted)
    return answer.as_numpy("probabilities")[:, 0], answer.as_numpy("box")


def draw(images: np.ndarray, captions: list[str], boxes: np.ndarray, *, output: Path) -> None:
    """Each image with its box; boxes are told as shares of the image's sides."""
    figure = Figure(figsize=(2.2 * len(images), 2.5), layout="constrained")
    places = figure.subplots(1, len(images), squeeze=False)[0]
    for axes, image, caption, box in zip(places, images, captions, boxes, strict=True):
        axes.imshow(image[..., 0], cmap="gray", vmin=0, vmax=1, extent=(0, 1, 1, 0))
        top, left, bottom, right = box
        axes.add_patch(
            Rectangle((left, top), right - left, bottom - top, fill=False, ec="#E69F00", lw=2)
        )
        axes.set_title(caption, fontsize=10)
        axes.axis("off")
    figure.savefig(output, dpi=100)


def main() -> None:
    """Ask, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=Path, default=Path("artifacts/localizer/evaluation.npz"))
    parser.add_argument("--count", type=int, default=5, help="how many images")
    parser.add_argument("--model", default="localizer")
    parser.add_argument("--url", default="127.0.0.1:8001", help="the server's gRPC port")
    parser.add_argument("--output", type=Path, default=Path("boxes.png"))
    given = parser.parse_args()
    images = np.load(given.samples)["image"][: given.count]
    with triton.InferenceServerClient(given.url) as client:
        texts, boxes = ask(client, model=given.model, images=images)
    captions = []
    for text, box in zip(texts, boxes, strict=True):
        score, _, label = text.decode().split(":", 2)
        captions.append(f"{label} ({float(score):.0%})")
        print(captions[-1], "at", box.round(2).tolist())
    draw(images, captions, boxes, output=given.output)


if __name__ == "__main__":
    try:
        main()
    except (OSError, InferenceServerException) as error:
        sys.exit(f"{Path(__file__).name}: {error}")
