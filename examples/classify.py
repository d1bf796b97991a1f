"""Photos in, names out: draws each photo with its five likeliest classes.

    python examples/classify.py PHOTO... --output classes.png

The model takes files as they are (`ridgeline pipeline photos --model efficientnet_lite0`).
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import tritonclient.grpc as triton
from matplotlib.figure import Figure
from PIL import Image, ImageOps
from tritonclient.utils import InferenceServerException


def ask(client: triton.InferenceServerClient, *, model: str, files: list[Path]) -> np.ndarray:
    """`score:class:label` of the best five classes, a row for each file."""
    contents = np.array([[file.read_bytes()] for file in files], dtype=np.object_)
    tensor = triton.InferInput("image_file", list(contents.shape), "BYTES")
    tensor.set_data_from_numpy(contents)
    wanted = triton.InferRequestedOutput("probabilities", class_count=5)
    return client.infer(model, [tensor], outputs=[wanted]).as_numpy("probabilities")


def draw(files: list[Path], rows: list[list[tuple[float, str]]], *, output: Path) -> None:
    """Each photo, and beside it a bar for each class."""
    figure = Figure(figsize=(9, 2.6 * len(files)), layout="constrained")
    for axes, file, best in zip(
        figure.subplots(len(files), 2, squeeze=False), files, rows, strict=True
    ):
        axes[0].imshow(ImageOps.exif_transpose(Image.open(file)).convert("RGB"))
        axes[0].axis("off")
        shares, names = zip(*reversed(best), strict=True)
        axes[1].barh(range(len(names)), shares, color="#0072B2")
        axes[1].set_yticks(range(len(names)), names)
        axes[1].set_xlim(0, 1)
        for place, share in enumerate(shares):
            axes[1].text(share + 0.01, place, f"{share:.0%}", va="center")
        axes[1].spines[["top", "right"]].set_visible(False)
    figure.savefig(output, dpi=100)


def main() -> None:
    """Ask, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="+", type=Path, metavar="PHOTO", help="JPEG or PNG")
    parser.add_argument("--model", default="photos")
    parser.add_argument("--url", default="127.0.0.1:8001", help="the server's gRPC port")
    parser.add_argument("--output", type=Path, default=Path("classes.png"))
    given = parser.parse_args()
    with triton.InferenceServerClient(given.url) as client:
        answer = ask(client, model=given.model, files=given.files)
    rows = []
    for file, texts in zip(given.files, answer, strict=True):
        parts = [text.decode().split(":", 2) for text in texts]
        rows.append([(float(score), label) for score, _, label in parts])
        print(f"{file.name}: " + ", ".join(f"{label} {share:.0%}" for share, label in rows[-1]))
    draw(given.files, rows, output=given.output)


if __name__ == "__main__":
    try:
        main()
    except (OSError, InferenceServerException) as error:
        sys.exit(f"{Path(__file__).name}: {error}")
