"""The picture of a stay shows what the store holds: observations, what a model sees, X-rays and labels."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from matplotlib.colors import to_hex

from datasets.extract import ExtractConfig
from datasets.samples import Samples
from datasets.schema import variables
from datasets.store import Store
from evaluation.plots.__main__ import Command, main
from evaluation.plots.record import (
    CARRIED,
    GREY,
    OBSERVED,
    XRAY,
    Record,
    read_series,
    read_stay,
    rows_of,
    spread,
)
from evaluation.predictions import write_predictions
from tasks import TASKS
from tests.random_cohort import random_cohort
from tests.stores import extract_with_samples
from utils.config import parse


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of random stays with X-rays."""
    folder = tmp_path_factory.mktemp("record")
    iv, cxr = random_cohort(3, 20).write(folder / "raw")
    extract_with_samples(ExtractConfig(iv, folder / "store", cxr))
    return folder / "store"


def long_stay(store: Path, task: str = "decompensation", split: str = "test") -> int:
    """The stay of a split with the most samples of a task."""
    return int(pd.read_csv(store / task / f"{split}_listfile.csv")["stay_id"].value_counts().index[0])


def write_run(folder: Path, store: Path, task: str, split: str = "test") -> Path:
    """A run whose probability is the prediction time over 100; of a bin k it is highest for k = 3."""
    rows = pd.read_csv(store / task / f"{split}_listfile.csv")
    count, labels = len(rows), TASKS[task].labels
    raw = rows[list(labels)].to_numpy(float)
    own = {name: np.zeros(count) for name in Samples.__dataclass_fields__}
    own |= {name: rows[name].to_numpy() for name in ("stay_id", "subject_id", "end_hours")}
    samples = Samples(**own | {"labels": TASKS[task].encode(raw).astype(np.float32), "raw_labels": raw})
    probability = np.repeat(rows[["end_hours"]].to_numpy() / 100, len(labels), axis=1)
    if TASKS[task].kind == "ordinal":
        probability = np.eye(TASKS[task].classes)[np.full(count, 3)]
    folder.mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump({"task": task}))
    write_predictions(folder / f"predictions_{split}.csv", samples, labels, probability)
    return folder


def test_a_row_holds_the_observations_and_what_a_model_sees(store: Path) -> None:
    opened, events = Store.open(store), pd.read_parquet(store / "events.parquet")
    late = 0
    for stay_id in events["stay_id"].unique():
        stay = read_stay(opened, int(stay_id))
        for variable in (v for v in variables() if not v.categories):
            row, masks = rows_of(stay, variable), stay.grid[:, variable.mask_channel]
            own = events[(events["stay_id"] == stay_id) & (events["variable"] == variable.name)]
            np.testing.assert_array_equal(row.values, own["value"])
            np.testing.assert_array_equal(row.hours, own["hours"])
            assert len(row.binned) == stay.row["length"]
            assert row.observed_from == (masks.argmax() if len(own) else len(masks))
            assert (row.binned[: row.observed_from] == np.float32(variable.normal)).all()
            assert not len(own) or row.binned[-1] == np.float32(own["value"].iloc[-1])
            late += 0 < row.observed_from < len(masks)
    assert late


def test_categories_in_use_are_levels_from_the_worst_to_the_best(store: Path) -> None:
    stay = read_stay(Store.open(store), long_stay(store))
    eye = next(v for v in variables() if v.name == "Glascow coma scale eye opening")
    row = rows_of(stay, eye)
    order = ("None", "To Pain", "To Speech", "4 Spontaneously", "Spontaneously")
    assert row.levels == tuple(name for name in order if name in row.levels) and len(row.levels) > 2
    slots = stay.events.loc[stay.events["variable"] == eye.name, "value"].astype(int)
    assert [row.levels[level] for level in row.values] == [eye.categories[slot] for slot in slots]


@pytest.mark.parametrize("task", list(TASKS))
def test_every_task_shows_its_labels_and_a_run_its_predictions(
    store: Path, tmp_path: Path, task: str
) -> None:
    run = write_run(tmp_path / "run", store, task)
    stay_id = long_stay(store, task)
    for shown in (
        Record(store, stay_id, task=task, out=tmp_path),
        Record(store, stay_id, run=run, out=tmp_path),
    ):
        figure, path = shown.draw()
        assert path == tmp_path / f"record_{stay_id}.png"
        assert f"stay {stay_id}" in figure.get_suptitle() and "real data" in figure.get_suptitle()
    opened = Store.open(store)
    series = read_series(opened, read_stay(opened, stay_id), TASKS[task], run, ())
    rows = opened.listfile(task, "test")
    rows = rows[rows["stay_id"] == stay_id]
    for item in series.values():
        np.testing.assert_array_equal(item.hours, rows["end_hours"].sort_values())
        expected = 3.0 if TASKS[task].kind == "ordinal" else item.hours / 100
        np.testing.assert_allclose(item.probability, np.broadcast_to(expected, len(item.hours)))


def test_observed_and_carried_values_look_different_and_images_stand_at_their_times(
    store: Path, tmp_path: Path
) -> None:
    images = pd.read_parquet(store / "cxr.parquet")
    stay_id = int(images["stay_id"].value_counts().index[0])
    stay = read_stay(Store.open(store), stay_id)
    continuous = [v for v in variables() if not v.categories]
    variable = next(v.name for v in continuous if 0 < rows_of(stay, v).observed_from < len(stay.grid))
    hours = images.loc[images["stay_id"] == stay_id, "hours"].to_numpy()
    figure, _ = Record(store, stay_id, variable=(variable,), out=tmp_path).draw()
    xrays, pulse = figure.axes
    assert len(xrays.images) == len(hours)
    leaders = [line.get_xdata()[1] for line in xrays.lines if line.get_visible()]
    np.testing.assert_allclose(leaders, hours)
    boxes = sorted(image.get_extent()[:2] for image in xrays.images)
    assert all(a[1] <= b[0] for a, b in pairwise(boxes))
    lines = {
        (to_hex(line.get_color()).upper(), line.get_linestyle(), line.get_marker()) for line in pulse.lines
    }
    assert lines == {
        (GREY, ":", "None"),
        (CARRIED, "-", "None"),
        (OBSERVED, "None", "o"),
        (XRAY, "--", "None"),
    }


def test_the_picture_says_whose_predictions_it_shows_and_explains_only_what_is_there(
    store: Path, tmp_path: Path
) -> None:
    images = set(pd.read_parquet(store / "cxr.parquet")["stay_id"])
    stays = pd.read_csv(store / "decompensation" / "test_listfile.csv")["stay_id"].unique()
    run = write_run(tmp_path / "mine", store, "decompensation")
    seen = set()
    for stay_id in map(int, stays):
        figure, _ = Record(store, stay_id, run=run, out=tmp_path).draw()
        explained = {text.get_text() for text in figure.legends[0].get_texts()}
        assert ("X-ray" in explained) == (stay_id in images)
        assert figure.get_suptitle().endswith("predictions of mine")
        seen.add(stay_id in images)
    assert seen == {True, False}
    figure, _ = Record(store, stay_id, task="decompensation", out=tmp_path).draw()
    assert "predictions of" not in figure.get_suptitle()


def test_bins_of_length_of_stay_are_steps_between_ranges_of_days(store: Path, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", store, "length-of-stay")
    figure, _ = Record(store, long_stay(store, "length-of-stay"), run=run, out=tmp_path).draw()
    axis = figure.axes[-1]
    titles = [label.get_text() for label in axis.get_yticklabels()]
    assert titles == list(TASKS["length-of-stay"].class_titles) and axis.get_ylabel() == ""
    bins = [line for line in axis.lines if "bin" in str(line.get_label())]
    assert len(bins) == 2 and {line.get_drawstyle() for line in bins} == {"steps-post"}


def test_many_images_at_one_time_do_not_overlap() -> None:
    draw = np.random.default_rng(0)
    for count in (1, 2, 7, 10):
        for wanted in (np.sort(draw.uniform(0, 50, count)), np.full(count, 50.0), np.zeros(count)):
            centres = spread(wanted, 5.0, 0.0, 50.0)
            assert (np.diff(centres) >= 5 - 1e-9).all()
            assert centres[0] >= 2.5 - 1e-9 and centres[-1] <= 47.5 + 1e-9


def test_the_command_writes_a_whole_picture(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stay_id = long_stay(store)
    words = [
        "record",
        str(store),
        "--stay_id",
        str(stay_id),
        "--variable",
        "pH",
        "--out",
        str(tmp_path / "new"),
    ]
    main(parse(Command, words))
    path = Path(capsys.readouterr().out.strip())
    assert path.read_bytes().startswith(b"\x89PNG") and path.read_bytes().endswith(b"IEND\xaeB`\x82")


def test_a_wrong_choice_is_one_clear_error(store: Path, tmp_path: Path) -> None:
    stay_id = long_stay(store)
    base = Record(store, stay_id, task="phenotyping", out=tmp_path)
    run = write_run(tmp_path / "run", store, "decompensation")
    train = long_stay(store, split="train")
    choices = [
        (replace(base, stay_id=5), "--stay_id 5: .* has no such stay"),
        (
            replace(base, variable=("Own",)),
            "--variable Own: unknown; choose from Capillary refill rate",
        ),
        (replace(base, label=("shock",)), "phenotyping has no label shock; choose --label from Acute and"),
        (replace(base, label=TASKS["phenotyping"].labels[:7]), "at most 6 labels"),
        (replace(base, run=run), "has no .* of the stay; give a run of phenotyping on this store"),
        (replace(base, task="", run=tmp_path), "has no config.yaml; give the folder of a run"),
        (replace(base, stay_id=train, task="", run=run), "keeps no predictions of train"),
    ]
    for record, message in choices:
        with pytest.raises(ValueError, match=message):
            record.draw()
    short = pd.read_parquet(store / "stays.parquet").query("los_hours < 48")["stay_id"].iloc[0]
    with pytest.raises(ValueError, match="is no sample of in-hospital-mortality; leave out --task"):
        replace(base, stay_id=int(short), task="in-hospital-mortality").draw()
