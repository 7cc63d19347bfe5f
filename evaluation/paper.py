"""A table for a paper: a row per method, a column per score, the best in bold."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd

from evaluation.compare import SIGNIFICANT, Samples, SideScores, read_record
from evaluation.layout import DAGGER, Mark, Page, cell, columns_that_tell, common_values, render
from evaluation.marks import best_and_like
from evaluation.names import DETAILS, data_notice, metric_of, title_of
from evaluation.row_notes import CLASSIFIER, explain_settings, number_classifiers
from evaluation.seeds import CONTEXT, GROUP, METHOD, RUN, RowSelection, over_seeds, select_rows

COMPARABLE = ["data", "store", "n", "positives"]  # equal in rows with the same samples


@dataclass(frozen=True)
class Paper(RowSelection):
    """Make a table for a paper: a row per method, a column per score, cells such as 0.716 (0.69 to 0.74).

    Rows are averaged as in `table`. Among rows on the same samples, the best of each score is bold, and a
    score that is not significantly worse by the bootstrap of `compare` has a dagger.
    """

    format: Literal["text", "markdown", "latex"] = "text"
    """Format of the table; latex needs the package booktabs."""
    save_dir: tuple[Path, ...] = (Path("runs"),)
    """Folders that hold the folders of the runs, whose predictions are compared with those of the best."""
    resamples: int = 1000
    """Resamples of the subjects for the comparison with the best."""
    seed: int = 0
    """Seed of the resamples."""

    def __post_init__(self) -> None:
        if self.resamples < 1:
            raise ValueError(f"--resamples must be 1 or more, not {self.resamples}")


def make_paper_table(config: Paper) -> str:
    """Return the table."""
    rows, lines = select_rows(config)
    means = over_seeds(rows)
    metrics = [name for name in dict.fromkeys(means["metric"]) if name not in DETAILS or config.metric]
    methods = means.drop_duplicates(GROUP)[[*GROUP, "n", "positives", "seeds", "classifiers"]]
    methods = methods.sort_values(COMPARABLE, kind="stable", ignore_index=True)
    table = PaperTable(config, rows, methods, means)
    marks = dict(table.marks(metrics))
    methods, classifiers = number_classifiers(methods)
    shown = columns_that_tell(
        methods, METHOD, [*CONTEXT[:-1], CLASSIFIER], ["settings", "group"], outcomes=["n", "seeds"]
    )
    methods, explained = explain_settings(methods, rows, shown)
    body = methods[shown].assign(**{name: methods[name].map(title_of) for name in METHOD})
    for metric in metrics:
        body[metric_of(metric).title] = [table.cell(method, metric) for method in methods.index]
    named = {(row, metric_of(metric).title): mark for (row, metric), mark in marks.items()}
    notes = [
        "mean over seeds, with the 95 % interval over subjects",
        *table.legend(marks),
        *common_values(methods, [*CONTEXT[:-1], "n", "seeds"]),
        *classifiers,
        *explained,
        *table.not_compared(),
        *lines,
    ]
    title = f"{title_of(config.task)}, {config.split}, {config.label}"
    return render(Page(title, data_notice(means["data"]), body, notes, named), config.format)


class PaperTable:
    """The means of each method (a row of `methods`) and metric, and which of them are the best."""

    def __init__(self, config: Paper, rows: pd.DataFrame, methods: pd.DataFrame, means: pd.DataFrame) -> None:
        self.config = config
        self.rows = rows
        self.methods = methods
        self.means = means.set_index([*GROUP, "metric"])
        self.failures: list[str] = []
        self.missing: dict[str, None] = {}  # names of runs whose folder is not in --save_dir

    def cell(self, method: int, metric: str) -> str:
        """Return a mean with its interval, "" if there is none."""
        score = self._mean(method, metric)
        return "" if score is None else cell(score["mean"], score["low"], score["high"])

    def marks(self, metrics: list[str]) -> Iterator[tuple[tuple[int, str], Mark]]:
        """Yield the best method of each metric, and those that are not significantly worse."""
        for _, block in self.methods.groupby(COMPARABLE, dropna=False, sort=False):
            if len(block) < 2:
                continue
            scores = self._scores(list(block.index))
            for metric in metrics:
                means = {method: self._mean(method, metric) for method in block.index}
                values = {m: mean["mean"] for m, mean in means.items() if mean is not None and mean["seeds"]}
                key = self.config.label, metric
                drawn = {m: side.resampled[key] for m, side in scores.items() if key in side.resampled}
                subjects = max(
                    (side.subjects[self.config.label].deciding for side in scores.values()), default=0
                )
                higher_is_better = metric_of(metric).higher_is_better
                for method, mark in best_and_like(values, drawn, subjects, higher_is_better).items():
                    yield (method, metric), mark

    def legend(self, marks: dict[tuple[int, str], Mark]) -> list[str]:
        """Return what the marks mean."""
        best = {"text": "*", "markdown": "bold", "latex": "bold"}[self.config.format]
        of = " of the rows on the same samples" if len(self.methods[COMPARABLE].drop_duplicates()) > 1 else ""
        worse = f"not significantly worse than the best{of} (paired bootstrap, p {SIGNIFICANT} or more)"
        texts: dict[Mark, str] = {"best": f"{best}: the best{of}", "like best": f"{DAGGER}: {worse}"}
        return [text for mark, text in texts.items() if mark in marks.values()]

    def not_compared(self) -> list[str]:
        """Return a line on the runs without a folder, and one for each method that failed otherwise."""
        if not self.missing:
            return self.failures
        folders = " ".join(map(str, self.config.save_dir))
        count = f"{len(self.missing)} run{'s' if len(self.missing) > 1 else ''}"
        line = (
            f"not compared with the best: {count} whose folder is not in --save_dir {folders}; give the "
            f"folder that holds theirs: {', '.join(self.missing)}"
        )
        return [line, *self.failures]

    def _mean(self, method: int, metric: str) -> pd.Series | None:
        key = (*self.methods.loc[method, GROUP], metric)
        return self.means.loc[key] if key in self.means.index else None

    def _scores(self, methods: list[int]) -> dict[int, SideScores]:
        """Return the scores in every resample of the methods whose runs have their predictions."""
        samples = Samples(self.config.split, self.config.resamples, self.config.seed)
        scores = {}
        for method in methods:
            folders = self._folders(method)
            self.missing |= {name: None for name, folder in folders.items() if folder is None}
            found = [folder for folder in folders.values() if folder is not None]
            if len(found) < len(folders):
                continue
            try:
                scores[method] = samples.score(found)
            except ValueError as error:
                names = " ".join(map(title_of, self.methods.loc[method, METHOD]))
                runs = ", ".join(folders)
                self.failures.append(f"not compared with the best: {names} ({runs}): {error}")
        return scores

    def _folders(self, method: int) -> dict[str, Path | None]:
        """Return the folder of each run of a method by its name and start, None if there is none.

        A folder that now holds another run, started at another time, is none.
        """
        alike = (self.rows[GROUP] == self.methods.loc[method, GROUP]).all(axis=1)
        folders: dict[str, Path | None] = {}
        for run, started in self.rows[alike].drop_duplicates(RUN)[["run", "started"]].itertuples(index=False):
            candidates = [folder / run for folder in self.config.save_dir]
            found = [path for path in candidates if read_record(path).get("started") == started]
            folders[f"{run} (started {started})"] = found[0] if found else None
        return folders
