"""Image files in, tensors out: JPEG or PNG, one a row, as a classifier wants them.

Parameters of the configuration (`ridgeline pipeline` writes them; * must be given):

    height*, width*   pixels
    channels*         1 (grey) or 3 (red, green, blue)
    layout            NHWC (default) or NCHW: where the channels stand in a row of the output
    resize            pad: whole image, shrunk where too large, black around it (default)
                      crop: the middle of the image, none of the output empty
                      stretch: whole image, its proportions given up
    crop_share        of `crop`: how much of the shorter side the middle has (default 1)
    filter            bilinear (default) or bicubic; both average where they shrink
    invert            "true" makes dark strokes on white paper white on black
    mean, std         output = (level - mean) / std, levels from 0 to 255; one number, or one a
                      channel, with commas between (default 0 and 255: from 0 to 1)
    max_file_bytes    of one file (default 16777216)
    max_pixels        of one image, looked up before it is unpacked (default 25000000)

A request with a row that is no such image is answered INVALID_ARG; others of its batch are not
concerned. Photos are turned upright as their EXIF data say, transparent images lie on white.
"""

import io
import json

import numpy as np
import triton_python_backend_utils as pb_utils
from PIL import Image, ImageOps

_FORMATS = ("JPEG", "PNG")
_RESIZES = ("pad", "crop", "stretch")
_LAYOUTS = ("NHWC", "NCHW")
_FILTERS = ("bilinear", "bicubic")
_KNOWN = {
    *("height", "width", "channels", "layout", "resize", "invert", "mean", "std"),
    *("crop_share", "filter"),
    *("max_file_bytes", "max_pixels"),
}

Image.MAX_IMAGE_PIXELS = None  # our own limit is looked at sooner, and refuses instead of warning


class TritonPythonModel:
    """One instance, as Triton's Python backend calls it."""

    def initialize(self, args):
        """Read the configuration. Raises TritonModelException where it makes no sense."""
        config = json.loads(args["model_config"])
        given = config.get("parameters", {})
        values = {key: value["string_value"] for key, value in given.items()}
        if unknown := sorted(set(values) - _KNOWN):
            raise pb_utils.TritonModelException(
                f"unknown parameters {unknown}; known are {sorted(_KNOWN)}"
            )
        self._height = _whole(values, "height")
        self._width = _whole(values, "width")
        self._channels = _whole(values, "channels")
        if self._channels not in (1, 3):
            raise pb_utils.TritonModelException(
                f"channels must be 1 or 3, received {self._channels}"
            )
        self._layout = _one_of(values, "layout", _LAYOUTS)
        self._resize = _one_of(values, "resize", _RESIZES)
        self._crop_share = _share(values, "crop_share")
        self._filter = Image.Resampling[_one_of(values, "filter", _FILTERS).upper()]
        self._invert = _one_of(values, "invert", ("false", "true")) == "true"
        self._mean = _levels(values, "mean", "0", channels=self._channels)
        self._std = _levels(values, "std", "255", channels=self._channels)
        if not self._std.all():
            raise pb_utils.TritonModelException("std must not be 0")
        self._max_file_bytes = _whole(values, "max_file_bytes", "16777216")
        self._max_pixels = _whole(values, "max_pixels", "25000000")
        self._batches = config.get("max_batch_size", 0) > 0
        [self._input], [output] = config["input"], config["output"]
        self._output, self._row = output["name"], [int(size) for size in output["dims"]]
        if np.prod(self._row) != self._height * self._width * self._channels:
            raise pb_utils.TritonModelException(
                f"an output of {self._row} does not hold {self._height} x {self._width} pixels of "
                f"{self._channels} channels"
            )

    def execute(self, requests):
        """Answer each request by itself."""
        return [self._answer(request) for request in requests]

    def _answer(self, request):
        tensor = pb_utils.get_input_tensor_by_name(request, self._input["name"])
        files = tensor.as_numpy().ravel()
        rows = []
        for number, file in enumerate(files):
            try:
                rows.append(self._tensor(file))
            except ValueError as error:
                text = f"row {number}: {error}"
                return pb_utils.InferenceResponse(
                    error=pb_utils.TritonError(text, pb_utils.TritonError.INVALID_ARG)
                )
        shape = [len(files), *self._row] if self._batches else self._row
        array = np.array(rows, dtype=np.float32).reshape(shape)
        return pb_utils.InferenceResponse([pb_utils.Tensor(self._output, array)])

    def _tensor(self, file):
        """One row: float32 [height, width, channels], or [channels, height, width]."""
        image = self._fitted(self._unpacked(file))
        levels = np.asarray(image).reshape(*image.size[::-1], self._channels)
        levels = 255 - levels if self._invert else levels
        canvas = np.zeros((self._height, self._width, self._channels), dtype=np.float32)
        top, left = ((self._height - image.height) // 2, (self._width - image.width) // 2)
        canvas[top : top + image.height, left : left + image.width] = levels
        canvas = (canvas - self._mean) / self._std
        return canvas.transpose(2, 0, 1) if self._layout == "NCHW" else canvas

    def _unpacked(self, file):
        """The image, upright, grey or in colours. Raises ValueError."""
        if not file:
            raise ValueError("the file is empty; expected a JPEG or PNG image")
        if len(file) > self._max_file_bytes:
            raise ValueError(
                f"the file has {len(file)} bytes; at most {self._max_file_bytes} are accepted"
            )
        try:
            image = Image.open(io.BytesIO(file), formats=_FORMATS)
        except Exception as error:  # Pillow raises many kinds for malformed files
            raise ValueError(
                f"the file ({len(file)} bytes, beginning with {bytes(file[:8]).hex(' ')}) "
                "cannot be read as a JPEG or PNG image"
            ) from error
        if image.width * image.height > self._max_pixels:
            raise ValueError(
                f"the image has {image.width} x {image.height} pixels; "
                f"at most {self._max_pixels} are accepted"
            )
        try:
            image.load()
            return _in_channels(ImageOps.exif_transpose(image), self._channels)
        except Exception as error:
            raise ValueError(f"the {image.format} image is damaged: {error}") from error

    def _fitted(self, image):
        """The image at the size of the output, or smaller where it is to be padded."""
        size = (self._width, self._height)
        if self._resize == "crop":
            margin = (1 - self._crop_share) / 2
            return ImageOps.fit(image, size, method=self._filter, bleed=margin)
        if self._resize == "pad":
            scale = min(1, self._width / image.width, self._height / image.height)
            size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        return image if image.size == size else image.resize(size, self._filter)


def _in_channels(image, channels):
    """Eight bits a channel; what is transparent shows white."""
    if image.mode.startswith("I"):  # sixteen bits of grey
        image = Image.fromarray((np.asarray(image) // 257).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("L" if channels == 1 else "RGB")


def _whole(values, key, default=None):
    text = values.get(key, default)
    if text is None or not text.isdecimal() or int(text) < 1:
        raise pb_utils.TritonModelException(
            f"the parameter {key!r} must be a whole number of at least 1, received {text!r}"
        )
    return int(text)


def _share(values, key):
    text = values.get(key, "1")
    try:
        share = float(text)
    except ValueError:
        share = 0.0
    if not 0 < share <= 1:
        raise pb_utils.TritonModelException(
            f"the parameter {key!r} must be a number above 0, at most 1, received {text!r}"
        )
    return share


def _one_of(values, key, choices):
    text = values.get(key, choices[0])
    if text not in choices:
        raise pb_utils.TritonModelException(
            f"the parameter {key!r} must be one of {', '.join(choices)}, received {text!r}"
        )
    return text


def _levels(values, key, default, *, channels):
    text = values.get(key, default)
    try:
        levels = np.array([float(part) for part in text.split(",")], dtype=np.float32)
    except ValueError:
        levels = np.array([], dtype=np.float32)
    if len(levels) not in (1, channels) or not np.isfinite(levels).all():
        raise pb_utils.TritonModelException(
            f"the parameter {key!r} must be one number, or {channels} with commas between, "
            f"received {text!r}"
        )
    return levels
