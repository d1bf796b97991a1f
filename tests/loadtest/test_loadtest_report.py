"""The page: what it holds, that it stands alone, and what a summary must hold to become one."""

import argparse
import copy
import json
import math
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import asdict
from html.parser import HTMLParser

import pytest

from loadtest import plots, report_command
from loadtest.report import write_demo_report
from loadtest.summary import read_summary
from ridgeline.errors import InvalidInput, NotFound

RIGHT = {"accuracy": 0.9901, "correct": 9901, "samples": 10000}


def run(protocol="grpc", batch_size=1, **changes):
    floor_ms = 0.0044 * batch_size
    p50, p99 = 0.5 + 0.03 * batch_size, 1.1 + 0.05 * batch_size
    curve = [[100 * (1 - 10 ** (-i / 30)), p50 * (1 + i / 60)] for i in range(100)]
    return {
        "settings": {
            "load": {"kind": "closed", "concurrency": 1},
            "warmup_s": 1.0,
            "duration_s": 3.0,
            "seed": 0,
        },
        "server": {"name": "ridgeline", "version": "0.1.0"},
        "protocol": protocol,
        "batch_size": batch_size,
        "latency_ms": {
            "p50": {"value": p50, "low": p50 - 0.01, "high": p50 + 0.01},
            "p99": {"value": p99, "low": p99 - 0.1, "high": None},
        },
        "latency_curve_ms": curve,
        "throughput": {"requests_per_s": 1000 / p50, "samples_per_s": batch_size * 1000 / p50},
        "floor_ms": floor_ms,
        "floor_note": None,
        "ratio_to_floor": {"p50": p50 / floor_ms, "p99": p99 / floor_ms},
        "share_of_peak": 0.0047,
        "verdict": "VALID",
        "reasons": [],
        "client": {"cpu_s_per_request": 0.0002},
        "environment": {
            "measured_at": "2026-01-02T03:04:05+00:00",
            "python": "3.11",
            "ridgeline": "0.1.0",
            "packages": {"numpy": "2.4"},
            "commit": None,
        },
        **changes,
    }


@pytest.fixture
def summary(machine):
    curve = [
        {
            "epoch": number,
            "loss": math.exp(-number),
            "accuracy": 1 - 0.1 / number,
            "val_loss": math.exp(-number / 2),
            "val_accuracy": 1 - 0.08 / number,
        }
        for number in range(1, 6)
    ]
    return {
        "model": "lenet5",
        "seconds": 212.4,
        "training": {
            **{f"test_{name}": value for name, value in RIGHT.items()},
            "train_seconds": 131.2,
            "curve": curve,
        },
        "export": {
            **RIGHT,
            "cost": {
                "flops_per_sample": 833_040,
                "multiply_adds_per_sample": 416_520,
                "parameters": 61_706,
                "weight_bytes": 246_824,
            },
        },
        "served": {"grpc": dict(RIGHT), "http": dict(RIGHT)},
        "loadtest": {"grpc": run("grpc"), "http": run("http")},
        "sweep": [run(batch_size=size) for size in (4, 1, 16)],
        "hardware": json.loads(json.dumps(asdict(machine))),
    }


@pytest.fixture
def page(summary, tmp_path):
    """Write the page and return its text."""

    def write(changed=None):
        path = tmp_path / "new" / "index.html"
        write_demo_report(summary if changed is None else changed, path=path)
        return path.read_text(encoding="utf-8")

    return write


def text_of(page):
    """What a reader sees, with single spaces."""
    body = re.sub(r"<(style|svg).*?</\1>", " ", page, flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]+>", " ", body).split())


def test_the_page_shows_accuracy_cost_latency_and_floor(page):
    text = text_of(page())
    for shown in (
        "trained (TensorFlow) 99.01 % 9,901 10,000",
        "exported (ONNX Runtime) 99.01 % 9,901 10,000",
        "served over gRPC 99.01 % 9,901 10,000",
        "served over HTTP 99.01 % 9,901 10,000",
        "833,040 floating-point operations (416,520 multiply-adds) with 61,706 parameters",
        "gRPC 0.530 0.520 – 0.540 1.15 1.05 – ? 1,887 0.00440 120 261 0.47 % VALID",  # noqa: RUF001
        "5 epochs in 131 s",
        "Export and serving changed no answer that counts",
    ):
        assert shown in text, shown


def test_the_page_stands_alone_and_is_well_formed(page):
    text = page()
    assert re.findall(r'(?:src|href)="(?!#)[^"]*"', text) == []  # links within the drawings only
    assert "http" not in re.sub(r'xmlns(:\w+)?="[^"]*"', "", text.replace("HTTP", ""))
    drawings = re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL)
    assert len(drawings) == 3
    for drawing in drawings:
        ElementTree.fromstring(drawing)
    open_tags = []

    class Balance(HTMLParser):
        def handle_starttag(self, tag, _attributes):
            if tag not in ("meta", "br"):
                open_tags.append(tag)

        def handle_endtag(self, tag):
            assert open_tags.pop() == tag

    Balance().feed(re.sub(r"<svg.*?</svg>", "", text, flags=re.DOTALL))
    assert open_tags == []


def test_the_same_summary_gives_the_same_page(page):
    assert page() == page()


def test_the_sweep_is_in_order_of_batch_size(page):
    text = text_of(page())
    assert text.index("1 0.530 1.15 (") < text.index("4 0.620") < text.index("16 0.980")


def test_markup_in_a_name_is_shown_and_not_obeyed(summary, page):
    summary["model"] = "<script>alert(1)</script>"
    summary["loadtest"]["grpc"]["verdict"] = "INVALID"
    summary["loadtest"]["grpc"]["reasons"] = ["<b>late</b>"]
    text = page()
    assert "<script>" not in text
    assert "&lt;script&gt;" in text
    assert "gRPC: &lt;b&gt;late&lt;/b&gt;" in text


def test_stages_that_differ_are_not_called_equal(summary, page):
    summary["served"]["http"]["correct"] = 9900
    text = text_of(page())
    assert "not right on equally many" in text
    assert "changed no answer" not in text


def test_an_unknown_floor_is_said_to_be_unknown(summary, page):
    unknown = {
        "floor_ms": None,
        "ratio_to_floor": None,
        "share_of_peak": None,
        "floor_note": "the server does not tell what the model costs",
    }
    summary["loadtest"] = {name: run(name, **unknown) for name in ("grpc", "http")}
    summary["sweep"] = [run(batch_size=size, **unknown) for size in (1, 2)]
    text = text_of(page())
    assert "unknown" in text
    assert text.count("Floor: the server does not tell what the model costs") == 1


def test_one_epoch_one_batch_size_and_one_latency_can_be_drawn(summary, page):
    summary["training"]["curve"] = summary["training"]["curve"][:1]
    summary["sweep"] = [run(latency_curve_ms=[[0.0, 1.5]])]
    summary["loadtest"]["grpc"] = run(latency_curve_ms=[[0.0, 1.5]])
    assert page().count("<svg") == 3


def test_the_accuracy_of_the_export_may_stand_under_exported(summary, page):
    summary["export"]["accuracy"] = {"exported": dict(RIGHT), "trained": {}}
    assert "exported (ONNX Runtime) 99.01 %" in text_of(page())


def test_an_open_loop_is_described(summary):
    load = {"kind": "open", "arrivals": "Poisson", "rate_per_s": 250.0}
    summary["loadtest"]["http"]["settings"]["load"] = load
    assert read_summary(summary).runs[1].load == "open loop, 250 requests/s (Poisson)"


PARTS = [
    "model",
    "seconds",
    "training",
    "training.curve",
    "training.test_correct",
    "training.train_seconds",
    "export.cost.flops_per_sample",
    "served.http",
    "served.grpc.accuracy",
    "loadtest.http",
    "loadtest.grpc.latency_ms.p99",
    "loadtest.grpc.latency_curve_ms",
    "sweep",
    "hardware",
]


@pytest.mark.parametrize("part", PARTS)
def test_a_missing_part_is_named(summary, page, part):
    *path, last = part.split(".")
    table = summary
    for key in path:
        table = table[key]
    del table[last]
    with pytest.raises(InvalidInput, match=re.escape(f"the summary lacks summary.{part}")):
        page()


@pytest.mark.parametrize(
    ("part", "value", "text"),
    [
        ("model", 3, "summary.model must be a text, received 3"),
        ("seconds", "long", "summary.seconds must be a number, received 'long'"),
        ("seconds", True, "must be a number, received True"),
        ("sweep", [], "summary.sweep must be a list with something in it"),
        ("sweep", {}, "summary.sweep must be a list"),
        ("hardware", {"gemm": []}, "summary.hardware: this does not describe a machine"),
        ("training", [], "the summary lacks summary.training.test_accuracy"),
    ],
)
def test_a_part_of_the_wrong_kind_is_named(summary, part, value, text):
    summary[part] = value
    with pytest.raises(InvalidInput, match=re.escape(text)):
        read_summary(summary)


def test_wrong_figures_deep_inside_are_named(summary):
    broken = copy.deepcopy(summary)
    broken["training"]["curve"][2]["loss"] = None
    with pytest.raises(InvalidInput, match=r"summary\.training\.curve\[2\]\.loss must be a number"):
        read_summary(broken)
    summary["loadtest"]["grpc"]["latency_curve_ms"][1] = [1.0, 2.0, 3.0]
    with pytest.raises(InvalidInput, match=r"latency_curve_ms\[1\] must be a pair"):
        read_summary(summary)
    summary["loadtest"]["grpc"] = run()
    summary["export"]["cost"]["parameters"] = 1.5
    with pytest.raises(InvalidInput, match=r"parameters must be a whole number, received 1\.5"):
        read_summary(summary)


def test_the_percentile_axis_is_spaced_in_nines():
    assert [round(plots._nines(percent), 9) for percent in (0, 90, 99, 99.9)] == [0, 1, 2, 3]


def arguments(*words):
    parser = argparse.ArgumentParser()
    report_command.add_arguments(parser)
    return parser.parse_args([str(word) for word in words])


def test_the_command_writes_the_page(summary, tmp_path, capsys):
    source, page = tmp_path / "summary.json", tmp_path / "index.html"
    source.write_text(json.dumps(summary))
    result = report_command.run(arguments(source, "--output", page))
    assert result == {"report": str(page)}
    assert page.read_text().startswith("<!DOCTYPE html>")
    report_command.show(result)
    assert capsys.readouterr().out == f"report: {page}\n"


def test_the_command_names_a_summary_that_is_missing_or_no_json(tmp_path):
    with pytest.raises(NotFound, match=r"there is no file .*none\.json"):
        report_command.run(arguments(tmp_path / "none.json"))
    (tmp_path / "half.json").write_text("{")
    with pytest.raises(InvalidInput, match=r"half\.json is not JSON"):
        report_command.run(arguments(tmp_path / "half.json"))
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(InvalidInput, match="the summary lacks summary"):
        report_command.run(arguments(tmp_path / "list.json"))
