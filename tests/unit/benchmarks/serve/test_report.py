"""The HTML report says all that a run found, needs nothing beside itself, and shows what is void as void."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree as ET

import msgspec
import pytest

from benchmarks.gpu import cards
from benchmarks.serve.report import page, plots, writing
from benchmarks.serve.report.plots import Line, Mark
from fallback.errors import InvalidError
from tests.unit.benchmarks.serve import made_up

ROOT = Path(__file__).parents[4]
SVG = "{http://www.w3.org/2000/svg}"


class Reader(HTMLParser):
    """Keeps what a browser would: headings, cells, ids, and what is fetched from elsewhere."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.fetched: list[str] = []
        self.texts: list[str] = []
        self.tags: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            elif name in {"src", "href", "xlink:href"} and not (value or "").startswith("#"):
                self.fetched.append(value or "")

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def pages() -> dict[str, str]:
    """Return the page of each kind of run, made from what its JSON says."""
    runs = {"target": made_up.result(gpus=True), "promises": made_up.promised()}
    return {
        name: page.render(writing.page_of(msgspec.to_builtins(run), facts=[("command", "demur bench serve")]))
        for name, run in runs.items()
    }


def test_pages_need_nothing_beside_themselves() -> None:
    """No script, nothing fetched, no id twice, and a title and a sentence for each picture."""
    for html in pages().values():
        read = Reader(html)
        assert (read.fetched, read.tags.count("script")) == ([], 0)
        assert len(read.ids) == len(set(read.ids))
        assert "url(http" not in html
        assert "default-src 'none'" in html
        assert read.tags.count("svg") == read.tags.count("desc") >= 5
        assert "demur bench serve" in read.texts


def test_a_target_s_page_has_its_plots_and_numbers() -> None:
    """Percentiles, throughput against latency, rates with the bound, the split, GPUs, and processor time beside all."""
    read = Reader(pages()["target"])
    said = " ".join(read.texts)
    for heading in ("Latency by percentile", "Throughput against latency", "Latency against rate", "GPU"):
        assert heading in read.texts
    assert "Where the time goes" in read.texts
    assert "1 caller" in read.texts
    assert "bound 10 ms" in read.texts
    assert "verified: 7,600 a second" in read.texts
    assert read.texts.count("CPU µs") == 6, "in every table of figures"
    assert "void: the generator sent 7.1 ms late (p99), more than 5" in said
    assert "client and server share this machine's cores" in said


def test_a_legend_is_as_wide_as_its_plot() -> None:
    """Long labels stand in more rows: those of five loads did not fit into one."""
    points = [(50.0, 1.0), (99.0, 3.0)]
    lines = [Line(f"a long label of a load, the {place} of them", points) for place in range(5)]
    drawn = ET.fromstring(plots.percentiles("a", "A", lines).svg)
    width = float(drawn.attrib["viewBox"].split()[2])
    lefts = {
        float(text.attrib.get("x") or re.findall(r"[\d.]+", text.attrib["transform"])[0])
        for text in drawn.iter(f"{SVG}text")
        if (text.text or "").startswith("a long label")
    }
    assert 1 < len(lefts) < 5
    assert max(lefts) < 0.75 * width


def test_the_command_is_named_as_it_is_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where it was run as a module."""
    monkeypatch.setattr(sys, "argv", ["/a/gateway/cli.py", "bench", "serve", "--model", "a b"])
    assert dict(writing.beside())["command"] == "demur bench serve --model 'a b'"


def test_what_a_server_does_not_say_is_not_named() -> None:
    """A model without a version or a platform, as MLServer and the KServe SDK declare it."""
    whole = made_up.result()
    model = msgspec.structs.replace(whole.model, version="", platform="")
    made = writing.page_of(msgspec.to_builtins(msgspec.structs.replace(whole, model=model)), facts=[])
    assert dict(made.facts)["model"] == model.name


def test_what_a_run_did_not_measure_is_left_out() -> None:
    """One scenario is a page too, and so is a server of whose time nobody tells."""
    whole = made_up.result()
    few = msgspec.structs.replace(whole.scenarios, callers=None, rates=None, server=None, offline=None)
    made = writing.page_of(msgspec.to_builtins(msgspec.structs.replace(whole, scenarios=few)), facts=[])
    assert [section.title for section in made.sections] == ["Latency by percentile"]
    nothing = msgspec.structs.replace(few, single_stream=None)
    made = writing.page_of(msgspec.to_builtins(msgspec.structs.replace(whole, scenarios=nothing)), facts=[])
    assert made.sections[0].plots == []


def test_promises_are_shown_as_parts_of_their_goal() -> None:
    """What should be small is turned over, so that right is better; a round that is void is struck out."""
    made = writing.page_of(msgspec.to_builtins(made_up.promised()), facts=[])
    ratio, small = made.sections[0].plots[0].text.split("; ")[:2]
    assert ratio == "tiny: cq over its raw echo: 0.556 (goal ≥ 0.8)"
    assert small.endswith("0.234 (goal ≤ 0.3)")
    html = page.render(made)
    assert "3 of 3 checks are not ok" in html
    assert html.count("<tr class=void>") == 1
    assert html.count(">CPU µs<") == 2
    assert [plot.name for plot in made.sections[1].plots] == ["throughput-tiny", "throughput-mid"]


def test_what_others_say_is_only_text() -> None:
    """A server names its model; the page shows the name and does nothing with it."""
    hostile = "<script>alert(1)</script>"
    html = page.render(
        writing.page_of(msgspec.to_builtins(made_up.result(model=hostile)), facts=[("command", hostile)])
    )
    assert Reader(html).tags.count("script") == 0
    assert hostile in " ".join(Reader(html).texts)


def test_a_plot_alone_follows_its_reader_s_light() -> None:
    """As a file it brings its colours, for light and dark, and stays well-formed; drawn again it is the same."""
    lines = [Line("one & two", [(50.0, 1.0), (99.0, 3.0), (99.9, 40.0), (100.0, 60.0)])]
    drawn = [plots.percentiles("a", "A < title", lines, bound=Mark("bound 5 ms", 5.0)) for _ in range(2)]
    assert drawn[0] == drawn[1]
    root = ET.fromstring(drawn[0].alone())
    assert root.find(f"{SVG}title") is not None
    assert "prefers-color-scheme:dark" in (root.findtext(f"{SVG}style") or "")
    words = [text.text for text in root.iter(f"{SVG}text")]
    assert {"bound 5 ms", "99.9 %", "one & two"} <= set(words)
    assert not re.search(r"#0[1-9a]0000", drawn[0].alone()), "every colour has its name"


def test_plots_are_made_again_from_a_file(tmp_path: Path) -> None:
    """By the last line of what a command printed, whatever stood above it."""
    kept = tmp_path / "tiny.json"
    kept.write_bytes(b"progress\n" + msgspec.json.encode(made_up.result()) + b"\n")
    written = writing.again(kept, html=tmp_path / "a" / "tiny.html", plots=tmp_path / "plots")
    assert [path.name for path in written[:3]] == ["tiny.html", "tiny-percentiles.svg", "tiny-callers.svg"]
    for path in written[1:]:
        ET.fromstring(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("content", ["", "[]", "nothing", '{"scenarios": {}}', '{"a": 1}'])
def test_a_file_that_is_no_run_says_what_is_expected(tmp_path: Path, content: str) -> None:
    """Rather than a page of nothing."""
    path = tmp_path / "run.json"
    path.write_text(content)
    with pytest.raises(InvalidError, match="bench serve --json"):
        writing.again(path, html=tmp_path / "page.html", plots=None)
    with pytest.raises(InvalidError, match="--html FILE or --plots FOLDER"):
        writing.again(path, html=None, plots=None)


def test_a_page_that_cannot_be_written_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    """Rather than after minutes; without one nothing is written."""
    writing.expect(None)
    with pytest.raises(InvalidError, match="expected a file that can be written"):
        writing.expect(tmp_path)
    to = tmp_path / "run.html"
    writing.expect(to)
    assert not to.exists()
    to.write_text("before")
    writing.expect(to)
    assert to.read_text() == "before"
    writing.report(to, msgspec.to_builtins(made_up.promised()))
    assert "versions" in Reader(to.read_text(encoding="utf-8")).texts


def test_a_run_on_a_gpu_is_a_page_too() -> None:
    """Each provider by batch, answers, swaps and each model served; a part that broke is told, and so is no GPU."""
    run = {
        "gpu": {"count": 1, "cards": [msgspec.to_builtins(cards.read("0, NVIDIA L4, 550, 8.9, 23034, 501, 72.00"))]},
        "device": "cuda",
        "alone": [
            {
                "model": "tiny", "provider": "CUDAExecutionProvider", "datatype": kind, "load_ms": 9.0,
                "batches": [
                    {"rows": rows, "first_ms": 9, "p50_ms": 1, "p99_ms": 2, "rows_per_second": 1000 * rows}
                    for rows in (1, 8)
                ],
            }
            for kind in ("FP32", "FP16")
        ],
        "served": {model: msgspec.to_builtins(made_up.result(gpus=True)) for model in ("tiny", "mid")},
        "errors": {"conv: hot swaps": "RuntimeError: CUDA failure 700"},
        "seconds": 300.0, "machine": "16 cores", "checks": [], "ok": True,
    }  # fmt: skip
    read = Reader(page.render(writing.page_of(run, facts=[])))
    assert len(read.ids) == len(set(read.ids)), "of two models, too"
    said = " ".join(read.texts)
    assert "Demur on a GPU: NVIDIA L4, 23,034 MiB, driver 550" in read.texts
    for text in ("CUDA FP16", "conv: hot swaps: RuntimeError: CUDA failure 700", "mid behind the gateway: Offline"):
        assert text in said
    nothing: dict[str, object] = {
        "gpu": None,
        "device": "cuda",
        "seconds": 0.0,
        "machine": "",
        "checks": [],
        "ok": False,
    }
    assert "nothing of a GPU" in page.render(writing.page_of(nothing, facts=[]))


def test_the_readme_s_plots_are_drawn_of_kept_runs(tmp_path: Path) -> None:
    """What was measured is not measured again; each plot that the README shows is among them."""
    (tmp_path / "serve.json").write_bytes(msgspec.json.encode(made_up.promised()))
    (tmp_path / "tiny.json").write_bytes(msgspec.json.encode(made_up.result()))
    env = {**os.environ, "PLOTS": str(tmp_path / "plots")}
    subprocess.run([str(ROOT / "benchmarks" / "plots.sh"), str(tmp_path)], check=True, timeout=60, env=env)
    shown = set(re.findall(r"\(benchmarks/plots/([\w-]+\.svg)\)", (ROOT / "README.md").read_text(encoding="utf-8")))
    assert shown == {path.name for path in (tmp_path / "plots").iterdir()}
    assert shown == {path.name for path in (ROOT / "benchmarks" / "plots").iterdir()}
    assert (tmp_path / "tiny.html").is_file()
