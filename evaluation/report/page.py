"""The page: its sections, the table and the passports of all runs, and the HTML file."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from evaluation.layout import cell
from evaluation.names import data_notice, metric_of, title_of
from evaluation.report.__main__ import ReportConfig
from evaluation.report.content import TaskContent, TaskSection, column_title, method_title
from evaluation.report.elements import Cell, Row, Table
from evaluation.report.sources import Record, RunKey, Sources, StoreCard, read_robustness, read_sources
from evaluation.results import ENCODERS, read_settings
from evaluation.seeds import METHOD, RUN
from tasks import TASKS
from utils.files import write_text
from utils.git import commit

TEMPLATES = Path(__file__).parent / "templates"
STAMPS = {"real": "", "synthetic": "stamped-synthetic", "synthetic X-rays": "stamped-images"}
NO_TEXT = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")  # no HTML may hold them
RAW_TABLES = ("patients", "admissions", "icustays", "chartevents", "labevents")  # whose sizes tell a release

RUN_COLUMNS = (
    "run", "task", "method", "seed", "mode", "score", "value", "known labels", "counted", "started"
)  # fmt: skip

ResultRow = dict[str, Any]


@dataclass(frozen=True)
class TableRow(Row):
    """A row of the table of all runs."""

    task: str = ""


@dataclass(frozen=True)
class Passport:
    """Where the numbers of a run come from."""

    id: str
    name: str
    task: str
    method: str
    seed: str
    facts: Sequence[tuple[str, str]]
    settings: str
    packages: int  # number of the list, 0 if it is not known


def write_report(config: ReportConfig) -> None:
    """Write the page and print its path."""
    write_text(config.out, make_page(config))
    print(config.out)


def make_page(config: ReportConfig) -> str:
    """Return the HTML of the page.

    Raises:
        ValueError: There are no results of the split, or a cell is no number.
    """
    sources = read_sources(config.results_dir, config.save_dir, config.store)
    rows = sources.rows[sources.rows["split"] == config.split]
    if rows.empty:
        choices = ", ".join(dict.fromkeys(sources.rows["split"]))
        raise ValueError(f"no row has --split {config.split}; available: {choices}")
    robustness = read_robustness(config.results_dir, sources.notes)
    order = [*TASKS, *rows["task"].unique(), *robustness]
    names = [n for n in dict.fromkeys(order) if n in robustness or (rows["task"] == n).any()]
    contents = [
        TaskContent(name, config.split, rows[rows["task"] == name], sources, robustness.get(name))
        for name in names
    ]
    sections = [content.section() for content in contents]
    passports = Passports(sources, rows, contents, sections)
    kinds = list(dict.fromkeys(kind for section in sections for kind in section.kinds))
    settings = passports.settings()
    common = common_settings(settings)
    runs = list(passports)
    style, script = ((TEMPLATES / name).read_text(encoding="utf-8") for name in ("style.css", "script.js"))
    page = environment().get_template("page.html.j2").render(
        title=f"Results: {', '.join(section.title for section in sections)}",
        made=datetime.now(UTC).strftime("%d %B %Y, %H:%M UTC"),
        commit=commit(),
        split=config.split,
        notice=data_notice(kinds),
        kinds=kinds,
        sections=sections,
        methods=sorted({run.method for run in runs}),
        seeds=sorted({run.seed for run in runs if run.seed}, key=int),
        runs=runs,
        run_table=passports.table(runs),
        settings={name: {k: v for k, v in of.items() if k not in common} for name, of in settings.items()},
        common=common,
        packages=passports.packages,
        notes=list(dict.fromkeys(sources.notes)),
        stamp=stamp,
        style=style,
        script=script,
        style_hash=source_hash(style),
        script_hash=source_hash(script),
    )  # fmt: skip
    return NO_TEXT.sub("\ufffd", page)


def environment() -> Environment:
    """Return how templates are filled in: every text is escaped, and nothing unknown is taken for empty."""
    return Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )


def source_hash(text: str) -> str:
    """Return the hash by which the page's Content-Security-Policy allows a script or style.

    >>> source_hash("")
    '47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='
    """
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def stamp(kinds: Sequence[str]) -> str:
    """Return the class that writes across a section what its data are, "" for real data.

    >>> stamp(["real"]), stamp(["real", "synthetic"]), stamp(["new"])
    ('', 'stamped-synthetic', 'stamped-unknown')
    """
    stamps = [STAMPS.get(kind, "stamped-unknown") for kind in kinds]
    return next((name for name in [*STAMPS.values(), "stamped-unknown"] if name and name in stamps), "")


def common_settings(settings: Mapping[str, Mapping[str, object]]) -> dict[str, object]:
    """Return the settings that are the same in all hashes.

    >>> common_settings({"a": {"lr": 1, "epochs": 2}, "b": {"lr": 1, "epochs": 3}})
    {'lr': 1}
    """
    first, *others = list(settings.values()) or [{}]
    return {k: v for k, v in first.items() if all(k in other and other[k] == v for other in others)}


class Passports:
    """The passports of all runs of a split, their settings, and the lists of packages they refer to."""

    def __init__(
        self,
        sources: Sources,
        rows: pd.DataFrame,
        contents: Sequence[TaskContent],
        sections: Sequence[TaskSection],
    ) -> None:
        self.sources = sources
        self.runs: dict[RunKey, list[ResultRow]] = {}
        for row in rows[rows["label"] == "macro"].to_dict("records"):
            self.runs.setdefault(RunKey(*(str(row[name]) for name in RUN)), []).append(row)
        self.main = {content.name: content.main for content in contents if len(content.rows)}
        self.cards = {(s.name, store): card for s in sections for store, card in s.cohorts}
        self.counted = {
            RunKey(*map(str, key))
            for content in contents
            for key in content.counted[RUN].drop_duplicates().itertuples(index=False)
        }
        self.marks = {key: mark for content in contents for key, mark in content.run_marks.items()}
        self.packages: list[str] = []
        self.origins: dict[str, str] = {}

    def settings(self) -> dict[str, dict[str, object]]:
        """Return the settings of each hash whose file is there."""
        known: dict[str, dict[str, object]] = {}
        for key, rows in self.runs.items():
            name = rows[0]["settings"]
            if name not in known:
                known[name] = read_settings(Path(key.source).parent, name)
        return {name: found for name, found in known.items() if found}

    def __iter__(self) -> Iterator[Passport]:
        for number, (key, rows) in enumerate(self.runs.items(), 1):
            yield self.passport(number, key, rows)

    def passport(self, number: int, key: RunKey, rows: Sequence[ResultRow]) -> Passport:
        """Return the passport of a run, whose rows have one label and several metrics."""
        first, record = rows[0], self.sources.record(key)
        card = self.cards.get((first["task"], first["store"]))
        facts = [
            *self._scores(rows),
            *self._of_row(first),
            ("counted in the tables", "yes" if key in self.counted else "no: see the notes on the task"),
            *(_store_facts(card) if card else [("store's folder", "not found")]),
            *self._training(first),
            *(_record_facts(record) if record else [("run's folder", "not found in --save_dir")]),
        ]
        packages = 0
        if record and record.packages:
            text = "\n".join(line.strip() for line in record.packages.splitlines())
            if text not in self.packages:
                self.packages.append(text)
            packages = self.packages.index(text) + 1
        known = [(name, value) for name, value in facts if value]
        method = method_title(first[name] for name in METHOD)
        seed, settings = _whole(first["seed"]), first["settings"]
        return Passport(f"run-{number}", key.run, first["task"], method, seed, known, settings, packages)

    def table(self, runs: Sequence[Passport]) -> Table:
        """Return the table of all runs."""
        columns = [
            "run",
            "task",
            "method",
            "seed",
            "mode",
            "score",
            "value",
            "known labels",
            "counted",
            "started",
        ]
        table = []
        for run, (key, rows) in zip(runs, self.runs.items(), strict=True):
            first, main = rows[0], self.main[run.task]
            score = next((row for row in reversed(rows) if row["metric"] == main), None)
            value = Cell("")
            if score is not None:
                value = Cell.score(score["value"], score["low"], score["high"], self.marks.get(key))
            cells = [
                Cell(run.name), Cell(title_of(run.task)), Cell(run.method), Cell(run.seed, run.seed),
                Cell(first["mode"]), Cell(metric_of(main).title), value,
                Cell("" if pd.isna(first["n"]) else f"{int(first['n']):,}", _whole(first["n"])),
                Cell("yes" if key in self.counted else "no"),
                Cell(first["started"][:16].replace("T", " "), first["started"]),
            ]  # fmt: skip
            seeds = [int(run.seed)] if run.seed else []
            table.append(TableRow(cells, run.method, seeds, run.id, run.task))
        right = {"seed", "value", "known labels"}
        legend = ["best, †: the mark of the method of the run in its table above."] if self.marks else []
        return Table("All runs of the split", columns, table, [name in right for name in columns], legend)

    def _scores(self, rows: Sequence[ResultRow]) -> Iterator[tuple[str, str]]:
        for row in {row["metric"]: row for row in rows}.values():
            yield metric_of(row["metric"]).title, cell(row["value"], row["low"], row["high"]) or "no value"

    def _of_row(self, row: ResultRow) -> Iterator[tuple[str, str]]:
        yield "task", title_of(row["task"])
        for name in METHOD:
            yield name, title_of(row[name])
        for name in (
            "mode",
            "seed",
            "data",
            "data_pairs",
            "store",
            "label_fraction",
            *ENCODERS,
            "n",
            "positives",
            "epoch",
        ):
            if name in row:
                title = {"epoch": "best epoch"}.get(name, column_title(name))
                yield title, _whole(row[name])
        yield "commit", row["commit"]
        yield "started", row["started"]

    def _training(self, row: ResultRow) -> Iterator[tuple[str, str]]:
        yield "encoders from", row["checkpoint"]
        yield "hash of that checkpoint", row["checkpoint_hash"]
        if row["checkpoint"]:
            if row["checkpoint"] not in self.origins:
                self.origins[row["checkpoint"]] = _pretraining(row["checkpoint"])
            yield "pretraining", self.origins[row["checkpoint"]]
        yield "hash of the classifier", row["classifier_hash"]


def _whole(value: object) -> str:
    if isinstance(value, float):
        return "" if pd.isna(value) else f"{value:g}" if value != int(value) else str(int(value))
    return str(value)


def _store_facts(card: StoreCard) -> Iterator[tuple[str, str]]:
    """Yield what a store says of the release, the extraction and the splits."""
    manifest = card.manifest
    inputs = manifest.get("inputs")
    sizes = {}
    if isinstance(inputs, dict):
        for name in RAW_TABLES:
            table = inputs.get(name)
            if isinstance(table, dict) and "bytes" in table:
                sizes[name] = f"{table.get('file', name)} {table['bytes']:,} bytes"
    yield "release, by its raw tables", ", ".join(sizes.values())
    for name in ("protocol", "timestep", "lab_time", "uncertain"):
        if name in manifest:
            yield f"extraction, {name.replace('_', ' ')}", str(manifest[name])
    yield "store's folder", str(card.folder)
    parts = [
        f"{split} {count.get('samples', 0):,} ({count.get('with_xray', 0):,} with an X-ray)"
        for split, count in card.samples.items()
    ]
    yield "samples", ", ".join(parts)


def _record_facts(record: Record) -> Iterator[tuple[str, str]]:
    """Yield what the folder of a run says of machine and versions."""
    of = record.environment
    for name in ("python", "platform", "device", "cuda", "processes", "threads"):
        if of.get(name) is not None:
            yield name, str(of[name])
    torch = re.search(r"^\s*torch: (.*)$", record.packages, re.MULTILINE)
    if torch:
        yield "PyTorch", torch[1]
    yield "changed code", "dirty.patch in its folder" if (record.folder / "dirty.patch").is_file() else ""
    yield "run's folder", str(record.folder)


def _pretraining(checkpoint: str) -> str:
    """Return what the folder of a checkpoint says of the run that wrote it; "" if it is not there."""
    from evaluation.report.sources import read_record

    record = read_record(Path(checkpoint).parent, [])
    if record is None:
        return ""
    of = record.environment
    parts = {"started": of.get("started"), "data": of.get("data"), "store": str(of.get("store", ""))[:12]}
    parts |= {"settings": of.get("settings"), "commit": of.get("commit")}
    return ", ".join(f"{name} {value}" for name, value in parts.items() if value)
