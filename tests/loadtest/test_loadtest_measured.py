"""The page of measurements: from real runs of the fake server to a browser that opens it."""

import itertools
import json
import shutil
import subprocess
from dataclasses import asdict, replace

import pytest

from loadtest import measured, measured_plots
from ridgeline.__main__ import main
from ridgeline.gpu import Gpu
from ridgeline.roof import Roof

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture(scope="module")
def table():
    """Measurements of two servers over three networks, in every scenario, by formula."""
    runs = [
        _run(label, model, flops=flops, size=size, slots=slots)
        for label in ("ridgeline", "triton <1>")
        for model, flops in (("tiny", 2e4), ("middle", 8e7), ("large", 4e9))
        for size, slots in ((1, 1), (4, 1), (1, 32))
    ]
    points = [
        {
            "share": s,
            "answered_per_s": 100 * s,
            "rate_per_s": 100 * s,
            "p50_ms": 1 / (1.1 - s),
            "p99_ms": 3 / (1.1 - s),
            "p99_low_ms": None,
            "p99_high_ms": None,
            "failed": 0,
        }
        for s in (0.1, 0.5, 1.0)
    ]
    left_out = [
        {
            "model": name,
            "batch_size": 1,
            "time_ns": time,
            "predicted_ns": 1.1 * time,
            "low_ns": 0.8 * time,
            "high_ns": 1.5 * time,
        }
        for name, time in (("tiny", 1e5), ("large", 1e8))
    ]
    summary = {
        "median_error": 0.1,
        "largest_error": 0.1,
        "interval_promises": 0.9,
        "interval_held": 1.0,
    }
    return {
        "format": measured.FORMAT,
        "command": "as a test",
        "environment": ENVIRONMENT,
        "runs": runs,
        "curves": [{"label": run, "model": "tiny", "points": points} for run in ("ridgeline", "b")],
        "prediction": {"summary": summary, "left_out": left_out},
    }


ENVIRONMENT = {
    "cpu": "a processor",
    "cores": 2,
    "load_average": 0.5,
    "measured_at": "2026-01-02T03:04:05",
    "commit": None,
    "python": "3.11",
    "ridgeline": "0.1",
    "platform": "here",
}


def _run(label, model, *, flops, size, slots):
    floor_ms = size * flops / 1e8
    p50 = 0.4 + 3 * floor_ms + slots / 10
    interval = {"low": 2 * p50, "high": 4 * p50}
    scenario = "offline" if slots > 1 else "single-stream" if size == 1 else "multi-stream"
    parts = {"client": 0.1, "protocol": 0.2, "queue": 0.1, "packing": 0.0, "batch_wait": None}
    cost = {
        "flops_per_sample": flops,
        "weight_bytes": flops / 50,
        "input_bytes_per_sample": 100,
        "output_bytes_per_sample": 10,
    }
    return {
        "label": label,
        "server": {"name": label, "version": "1"},
        "model": {"name": model, "cost": cost},
        "scenario": scenario,
        "settings": {"load": {"kind": "closed", "concurrency": slots}},
        "batch_size": size,
        "latency_ms": {"p50": {"value": p50, **interval}, "p99": {"value": 3 * p50, **interval}},
        "latency_curve_ms": [[0.0, p50 / 2], [50.0, p50], [99.0, 3 * p50]],
        "breakdown_ms": {**parts, "compute": p50 - 0.4, "total": p50},
        "floor_ms": floor_ms,
        "throughput": {"samples_per_s": 1000 * slots * size / p50},
        "client": {"cpu_s_per_request": 2e-5},
        "verdict": "INVALID" if slots > 1 else "VALID",
        "reasons": ["noise: it jumped"] if slots > 1 else [],
        "environment": ENVIRONMENT,
    }


@pytest.fixture
def file(tmp_path, table, machine):
    path = tmp_path / "measurements.json"
    path.write_text(json.dumps({**table, "hardware": asdict(machine)}))
    return path


@pytest.fixture
def page(tmp_path, file):
    path = tmp_path / "page.html"
    assert main(["report", str(file), "--output", str(path)]) == 0
    return path


def test_the_page_shows_every_server_network_and_reason(page):
    text = page.read_text()
    assert text.count("<svg") == 7
    for part in ("Latency against FLOPs", "triton &lt;1&gt;", "large", "noise: it jumped"):
        assert part in text
    for outside in ("http-equiv", 'src="', "@import", "<link"):
        assert outside not in text


def test_no_run_of_the_page_lies_below_its_floor(table):
    merged = measured.merge({"one": table})
    assert merged.below_floor == ()
    low = {**table["runs"][0], "floor_ms": 1e6}
    assert len(measured.merge({"one": {**table, "runs": [low]}}).below_floor) == 1


def test_several_files_are_compared_and_told_apart(tmp_path, file, capsys):
    other = tmp_path / "yesterday.json"
    other.write_text(file.read_text())
    data, page = tmp_path / "data.json", tmp_path / "both.html"
    words = ["report", str(file), str(other), "--output", str(page), "--data", str(data)]
    assert main(words) == 0
    assert "ridgeline (yesterday)" in page.read_text()
    merged = json.loads(data.read_text())
    assert len(merged["runs"]) == 36
    assert main(["report", str(data), "--output", str(page)]) == 0
    assert main(["report", str(file), str(file)]) == 1
    assert "must have different names" in capsys.readouterr().err


def test_what_loadtest_writes_can_be_reported(grpc_server, tmp_path):
    output, page = tmp_path / "runs.json", tmp_path / "page.html"
    words = ["--duration", "0.2", "--warmup", "0", "--output", str(output)]
    assert main(["loadtest", *grpc_server.target(), *words]) == 0
    assert main(["report", str(output), "--output", str(page)]) == 0
    assert "identity" in page.read_text()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"runs": []}', "there is no run to report"),
        ('{"runs": [{"server": 3}]}', "does not hold measurements"),
    ],
)
def test_what_holds_no_measurements_is_refused(tmp_path, capsys, text, told):
    path = tmp_path / "wrong.json"
    path.write_text(text)
    assert main(["report", str(path), "--output", str(tmp_path / "page.html")]) == 1
    assert told in capsys.readouterr().err


def test_the_knee_is_the_last_load_that_is_still_easy():
    points = [{"p99_ms": value} for value in (2, 3, 6, 7, 40)]
    assert measured_plots.knee_of(points) == 2
    assert measured_plots.knee_of([]) is None


SORTED = """
<script>
document.querySelectorAll("table.sortable")[0].querySelectorAll("th[data-sort]")[4].click();
document.title = [...document.querySelectorAll("table.sortable")[0].tBodies[0].rows]
  .map((row) => row.cells[0].textContent).join(" ");
</script></body>"""


@pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium to open the page with")
def test_a_browser_shows_the_page_and_sorts_its_tables(page, tmp_path):
    page.write_text(page.read_text().replace("</body>", SORTED))
    flags = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/profile"]
    done = subprocess.run(
        [CHROMIUM, *flags, "--dump-dom", page.as_uri()],
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    title = done.stdout.partition("<title>")[2].partition("</title>")[0]
    assert title == "tiny tiny middle middle large large"  # by p50, rising
    assert done.stdout.count("<svg") == 7


def test_runs_are_drawn_under_the_roof_of_the_device_that_they_ran_on(table, machine, tmp_path):
    roof = Roof(
        peak_flops_per_s=60e12,
        memory_bandwidth_bytes_per_s=3e12,
        bandwidth_by_working_set=((2**20, 3e12),),
        peaks=(("fp16", 120e12),),
    )
    cards = (Gpu("a card", "GPU-a", "1", 2**34, roof=roof), Gpu("old", "b", "1", 0, problem="lame"))
    hardware = asdict(replace(machine, gpus=cards))

    def on(*devices):
        runs = zip(table["runs"], itertools.cycle(devices), strict=False)
        moved = [{**run, "model": {**run["model"], "device": device}} for run, device in runs]
        return {**table, "hardware": hardware, "runs": moved}

    assert measured.merge({"a": on("gpu:0")}).roof == roof
    assert measured.merge({"a": on("gpu:1")}).roof is None  # was not measured
    assert measured.merge({"a": on("gpu:0", "cpu")}).roof is None
    assert measured.merge({"a": {**table, "hardware": hardware}}).roof == replace(
        machine, gpus=cards
    )
    path, page = tmp_path / "gpu.json", tmp_path / "gpu.html"
    path.write_text(json.dumps(on("gpu:0")))
    assert main(["report", str(path), "--output", str(page)]) == 0
    text = page.read_text()
    assert "a card: fp32 60" in text
    assert "fp16 120" in text
    assert "old, not measured: lame" in text
