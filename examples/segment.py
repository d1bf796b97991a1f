"""A class for every pixel: draws the mask over the image.

python examples/segment.py --samples artifacts/unet/evaluation.npz --output masks.png
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import tritonclient.grpc as triton
from matplotlib import colormaps
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure
from tritonclient.utils import InferenceServerException

CLASSES = ("nothing", *"0123456789")


def ask(client: triton.InferenceServerClient, *, model: str, images: np.ndarray) -> np.ndarray:
    """The class of every pixel: [images, rows, columns]."""
    tensor = triton.InferInput("image", list(images.shape), "FP32")
    tensor.set_data_from_numpy(images)
    return client.infer(model, [tensor]).as_numpy("mask")


def draw(images: np.ndarray, masks: np.ndarray, *, output: Path) -> None:
    """Images above, masks below, with the colour of each class beside them."""
    figure = Figure(figsize=(2.2 * len(images) + 1, 4.4), layout="constrained")
    colours = ListedColormap(["#202020", *colormaps["tab10"].colors])
    norm = BoundaryNorm(np.arange(len(CLASSES) + 1) - 0.5, len(CLASSES))
    places = figure.subplots(2, len(images), squeeze=False)
    for above, below, image, mask in zip(*places, images, masks, strict=True):
        above.imshow(image[..., 0], cmap="gray", vmin=0, vmax=1)
        shown = below.imshow(mask, cmap=colours, norm=norm)
        for axes in (above, below):
            axes.axis("off")
    bar = figure.colorbar(shown, ax=places, ticks=range(len(CLASSES)))
    bar.ax.set_yticklabels(CLASSES)
    figure.savefig(output, dpi=100)


def main() -> None:
    """Ask, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=Path, default=Path("artifacts/unet/evaluation.npz"))
    parser.add_argument("--count", type=int, default=4, help="how many images")
    parser.add_argument("--model", default="unet")
    parser.add_argument("--url", default="127.0.0.1:8001", help="the server's gRPC port")
    parser.add_argument("--output", type=Path, default=Path("masks.png"))
    given = parser.parse_args()
    images = np.load(given.samples)["image"][: given.count]
    with triton.InferenceServerClient(given.url) as client:
        masks = ask(client, model=given.model, images=images)
    for mask in masks:
        kinds, counts = np.unique(mask, return_counts=True)
        print(", ".join(f"{CLASSES[k]}: {n} pixels" for k, n in zip(kinds, counts, strict=True)))
    draw(images, masks, output=given.output)


if __name__ == "__main__":
    try:
        main()
    except (OSError, InferenceServerException) as error:
        sys.exit(f"{Path(__file__).name}: {error}")
