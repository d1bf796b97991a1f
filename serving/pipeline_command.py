"""The command `ridgeline pipeline`: lets a published classifier take image files."""

import argparse
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ridgeline.errors import InvalidInput, NotFound

_DEFAULT = "as the model was trained"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The name, the classifier, and how images become its tensors."""
    parser.add_argument("name", metavar="NAME", help="the ensemble to write: image files in")
    parser.add_argument(
        "--model", required=True, help="the published model that takes the image as a tensor"
    )
    parser.add_argument(
        "--repository",
        type=Path,
        default=Path("model_repository"),
        metavar="DIR",
        help="where the model is, and the ensemble goes (default: model_repository)",
    )
    parser.add_argument(
        "--labels",
        type=Path,
        metavar="FILE",
        help="class names, one a line (default: those published with the model)",
    )
    parser.add_argument(
        "--resize",
        choices=["pad", "crop", "stretch"],
        help="pad: shrunk where too large, black around it; crop: the middle fills the tensor; "
        f"stretch: proportions given up (default: {_DEFAULT}, else pad)",
    )
    parser.add_argument(
        "--crop-share",
        type=float,
        metavar="SHARE",
        help=f"what crop keeps of the shorter side (default: {_DEFAULT}, else 1)",
    )
    parser.add_argument(
        "--filter",
        choices=["bilinear", "bicubic"],
        help=f"how images are resized (default: {_DEFAULT}, else bilinear)",
    )
    parser.add_argument(
        "--invert",
        action="store_true",
        help="for dark strokes on white paper, where the model was trained on white on black",
    )
    for name, what, default in (("mean", "is subtracted from", 0.0), ("std", "divides", 255.0)):
        parser.add_argument(
            f"--{name}",
            type=float,
            nargs="+",
            metavar="LEVEL",
            help=f"what {what} levels of 0 to 255; one number, or one a channel "
            f"(default: {_DEFAULT}, else {default:g})",
        )
    for name, what, limit in (
        ("max-file-bytes", "largest file", 16 << 20),
        ("max-pixels", "largest image, in pixels,", 25_000_000),
    ):
        parser.add_argument(
            f"--{name}",
            type=int,
            default=limit,
            metavar="N",
            help=f"{what} that is accepted (default: {limit})",
        )


def run(arguments: argparse.Namespace) -> Mapping[str, Any]:
    """Write both models; returns where they are. Raises a RidgelineError where that cannot be."""
    from serving.pipeline import INPUT, read_classifier, write_pipeline
    from serving.settings import ServeSettings

    classifier = read_classifier(
        arguments.model,
        root=arguments.repository,
        labels=_labels(arguments.labels),
        settings=ServeSettings(),
    )
    given = {name: getattr(arguments, name) for name in ("resize", "crop_share", "filter")}
    for name in ("mean", "std"):
        levels = getattr(arguments, name)
        given[name] = None if levels is None else tuple(levels)
    preprocessing = replace(
        classifier.trained_with,
        **{name: value for name, value in given.items() if value is not None},
        invert=arguments.invert,
        max_file_bytes=arguments.max_file_bytes,
        max_pixels=arguments.max_pixels,
    )
    published = write_pipeline(
        arguments.name,
        classifier=classifier,
        preprocessing=preprocessing,
        root=arguments.repository,
    )
    return {
        "ensemble": str(published.ensemble),
        "preprocess": str(published.preprocess),
        "model": arguments.model,
        "input": INPUT,
        "outputs": [output.name for output in classifier.spec.outputs],
        "labels": {output: len(names) for output, names in classifier.labels.items()},
    }


def show(result: Mapping[str, Any]) -> None:
    """Where the two models are, and what is sent and answered."""
    print(f"{result['ensemble']}: {result['input']} in, {', '.join(result['outputs'])} out")
    print(f"{result['preprocess']}: makes the tensor that {result['model']} takes")
    for output, count in result["labels"].items():
        print(f"{output} has {count} labels")


def _labels(path: Path | None) -> list[str] | None:
    if path is None:
        return None
    try:
        names = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise NotFound(f"there is no file {path}") from None
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{path} is not UTF-8 text: {error}") from error
    if not names:
        raise InvalidInput(f"{path} must name the classes, one a line; it is empty")
    return names
