"""Result tables: CSV files, a row per score, that many runs may append to at the same time."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

import numpy as np

from utils.config import digest
from utils.files import atomic_write, write_text
from utils.lazy_pandas import pd
from utils.lock import waiting_lock
from utils.yaml_files import dump_yaml, read_yaml_mapping

COLUMNS = (
    "run", "mode", "task", "protocol", "fusion", "objective", "checkpoint", "checkpoint_hash",
    "classifier_hash", "epoch", "seed", "data", "store", "data_pairs", "split_by", "label_fraction",
    "ehr_encoder", "vision_backbone", "cxr_weights", "settings", "split", "label", "metric", "value", "low",
    "high", "n", "positives", "commit", "started", "seconds",
)  # fmt: skip
ENCODERS = ("ehr_encoder", "vision_backbone", "cxr_weights")
NO_ENCODER = "none"  # in these columns: a run has no such encoder
HASH_DIGITS = 12  # of the SHA-256 of checkpoints and stores that a row shows
SETTINGS = "settings"  # folder beside the result tables: a YAML file for each hash in the column `settings`
FILES = "files"  # key in such a file that is no setting: see `write_settings`
NUMBER_COLUMNS = ("epoch", "seed", "label_fraction", "value", "low", "high", "n", "positives", "seconds")
TEXT_COLUMNS = tuple(name for name in COLUMNS if name not in NUMBER_COLUMNS)


def append(path: Path, rows: Iterable[Mapping[str, object]]) -> None:
    """Append rows with keys of COLUMNS to a results file, all or none; None and NaN are empty cells.

    A row that is there already, apart from commit and seconds, is skipped, so a killed run can report again.
    Without rows, this checks before a training that rows can be appended after it.

    Raises:
        ValueError: a key is not in COLUMNS, or the file is none of ours: it has other columns.
        OSError: the folder cannot be written to, or the disk is full; the file is unchanged.
    """
    append_rows(path, COLUMNS, rows, "choose another --results_dir", ignore_columns=("commit", "seconds"))


def append_rows(
    path: Path,
    columns: Sequence[str],
    rows: Iterable[Mapping[str, object]],
    hint: str,
    ignore_columns: Sequence[str] = (),
) -> None:
    """Append rows to a CSV file with any columns, as `append` does; readers see all of them or none.

    A file of an older version, which lacks some of the columns, gets them, with empty cells. `hint` says what
    to do if the file has other columns; `ignore_columns` may differ in equal rows.
    """
    path = Path(path).resolve()  # a symbolic link stays one; its target is replaced
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} is no file; {hint}")
    new_rows = [_cells(row, columns) for row in rows]
    key = itemgetter(*(place for place, name in enumerate(columns) if name not in ignore_columns))
    with waiting_lock(path.with_name(f".{path.name}.lock")):
        text = _complete_lines(path).decode() or _to_csv([columns])
        header, *rows_there = csv.reader(io.StringIO(text))
        if not set(header) <= set(columns):
            raise ValueError(f"{path}: its columns are not {', '.join(columns)}; {hint}")
        if header != list(columns):
            rows_there = [_cells(dict(zip(header, cells, strict=True)), columns) for cells in rows_there]
            text = _to_csv([columns, *rows_there])
        known = {key(cells) for cells in rows_there if len(cells) == len(columns)}
        added = _to_csv(cells for cells in new_rows if key(cells) not in known)
        if added:
            with atomic_write(path) as partial:
                partial.write_bytes((text + added).encode())


def keep_rows(path: Path, keep: Callable[[Mapping[str, str]], bool]) -> None:
    """Remove the other rows of a CSV file of ours, atomically, and the file if none is left."""
    with waiting_lock(path.with_name(f".{path.name}.lock")):
        header, *rows = csv.reader(io.StringIO(_complete_lines(path).decode()))
        kept = [cells for cells in rows if keep(dict(zip(header, cells, strict=True)))]
        if not kept:
            path.unlink()
        elif len(kept) < len(rows):
            write_text(path, _to_csv([header, *kept]))


def read_rows(path: Path, text: Collection[str] = TEXT_COLUMNS) -> pd.DataFrame:
    """Read a CSV file of ours as it was written, without an incomplete last line of a killed run.

    The columns in `text` stay text, whatever they look like: a run 001 keeps its name, a commit 46520e475121
    is no number, and an empty cell is "". All others are numbers, to the last digit; empty and nan are NaN.

    Raises:
        ValueError: a column that is not in `text` has a cell that is no number.
    """
    lines = _complete_lines(Path(path))
    if not lines:
        return pd.DataFrame()
    header = next(csv.reader([lines[: lines.index(b"\n")].decode()]))
    table = pd.read_csv(
        io.BytesIO(lines),
        dtype=dict.fromkeys(text, str),
        keep_default_na=False,
        na_values={name: ["", "nan"] for name in header if name not in text},
    )
    for name in table.columns.difference(list(text)):
        wrong = table[name][pd.to_numeric(table[name], errors="coerce").isna() & table[name].notna()]
        if len(wrong):
            raise ValueError(f"{path}: column {name} must be a number, not {wrong.iloc[0]!r}; mend that line")
    return table


def read_table(path: Path, columns: Sequence[str], text: Collection[str] = TEXT_COLUMNS) -> pd.DataFrame:
    """Read a CSV file of ours; `text` as in `read_rows`.

    Raises:
        ValueError: the file is missing, not a table, empty, or without one of `columns`.
    """
    if not path.is_file():
        raise ValueError(f"{path} is missing; give the folder or table of a run that has finished")
    try:
        table = read_rows(path, text)
    except (pd.errors.ParserError, UnicodeDecodeError):
        raise ValueError(f"{path} is not a table; give a CSV file that a run has written") from None
    if table.empty:
        raise ValueError(f"{path} has no rows yet; wait for the first")
    missing = [name for name in columns if name not in table]
    if missing:
        cure = "give that of a finished run, or evaluate again if a former version wrote it"
        raise ValueError(f"{path} has no column {', '.join(missing)}; {cure}")
    return table


def read_results(path: Path) -> pd.DataFrame:
    """Read a result table, with empty cells in the columns that an older version did not write.

    Runs of such a version learnt from all labels, and so their `label_fraction` is 1; their record encoder
    was the LSTM. The column `source` is the path.

    Raises:
        ValueError: the file is missing.
    """
    if not path.is_file():
        raise ValueError(f"{path} is missing; run_gpu.py writes it, --results_dir says where")
    rows = read_rows(path)
    missing = {name: np.nan if name in NUMBER_COLUMNS else "" for name in COLUMNS if name not in rows}
    rows = rows.assign(**missing)[list(COLUMNS)].fillna({"label_fraction": 1.0})
    return call_plugin(name_record_encoders(rows).assign(source=str(path)))


def name_record_encoders(rows: pd.DataFrame) -> pd.DataFrame:
    """Fill in the record encoder of rows of a version that knew the LSTM alone, and left the cell empty."""
    has_none = (rows["fusion"] == "cxr") | (rows["protocol"] == "baseline")
    former = has_none.map({True: NO_ENCODER, False: "lstm"})
    return rows.assign(ehr_encoder=rows["ehr_encoder"].mask(rows["ehr_encoder"] == "", former))


def call_plugin(rows: pd.DataFrame) -> pd.DataFrame:
    """Call the `ece` of an older version, which has no row `ece_plugin` beside it, by this name.

    Its interval, which lay above the value, is left out.
    """
    run = [rows[name] for name in ("run", "started", "split")]
    has_plugin = (rows["metric"] == "ece_plugin").groupby(run).transform("any")
    is_plugin = ~has_plugin & rows["metric"].isin(("ece", "ece_gap"))
    names = rows["metric"].mask(is_plugin, rows["metric"].str.replace("ece", "ece_plugin"))
    ends = {name: rows[name].mask(is_plugin) for name in ("low", "high")}
    return rows.assign(metric=names, **ends)


class Recorded(NamedTuple):
    """What is recorded of the settings with a hash: the settings, and names of files that some stand for."""

    settings: Mapping[str, object] = {}
    files: Mapping[str, str] = {}


def write_settings(
    folder: Path, settings: Mapping[str, object], files: Mapping[str, str] | None = None
) -> None:
    """Write the settings of a run beside the result tables in `folder`, named by their hash.

    `files` names the files whose contents some settings stand for. They are no part of the hash: the same
    file under another name is the same setting, and keeps the name of the first run.
    """
    name = digest(settings)
    path = folder / SETTINGS / f"{name}.yaml"
    if not path.is_file() or (files and not read_recorded(folder, name).files):
        content = dict(settings) | ({FILES: dict(files)} if files else {})
        write_text(path, dump_yaml(content))


def read_recorded(folder: Path, name: str) -> Recorded:
    """Return what is recorded of a hash, nothing if its file is missing or the name is no hash."""
    path = folder / SETTINGS / f"{name}.yaml"
    if not re.fullmatch("[0-9a-f]+", name) or not path.is_file():
        return Recorded()
    settings = read_yaml_mapping(path)
    files = settings.pop(FILES, None)
    named = files if isinstance(files, dict) else {}
    return Recorded(settings, {str(setting): str(file) for setting, file in named.items()})


def read_settings(folder: Path, name: str) -> dict[str, object]:
    """Return the settings with a hash, {} if their file is missing or the name is no hash."""
    return dict(read_recorded(folder, name).settings)


def _cells(row: Mapping[str, object], columns: Sequence[str]) -> list[str]:
    unknown = [key for key in row if key not in columns]
    if unknown:
        raise ValueError(f"results have no column {', '.join(unknown)}; they have {', '.join(columns)}")
    values = (row.get(name) for name in columns)
    return ["" if pd.isna(value) else str(value) for value in values]


def _complete_lines(path: Path) -> bytes:
    data = path.read_bytes() if path.is_file() else b""
    return data[: data.rfind(b"\n") + 1]


def _to_csv(rows: Iterable[Sequence[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
