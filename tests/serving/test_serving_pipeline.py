"""What `ridgeline pipeline` writes beside a classifier, and what it refuses before it writes."""

import json

import pytest

from ridgeline.__main__ import main
from ridgeline.errors import InvalidInput
from ridgeline.model import ModelSpec, TensorSpec, config_of, format_config
from ridgeline.repository import look_up, read_labels
from serving.pipeline import ImageShape, Preprocessing, image_shape


@pytest.fixture
def add(repository):
    """Adds a model of some contract, whose graph nobody looks at."""

    def add(name="c", *, shape=(4, 4, 1), batch=8, backend="onnxruntime", more=(), outputs=("p",)):
        image = TensorSpec("x", "FP32", shape)
        made = tuple(TensorSpec(output, "FP32", (2,)) for output in outputs)
        spec = ModelSpec(name, batch, (image, *more), made)
        repository.add(name, b"", config=format_config(config_of(spec, backend=backend)))

    return add


@pytest.fixture
def pipeline(repository, capsys):
    """Runs the command; the exit code and what it said."""

    def pipeline(*words):
        code = main(["pipeline", f"--repository={repository.root}", *words])
        return code, "".join(capsys.readouterr())

    return pipeline


def names(repository):
    return sorted(path.name for path in repository.root.iterdir())


def test_the_models_carry_the_contract_of_the_classifier(add, pipeline, repository, tmp_path):
    add(shape=(3, 4, 6))
    (tmp_path / "labels").write_text("cat\ndog\n")
    words = ["pets", "--model=c", f"--labels={tmp_path / 'labels'}", "--resize=crop", "--invert"]

    code, said = pipeline(*words, "--mean", "1", "2", "3.5", "--std", "2", "--max-pixels=99")

    assert (code, "p has 2 labels" in said) == (0, True)
    model = look_up(repository.root, name="pets")
    ensemble = model.read_config()
    assert (ensemble.platform, ensemble.backend, ensemble.max_batch_size) == ("ensemble", "", 8)
    assert read_labels(model.directory, ensemble) == {"p": ("cat", "dog")}
    config = look_up(repository.root, name="pets_preprocess").read_config()
    assert list(config.output[0].dims) == [3, 4, 6]
    assert {key: value.string_value for key, value in config.parameters.items()} == {
        "height": "4",
        "width": "6",
        "channels": "3",
        "layout": "NCHW",
        "resize": "crop",
        "crop_share": "1.0",
        "filter": "bilinear",
        "invert": "true",
        "mean": "1.0,2.0,3.5",
        "std": "2.0",
        "max_file_bytes": "16777216",
        "max_pixels": "99",
    }


TRAINED_WITH = {
    "resize": "crop",
    "crop_share": 0.875,
    "filter": "bicubic",
    "mean": 127.0,
    "std": 128.0,
}


def trained_with(repository, told):
    """Writes what the card of the model "c" says of its preprocessing."""
    card = {"cost": None, "training": {"preprocessing": told}}
    (repository.root / "c" / "1" / "model_card.json").write_text(json.dumps(card))


@pytest.mark.parametrize(
    ("words", "instead"),
    [
        ([], {}),
        (
            ["--resize=pad", "--mean", "0", "--std", "255", "--filter=bilinear"],
            {"resize": "pad", "mean": 0.0, "std": 255.0, "filter": "bilinear"},
        ),
        (["--crop-share=1"], {"crop_share": 1.0}),
    ],
)
def test_images_are_prepared_as_in_training_unless_flags_say_otherwise(
    add, pipeline, repository, words, instead
):
    add()
    trained_with(repository, TRAINED_WITH)
    code, said = pipeline("d", "--model=c", *words)
    assert code == 0, said
    parameters = look_up(repository.root, name="d_preprocess").read_config().parameters
    found = {key: parameters[key].string_value for key in TRAINED_WITH}
    assert found == {key: str(value) for key, value in (TRAINED_WITH | instead).items()}


@pytest.mark.parametrize("told", [{"mean": 1}, "nonsense", {**TRAINED_WITH, "mean": "x"}])
def test_a_card_that_tells_nonsense_of_the_training_is_refused(add, pipeline, repository, told):
    add()
    trained_with(repository, told)
    code, said = pipeline("d", "--model=c")
    assert (code, "the model card of 'c' tells no preprocessing" in said) == (1, True), said


def test_a_pipeline_written_again_is_a_new_version(add, pipeline, repository):
    add()
    assert [pipeline("d", "--model=c")[0] for _ in range(2)] == [0, 0]
    for name in ("d", "d_preprocess"):
        assert look_up(repository.root, name=name).versions == (1, 2)


def test_a_model_without_a_configuration_is_asked_through_its_graph(models, pipeline, repository):
    repository.add("c", models.identity(shape=("batch", 4, 4, 3)))
    code, said = pipeline("d", "--model=c")
    assert code == 0, said
    [image] = look_up(repository.root, name="d_preprocess").read_config().output
    assert list(image.dims) == [4, 4, 3]


def test_a_classifier_without_batches_may_have_an_axis_of_one_row(add, pipeline, repository):
    add(shape=(1, 3, 4, 4), batch=0)
    assert pipeline("d", "--model=c")[0] == 0
    config = look_up(repository.root, name="d_preprocess").read_config()
    assert (config.max_batch_size, list(config.output[0].dims)) == (0, [1, 3, 4, 4])


@pytest.mark.parametrize(
    ("shape", "image"),
    [
        ((5, 6, 3), ImageShape(5, 6, 3, "NHWC")),
        ((1, 5, 6), ImageShape(5, 6, 1, "NCHW")),
        ((5, 6), ImageShape(5, 6, 1, "NHWC")),
    ],
)
def test_the_channels_are_found_in_the_shape(shape, image):
    assert image_shape(TensorSpec("x", "FP32", shape), batches=True) == image


@pytest.mark.parametrize(
    "tensor",
    [
        TensorSpec("x", "UINT8", (4, 4, 3)),
        TensorSpec("x", "FP32", (-1, 4, 3)),
        TensorSpec("x", "FP32", (784,)),
        TensorSpec("x", "FP32", (4, 4, 4)),
        TensorSpec("x", "FP32", (1, 4, 4, 3)),
    ],
)
def test_a_tensor_that_is_no_image_is_refused(tensor):
    with pytest.raises(InvalidInput, match="the input 'x' must be an image"):
        image_shape(tensor, batches=True)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["d", "--model=absent"], "no folder 'absent'"),
        (["c", "--model=c"], "holds a model of another kind"),
        (["other", "--model=c"], "holds a model of another kind"),
        (["a/b", "--model=c"], "must be that of a folder"),
        (["d", "--model=c", "--mean", "1", "2"], "mean and std must be one number or 1"),
        (["d", "--model=c", "--std", "0"], "std must not be 0"),
        (["d", "--model=c", "--max-pixels=0"], "max_pixels must be at least 1"),
        (["d", "--model=c", "--labels=/absent"], "there is no file /absent"),
        (["d", "--model=two"], "must have one input, an image; it has ['x', 'y']"),
        (["d", "--model=clash"], "'image_file' is an input of ensemble"),
        (["d", "--model=bare"], "must name inputs and outputs"),
    ],
)
def test_a_refused_pipeline_leaves_the_repository_as_it_was(add, pipeline, repository, words, text):
    add()
    add("other", backend="python")
    add("two", more=(TensorSpec("y", "FP32", (1,)),))
    add("clash", outputs=("image_file",))
    repository.add("bare", b"", config='backend: "python"')
    before = names(repository)

    code, said = pipeline(*words)

    assert (code, text in said) == (1, True), said
    assert names(repository) == before


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"a\nb\nc\n", "3 labels must fit one output of 'c'; its outputs are {'p': [2]}"),
        (b"", "it is empty"),
        (b"\xff\xfe", "is not UTF-8 text"),
    ],
)
def test_labels_that_do_not_fit_are_refused(add, pipeline, repository, tmp_path, content, text):
    add()
    (tmp_path / "labels").write_bytes(content)
    code, said = pipeline("d", "--model=c", f"--labels={tmp_path / 'labels'}")
    assert (code, text in said, names(repository)) == (1, True, ["c"]), said


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"resize": "fold"}, "pad, crop or stretch, received 'fold'"),
        ({"filter": "magic"}, "bilinear or bicubic, received 'magic'"),
        ({"crop_share": 0.0}, "above 0, at most 1, received 0.0"),
    ],
)
def test_an_unknown_way_to_resize_is_refused(wrong, text):
    with pytest.raises(InvalidInput, match=text):
        Preprocessing(**wrong)
