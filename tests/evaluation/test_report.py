"""The page on many runs: what it says, what it marks, what it leaves out, and that names are text."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.report_page import make_runs
from evaluation.paper import Paper, make_paper_table
from evaluation.report.__main__ import ReportConfig
from evaluation.report.charts import Bar, Chart, Line, Tick
from evaluation.report.page import make_page, write_report
from tests.evaluation.report_pages import NAMES, named_runs, score_run

TAGS = {
    "html", "head", "meta", "title", "link", "style", "body", "header", "h1", "h2", "h3", "h4", "p", "div",
    "nav", "ul", "ol", "li", "a", "main", "form", "label", "select", "option", "input", "button", "output",
    "noscript", "section", "strong", "table", "caption", "thead", "tbody", "tr", "th", "td", "span", "svg",
    "path", "circle", "rect", "text", "figure", "details", "summary", "dl", "dt", "dd", "pre", "br", "footer",
    "script", "clippath",
}  # fmt: skip

PARTS = (
    "and other scores", "ROC curves", "Precision-recall", "Calibration", "Learning curves, lowest seed",
    "Subgroups of patients", "gaps between subgroups", "Flow of the cohort",
)  # fmt: skip


class Page(HTMLParser):
    """The elements of a page: their names and attributes, and the text of each kind."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: dict[str, list[str]] = {}
        self.open: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))
        if tag not in ("meta", "link", "br", "input", "path", "circle", "rect"):
            self.open.append(tag)
            self.text.setdefault(tag, []).append("")

    def handle_endtag(self, tag: str) -> None:
        if tag in self.open:
            while self.open.pop() != tag:
                pass

    def handle_data(self, data: str) -> None:
        for tag in set(self.open):
            self.text[tag][-1] += data

    def rows(self) -> list[list[str]]:
        """The cells of all rows, without those of the numbers below charts."""
        return [row.split("\n") for row in self.text.get("tr", [])]

    def attributes(self, name: str) -> list[str]:
        return [str(found[name]) for _, found in self.elements if name in found]


def page_of(folder: Path, **changes: object) -> str:
    config = {"results_dir": (folder / "results",), "save_dir": (folder / "runs",)} | changes
    return make_page(ReportConfig(**config))


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folders of 54 runs: three seeds of three methods of each task."""
    folder = tmp_path_factory.mktemp("many")
    make_runs(folder, 54, resamples=50)
    return folder


@pytest.fixture(scope="module")
def html(many: Path) -> str:
    return page_of(many)


def text_of(html: str) -> str:
    return " ".join(" ".join(Page(html).text["body"]).split())


def test_every_task_has_its_methods_curves_subgroups_and_cohort(html: str) -> None:
    page, text = Page(html), text_of(html)
    assert len(page.text["section"]) == 6 + 3
    for section in page.text["section"][:6]:
        for part in PARTS:
            assert part in section, part
        assert "1,777" in section and "77 stays removed" in section and "1,300" in section
        assert "train 900 (800 with an X-ray)" in " ".join(section.split())
    assert "54 runs of 6 tasks" in text and "Left out" not in text


def test_a_passport_says_where_the_numbers_come_from(html: str) -> None:
    passports = [part for part in Page(html).text["details"] if part.startswith("phenotyping-finetune")]
    assert len(passports) == 9
    facts = " ".join(passports[0].split())
    for fact in ("seed 0", "commit 0123456789ab", "python 3.11.7", "extraction, protocol medmod", "list 1",
                 "release, by its raw tables patients.csv.gz 1,000 bytes", "encoders from runs/simclr-seed0",
                 "samples test 900 (800 with", "counted in the tables yes", "AUROC 0."):  # fmt: skip
        assert fact in facts, fact


def test_the_page_says_across_it_that_data_are_synthetic(html: str, tmp_path: Path) -> None:
    page = Page(html)
    assert page.text["section"][0].count("SYNTHETIC") > 4  # heading and each chart
    sections = [found for tag, found in page.elements if tag == "section" and found["id"] != "how"]
    assert all("stamped-synthetic" in str(found["class"]) for found in sections)
    score_run(tmp_path, "mine", 0, data="real")
    real = page_of(tmp_path)
    assert "SYNTHETIC" not in text_of(real) and "real data" in text_of(real)
    assert not [found for tag, found in Page(real).elements if "stamped-" in str(found.get("class"))]


def test_no_chart_is_without_words_and_numbers(html: str) -> None:
    page = Page(html)
    charts = [found for tag, found in page.elements if tag == "svg" and found.get("role") == "img"]
    descriptions = page.text["title"][1:]
    assert len(charts) == 29 == len(descriptions)  # no decision curve of the task with ordinal labels
    assert all(
        re.match(r"SYNTHETIC data. Line chart of .+ against .+: \d\S* at", text) for text in descriptions
    )
    assert sum("The numbers" in text for text in page.text["summary"]) == 29
    others = [found for tag, found in page.elements if tag == "svg" and found.get("role") != "img"]
    assert all(found["aria-hidden"] == "true" for found in others)


def test_nothing_is_loaded_and_only_the_own_script_may_run(html: str) -> None:
    page = Page(html)
    links = page.attributes("href") + page.attributes("src")
    assert links and all(link.startswith("#") or link == "data:," for link in links)
    ids = page.attributes("id")
    assert len(ids) == len(set(ids)) and {link[1:] for link in links if link != "data:,"} <= set(ids)
    policy = next(found["content"] for tag, found in page.elements if "http-equiv" in found)
    assert "default-src 'none'" in policy and "unsafe" not in policy
    assert not [
        name for _, found in page.elements for name in found if name.startswith("on") or name == "style"
    ]


def test_methods_are_marked_as_in_a_paper(tmp_path: Path) -> None:
    for fusion, skill in (("ehr", 0.3), ("cxr", 1.2), ("medfuse", 1.3), ("late", 2.5)):
        for seed in (0, 1):
            score_run(tmp_path, f"{fusion}{seed}", seed, skill, fusion=fusion)
    page = page_of(tmp_path)
    table = make_paper_table(
        Paper(
            "in-hospital-mortality", (tmp_path / "results",), format="markdown", save_dir=(tmp_path / "runs",)
        )
    )
    marks = {"best": "**", "†": "†"}
    for cells in (line.split("|") for line in table.splitlines() if line.startswith("| fine")):
        title = f"fine-tuning · {cells[2].strip()} · SimCLR"
        row = re.search(rf'<tr data-method="{title}".*?</tr>', page, re.DOTALL)[0]
        ours = [" ".join(Page(cell).text["td"]) for cell in re.findall(r"<td.*?</td>", row, re.DOTALL)]
        for theirs in (cell.strip() for cell in cells[4:-1]):
            own = next(cell for cell in ours if re.sub(r"[*† ]+$|^\*+", "", theirs).strip() in cell)
            for ours_mark, their_mark in marks.items():
                assert (ours_mark in own) == (their_mark in theirs), (title, theirs, own)
    assert "†" in table and "**" in table


def test_what_is_not_there_is_named_and_the_rest_is_shown(tmp_path: Path) -> None:
    for seed in (0, 1):
        score_run(tmp_path, f"mine{seed}", seed)
    score_run(tmp_path, "other", 0, fusion="cxr")
    (tmp_path / "runs" / "mine1" / "environment.yaml").write_text("started: [")
    (tmp_path / "results" / "notes.csv").write_text("a,b\n1,2\n")
    (tmp_path / "runs" / "other" / "summary_test.npz").write_bytes(b"PK")
    text = text_of(page_of(tmp_path))
    assert "not compared with the best, and not in curves: fine-tuning · EHR only · SimCLR" in text
    assert "environment.yaml: not valid YAML" in text and "summary_test.npz is no summary" in text
    assert "notes.csv is no table of results" in text and "no folder holds it; give it as --store" in text
    assert "3 runs of 1 task," in text and "best" in text


def test_a_repeated_run_is_listed_and_not_counted(tmp_path: Path) -> None:
    for day in (1, 2):
        score_run(tmp_path, f"mine{day}", 0, started=f"2030-01-0{day}")
    text = text_of(page_of(tmp_path))
    assert "not counted: mine1 (started 2030-01-01), as mine2 (started 2030-01-02) repeats it" in text
    assert text.count("counted in the tables no: see the notes on the task") == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"split": "train"}, "no row has --split train; available: test"),
     ({"results_dir": (Path("nowhere"),)}, "nowhere: no results; run_gpu.py writes them, --results_dir")],
)  # fmt: skip
def test_nothing_to_show_is_one_clear_error(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    score_run(tmp_path, "mine", 0)
    with pytest.raises(ValueError, match=message):
        page_of(tmp_path, **changes)
    assert not list(tmp_path.glob("*.html"))


def test_the_file_is_written_and_its_path_is_printed(many: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = many / "out" / "page.html"
    write_report(ReportConfig((many / "results",), (many / "runs",), out=path))
    assert capsys.readouterr().out.strip() == str(path)
    assert path.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_names_are_text_and_never_markup(tmp_path: Path) -> None:
    named_runs(tmp_path)
    page = Page(page_of(tmp_path))
    assert {tag for tag, _ in page.elements} <= TAGS
    assert sum(tag == "script" for tag, _ in page.elements) == 1
    assert not [name for _, found in page.elements for name in found if name.startswith("on")]
    summaries = [text.strip() for text in page.text["summary"]]
    assert all(name.strip() in summaries for name in NAMES)
    assert {name.replace("_", " ").replace("-", " ") for name in NAMES} <= {
        text.split(" · ")[0] for text in page.text["option"]
    }


def test_missing_xrays_have_a_chart_for_each_fusion(many: Path, tmp_path: Path) -> None:
    score_run(tmp_path, "mine", 0)
    rows = [
        {"task": "in-hospital-mortality", "fusion": fusion, "data": "synthetic data", "trained_on": "all",
         "tested_on": "all", "metric": "auroc", "rate": rate, "value": 0.7 - 0.1 * rate,
         "low": 0.6, "high": 0.8}
        for fusion in ("ehr", "medfuse", "late") for rate in (0.0, 0.5, 1.0)
    ]  # fmt: skip
    folder = tmp_path / "results" / "robustness"
    folder.mkdir()
    pd.DataFrame(rows).to_csv(folder / "in-hospital-mortality.csv", index=False)
    (folder / "damaged.csv").write_text("fusion\n")
    html = page_of(tmp_path)
    titles = [title for title in Page(html).text["h4"] if title.startswith("X-rays missing")]
    assert titles == ["X-rays missing: MedFuse", "X-rays missing: late"]
    assert "EHR alone, all test stays" in text_of(html) and "damaged.csv has no" in text_of(html)


def test_calibrated_scores_stand_beside_the_own(tmp_path: Path) -> None:
    score_run(tmp_path, "mine", 0)
    table = tmp_path / "results" / "in-hospital-mortality.csv"
    rows = pd.read_csv(table)
    scaled = rows[rows["metric"] == "ece"].assign(metric="ece_temperature", value=0.123)
    pd.concat([rows, scaled]).to_csv(table, index=False)
    text = text_of(page_of(tmp_path))
    assert "ECE after temperature scaling" in text and "0.123" in text


def test_few_labels_have_a_chart_and_no_place_among_methods(tmp_path: Path) -> None:
    for fusion in ("ehr", "cxr"):
        for seed, fraction in ((0, 0.01), (0, 0.1), (0, 1.0), (1, 0.01)):
            score_run(tmp_path, f"{fusion}{fraction}{seed}", seed, fusion=fusion, label_fraction=fraction)
    html = page_of(tmp_path)
    page, text = Page(html), text_of(html)
    chart = next(title for title in page.text["title"] if "training subjects with labels" in title)
    assert re.search(r"EHR only: 0.\d+ at 1 % to 0.\d+ at 100 %; X-ray only|X-ray only: .*; EHR only", chart)
    assert "6 runs that learned from a part of the labels are under Few labels alone" in text
    assert len(re.findall("<tr data-method", html[html.index("<table>") : html.index("</table>")])) == 2


def test_a_chart_places_its_points_and_tells_its_numbers() -> None:
    line = Line("mine", [1, 10, 100], [0.5, np.nan, 1.0], [0.4, np.nan, 0.9], [0.6, np.nan, 1.1])
    chart = Chart("t", "part", "score", [line], y_range=(0, 2), logarithmic=True, x_ticks=[Tick(1, "1 %")])
    first, last = chart.drawn[0].marks
    left, top, right, bottom = chart.box
    assert (first.x, last.x) == (left, right) and first.y == bottom - 0.25 * (bottom - top)
    assert first.low > first.y > first.high and chart.place_x(10) == pytest.approx(
        (left + right) / 2, abs=0.1
    )
    assert chart.numbers == [
        ["part", "mine"],
        ["1 %", "0.5 (0.4 to 0.6)"],
        ["10", ""],
        ["100", "1 (0.9 to 1.1)"],
    ]
    assert chart.description == "Line chart of score against part. mine: 0.5 at 1 % to 1 at 100."


def test_a_bar_stays_on_its_scale() -> None:
    bar = Bar(0.5, -1, 9, (0, 1))
    assert (bar.place(bar.low), bar.place(bar.value), bar.place(bar.high)) == (
        4,
        80,
        156,
    ) and bar.has_interval


def write_decisions(run: Path, net_benefit: float = 0.1, value: float = 0.8, group: str = "F") -> None:
    """Write small files of evaluation.decision and evaluation.thresholds into the folder of a run."""
    curve = {"label": "y_true", "threshold": [0.1, 0.5, 0.9], "treat_all": [0.1, -0.8, -8.0]}
    curve |= {"net_benefit": [net_benefit, 0.0, -5.0], "net_benefit_low": -6.0, "net_benefit_high": 0.2}
    pd.DataFrame(curve).to_csv(run / "decision_test.csv", index=False)
    common = {"split": "test", "label": "y_true", "rule": "youden", "threshold": 0.25 + value / 100, "n": 120}
    common |= {"positives": 60, "subjects": 40, "low": value - 0.1, "high": value + 0.1, "note": ""}
    rows = [
        common | {"variable": variable, "group": name, "metric": metric, "value": value}
        for variable, name in (("", "all"), ("sex", group), ("sex", "M"))
        for metric in ("sensitivity", "specificity", "ppv", "npv", "alert_rate")
    ]
    nothing = {"value": np.nan, "low": np.nan, "high": np.nan}
    rows += [row | nothing | {"group": "X", "note": "too small: fewer than 20 subjects"} for row in rows[-5:]]
    rows[3] |= nothing | {"note": "no value: it would divide by zero"}
    gap = common | {"variable": "sex", "group": "", "metric": "tpr_gap", "value": value / 4}
    rows += [gap | {"note": f"worst: {group}, best: M"}]
    rows += [gap | nothing | {"metric": "fpr_gap", "note": "no gap: fewer than two groups have a value"}]
    pd.DataFrame(rows).to_csv(run / "thresholds_test.csv", index=False)


def test_decision_curves_and_rates_of_groups_are_means_over_seeds(tmp_path: Path) -> None:
    for seed in (0, 1):
        score_run(tmp_path, f"mine{seed}", seed)
        write_decisions(tmp_path / "runs" / f"mine{seed}", 0.1 * (1 + seed), 0.7 + 0.2 * seed, f"<b>{seed}")
    score_run(tmp_path, "other", 0, 2.5, fusion="cxr")
    html = page_of(tmp_path)
    page, text = Page(html), text_of(html)
    chart = next(title for title in page.text["title"] if "net benefit" in title)
    assert "EHR only: 0.15 at 0.1 to -5 at 0.9; act for all: 0.1 at 0.1 to -8 at 0.9." in chart
    assert "Decision curves, 1 of 2 methods" in text and "act for none" in text
    assert sum(tag == "clippath" for tag, _ in page.elements) == 1
    title = "fine-tuning · EHR only · SimCLR"
    cells = " | ".join(" ".join(text.split()) for text in page.text["td"])
    assert (
        f"{title} | Youden's index | 0.257 to 0.259 | 0.800 (0.70 to 0.90)" in cells and "no value" in cells
    )
    assert "sex | 0.200 (0.70 to 0.90) | worst: <b>0, best: M; worst: <b>1, best: M | no gap |" in cells
    assert f"Gaps between groups: {title}" in text and "no gap: fewer than two groups have a value" in text
    assert text.count("too small: fewer than 20 subjects") == 1 and "| too small | too small |" in cells
    assert "not all runs have a decision_test.csv: fine-tuning · X-ray only · SimCLR" in text
    assert "<b>" not in html and "sex | M | 40 | 120 | 60 | 0.800 (0.70 to 0.90)" in cells


def test_decision_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    score_run(tmp_path, "mine", 0)
    (tmp_path / "runs" / "mine" / "decision_test.csv").write_text("threshold\n0.1\n")
    (tmp_path / "runs" / "mine" / "thresholds_test.csv").write_text("")
    text = text_of(page_of(tmp_path))
    assert "decision_test.csv has no column label" in text and "thresholds_test.csv" in text
    assert "net benefit" not in text and "At thresholds" not in text


def test_intervals_of_lines_at_the_same_place_do_not_cover_each_other() -> None:
    lines = [Line(name, [1, 2], [0.5, 0.6], [0.4, 0.5], [0.6, 0.7]) for name in "abc"]
    places = [[mark.x for mark in drawn.marks] for drawn in Chart("t", "x", "y", lines).drawn]
    assert places[1][0] - places[0][0] == places[2][0] - places[1][0] == 4
    assert places[1] == [Chart("t", "x", "y", lines).place_x(x) for x in (1, 2)]
