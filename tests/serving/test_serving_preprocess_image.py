"""The model preprocess_image: which levels arrive where, and what it refuses."""

import importlib.util
import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import serving

FOLDER = Path(serving.__file__).parent


def module(name, path, monkeypatch):
    spec = importlib.util.spec_from_file_location(name, path)
    loaded = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, loaded)
    spec.loader.exec_module(loaded)
    return loaded


@pytest.fixture
def pb(monkeypatch):
    path = FOLDER / "python_worker/api/triton_python_backend_utils.py"
    monkeypatch.syspath_prepend(FOLDER / "python_worker/api")
    return module("triton_python_backend_utils", path, monkeypatch)


@pytest.fixture
def model(pb, monkeypatch):  # noqa: ARG001 - the model imports it
    """model(dims, **parameters): an initialized instance with an output of that shape."""
    source = module("model", FOLDER / "python-models/preprocess_image.py", monkeypatch)

    def model(dims=(4, 4, 1), *, batch=8, **parameters):
        sizes = {"height": "4", "width": "4", "channels": "1"} | parameters
        config = {
            "max_batch_size": batch,
            "input": [{"name": "file", "dims": ["1"]}],
            "output": [{"name": "image", "dims": [str(size) for size in dims]}],
            "parameters": {key: {"string_value": value} for key, value in sizes.items()},
        }
        made = source.TritonPythonModel()
        made.initialize({"model_config": json.dumps(config)})
        return made

    return model


@pytest.fixture
def run(pb, model):
    """run(*files, **like model): one request with these rows; the array, or the error."""

    def request(*files):
        rows = np.array([[file] for file in files], dtype=np.object_)
        return pb.InferenceRequest(
            inputs=[pb.Tensor("file", rows)], requested_output_names=["image"], model_name="m"
        )

    def run(*files, dims=(4, 4, 1), **parameters):
        [response] = model(dims, **parameters).execute([request(*files)])
        if response.has_error():
            return response.error()
        return response.output_tensors()[0].as_numpy()

    run.request = request
    return run


def file_of(image, kind="PNG", **options):
    stream = io.BytesIO()
    if not isinstance(image, Image.Image):
        image = Image.fromarray(np.asarray(image))
    image.save(stream, kind, **options)
    return stream.getvalue()


def grey(height, width, level=255):
    return np.full((height, width), level, dtype=np.uint8)


def test_levels_become_numbers_from_0_to_1_a_row_for_each_file(run):
    ramp = np.arange(16, dtype=np.uint8).reshape(4, 4)
    array = run(file_of(ramp), file_of(ramp + 1))
    assert (array.dtype, array.shape) == (np.float32, (2, 4, 4, 1))
    np.testing.assert_array_equal(array[0, ..., 0], ramp / np.float32(255))
    np.testing.assert_array_equal(array[1, ..., 0], (ramp + 1) / np.float32(255))


def test_no_rows_give_no_rows(run):
    assert run().shape == (0, 4, 4, 1)


def test_a_model_without_batches_gets_the_shape_it_asks_for(run):
    assert run(file_of(grey(4, 4)), dims=(1, 1, 4, 4), layout="NCHW", batch=0).shape == (1, 1, 4, 4)


def test_a_small_image_is_padded_in_the_middle_with_black_also_where_it_is_inverted(run):
    for level, options in ((255, {}), (0, {"invert": "true"})):
        array = run(file_of(grey(2, 2, level)), **options)[0, ..., 0]
        np.testing.assert_array_equal(array, np.pad(np.ones((2, 2)), 1))


def test_a_wide_image_is_shrunk_and_padded_cropped_or_stretched(run):
    wide = np.zeros((8, 16), dtype=np.uint8)
    wide[:, 4:12] = 255  # the middle
    padded = run(file_of(wide))[0, ..., 0]
    assert padded[0].tolist() == padded[3].tolist() == [0, 0, 0, 0]
    assert (padded[1, 1:3] > 0.8).all()
    assert (run(file_of(wide), resize="crop") > 0.8).all()
    stretched = run(file_of(wide), resize="stretch")[0, ..., 0]
    assert (stretched[:, 1:3] > 0.8).all()
    assert (stretched[:, (0, 3)] < 0.2).all()


def test_a_share_of_the_middle_is_cropped_with_the_filter_that_is_asked_for(run):
    bright = np.zeros((16, 32), dtype=np.uint8)
    bright[4:12, 12:20] = 255  # half of the shorter side
    half = {"resize": "crop", "crop_share": "0.5"}
    assert (run(file_of(bright), **half) > 0.7).all()
    assert (run(file_of(bright), resize="crop") > 0.7).mean() == 0.25

    picture = np.random.default_rng(1).integers(0, 256, (32, 32), dtype=np.uint8)
    middle = Image.fromarray(picture[8:24, 8:24])
    for name, kind in (
        ("bicubic", Image.Resampling.BICUBIC),
        ("bilinear", Image.Resampling.BILINEAR),
    ):
        expected = np.asarray(middle.resize((4, 4), kind)) / np.float32(255)
        found = run(file_of(picture), filter=name, **half)[0, ..., 0]
        # At the edge of the crop the filter sees pixels outside of it.
        np.testing.assert_allclose(found[1:3, 1:3], expected[1:3, 1:3], atol=0.1)
    assert (run(file_of(picture), filter="bicubic", **half) != found).any()


@pytest.mark.parametrize("resize", ["pad", "crop", "stretch"])
@pytest.mark.parametrize("shape", [(1, 100_000), (100_000, 1)])
def test_a_thread_of_an_image_is_no_bomb(run, resize, shape):
    assert run(file_of(grey(*shape)), resize=resize).shape == (1, 4, 4, 1)


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_colours_have_a_mean_and_a_deviation_each(run, layout):
    image = np.full((4, 4, 3), (10, 20, 30), dtype=np.uint8)
    dims = (4, 4, 3) if layout == "NHWC" else (3, 4, 4)
    array = run(
        file_of(image), dims=dims, layout=layout, channels="3", mean="10,10,10", std="1,2,4"
    )
    pixels = array[0, 0, 0] if layout == "NHWC" else array[0, :, 0, 0]
    assert array.shape == (1, *dims)
    assert pixels.tolist() == [0, 5, 5]


def test_grey_and_palette_images_become_colours_and_colours_grey(run):
    colours = {"dims": (4, 4, 3), "channels": "3"}
    assert (run(file_of(grey(4, 4)), **colours) == 1).all()
    assert (run(file_of(Image.new("P", (4, 4), 0)), **colours) == 0).all()
    assert (run(file_of(np.full((4, 4, 3), 255, dtype=np.uint8))) == 1).all()


def test_a_jpeg_is_read_and_turned_upright(run):
    image = Image.new("L", (4, 4), 0)
    image.paste(255, (0, 0, 4, 2))  # bright above
    exif = Image.Exif()
    exif[0x0112] = 3  # the camera was upside down
    array = run(file_of(image, "JPEG", exif=exif, quality=100))[0, ..., 0]
    assert (array[2:] > 0.9).all()
    assert (array[:2] < 0.1).all()


def test_what_is_transparent_shows_white_paper(run):
    assert (run(file_of(np.zeros((4, 4, 4), dtype=np.uint8))) == 1).all()


def test_sixteen_bits_of_grey_keep_their_place_between_black_and_white(run):
    half = np.full((4, 4), 128 * 257, dtype=np.uint16)
    np.testing.assert_allclose(run(file_of(half)), 128 / 255)


@pytest.mark.parametrize(
    ("file", "parameters", "text"),
    [
        (b"", {}, "row 0: the file is empty"),
        (b"hello", {}, "beginning with 68 65 6c 6c 6f"),
        (file_of(grey(4, 4), "GIF"), {}, "cannot be read as a JPEG or PNG image"),
        (file_of(grey(4, 4)), {"max_file_bytes": "9"}, "at most 9 are accepted"),
        (file_of(grey(4, 5)), {"max_pixels": "19"}, "5 x 4 pixels; at most 19 are accepted"),
        (file_of(grey(99, 99), "JPEG")[:-40], {}, "the JPEG image is damaged"),
        (file_of(grey(9, 9))[:40], {}, "cannot be read as a JPEG or PNG image"),
    ],
)
def test_a_file_that_is_no_image_is_an_invalid_argument(run, pb, file, parameters, text):
    error = run(file, **parameters)
    assert text in error.message()
    assert error.code() == pb.TritonError.INVALID_ARG


def test_a_poisoned_request_leaves_its_batch_mates_alone(run, model):
    good = file_of(grey(4, 4))
    answers = model().execute([run.request(good), run.request(good, b"poison"), run.request(good)])
    assert [answer.has_error() for answer in answers] == [False, True, False]
    assert answers[1].error().message().startswith("row 1: ")


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        ({"height": "no"}, "'height' must be a whole number of at least 1, received 'no'"),
        ({"width": "0"}, "'width' must be a whole number"),
        ({"channels": "2"}, "channels must be 1 or 3, received 2"),
        ({"resize": "fold"}, "must be one of pad, crop, stretch, received 'fold'"),
        ({"invert": "yes"}, "must be one of false, true"),
        ({"mean": "1,2"}, "'mean' must be one number, or 1 with commas between"),
        ({"mean": "nan"}, "'mean' must be one number"),
        ({"std": "wide"}, "'std' must be one number"),
        ({"std": "0"}, "std must not be 0"),
        ({"filter": "box"}, "must be one of bilinear, bicubic, received 'box'"),
        ({"crop_share": "0"}, "'crop_share' must be a number above 0, at most 1, received '0'"),
        ({"crop_share": "all"}, "'crop_share' must be a number above 0"),
        ({"colour": "red"}, r"unknown parameters \['colour'\]"),
        ({"height": "5"}, "does not hold 5 x 4 pixels of 1 channels"),
    ],
)
def test_parameters_that_make_no_sense_keep_the_model_from_loading(pb, model, parameters, text):
    with pytest.raises(pb.TritonModelException, match=text):
        model(**parameters)
