"""The picture of a stay shows what the store holds: observations, what a model sees, X-rays and labels."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from matplotlib.colors import to_hex

from datasets.extract_config import ExtractConfig
from datasets.samples import Samples
from datasets.schema import variables
from datasets.store import Store
from evaluation.plots.__main__ import Command, main
from evaluation.plots.record import DEATH, END, Record, draw_record
from evaluation.plots.record_predictions import (
    LABEL_COLORS,
    RATE_LINE,
    Predictor,
    Series,
    handles_of,
    read_series,
    scale_of,
)
from evaluation.plots.record_stay import (
    GREY,
    HOURLY,
    OBSERVED,
    XRAY,
    Stay,
    dot_style,
    levels_of,
    read_stay,
    rows_of,
    select_variables,
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
    order = ("1 None", "2 To Pain", "3 To Speech", "4 Spontaneously")
    assert row.levels == tuple(name for name in order if name in row.levels) and len(row.levels) > 2
    slots = stay.events.loc[stay.events["variable"] == eye.name, "value"].astype(int)
    assert [row.levels[level][2:] for level in row.values] == [eye.categories[slot] for slot in slots]


@pytest.mark.parametrize(
    ("name", "used", "expected"),
    [
        (
            "Glascow coma scale eye opening",
            {"4 Spontaneously": 1, "Spontaneously": 1, "To Pain": 0},
            ("2 To Pain", "4 Spontaneously"),
        ),
        ("Glascow coma scale motor response", {"6 Obeys Commands": 0}, ("6 Obeys Commands",)),
        (
            "Glascow coma scale verbal response",
            {"No Response": 0, "No Response-ETT": 0, "1.0 ET/Trach": 0, "5 Oriented": 1},
            ("1 No Response / No Response-ETT", "5 Oriented"),
        ),
        ("Glascow coma scale total", {"9": 0, "15": 1}, ("9", "15")),
        ("Capillary refill rate", {"0.0": 1, "1.0": 0}, ("delayed", "normal")),
    ],
)
def test_categories_that_mean_the_same_are_one_level_with_words(
    name: str, used: dict[str, int], expected: tuple[str, ...]
) -> None:
    (variable,) = select_variables([name])
    names, level = levels_of(variable, {variable.categories.index(text) for text in used})
    assert names == expected
    assert {text: level[variable.categories.index(text)] for text in used} == used


def test_the_fraction_of_oxygen_says_that_it_is_one() -> None:
    assert next(v.unit for v in variables() if v.name == "Fraction inspired oxygen") == "fraction"


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
    leaders = [line.get_xdata()[1] for line in xrays.lines if to_hex(line.get_color()).upper() == XRAY]
    np.testing.assert_allclose(leaders, hours)
    boxes = sorted(image.get_extent()[:2] for image in xrays.images)
    assert all(a[1] <= b[0] for a, b in pairwise(boxes))
    lines = {
        (to_hex(line.get_color()).upper(), line.get_linestyle(), line.get_marker()) for line in pulse.lines
    }
    marks = {
        (GREY, ":", "None"),
        (HOURLY, "-", "None"),
        (OBSERVED, "None", "o"),
        (XRAY, "--", "None"),
        (END, "--", "None"),
    }
    assert lines == marks | ({(DEATH, "-", "None")} if stay.death else set())


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
    steps = [line for line in axis.lines if line.get_drawstyle() == "steps-post"]
    assert len(steps) == 2 and set(steps[0].get_ydata()) == {3.0}
    (shade,) = axis.collections  # the probability of each bin
    shown = np.asarray(shade.get_array()).reshape(len(titles), -1)
    assert (shown[3] == 1).all() and (np.delete(shown, 3, axis=0) == 0).all()
    entries = [text.get_text() for text in axis.get_legend().get_texts()]
    assert entries[-1] == "probability of each bin: darker is more, up to 1.00"


@pytest.mark.parametrize(
    ("probability", "rate", "expected"),
    [
        ([0.001, 0.002], 0.0005, 0.05),  # thousandths stay small
        ([0.02, 0.03], 0.02, 0.05),
        ([0.02, 0.03], 0.08, 0.1),  # room for the rate
        ([0.006], 0.14, 0.05),  # the rate would make them a flat row at zero
        ([0.048], 0.01, 0.1),  # headroom
        ([np.nan, 0.4], 0.1, 0.5),
        ([1.0], 0.1, 1.0),
    ],
)
def test_the_scale_of_probabilities_fits_them(probability: list[float], rate: float, expected: float) -> None:
    count = len(probability)
    item = Series(np.arange(float(count)), np.zeros(count), np.array(probability), rate)
    assert scale_of({"y_true": item}) == expected


def test_small_probabilities_fill_their_panel_with_the_rate_as_a_line(store: Path, tmp_path: Path) -> None:
    run, stay_id = write_run(tmp_path / "run", store, "decompensation"), long_stay(store)
    table = pd.read_csv(run / "predictions_test.csv")
    table["probability"] = 0.02 + table["probability"] / 100
    table["truth"] = (np.arange(len(table)) % 40 == 0).astype(int)
    table.to_csv(run / "predictions_test.csv", index=False)
    axis = Record(store, stay_id, run=run, out=tmp_path).draw()[0].axes[-1]
    assert axis.get_ylim() == (0, 0.05) and "scale 0 to 0.05" in axis.get_ylabel()
    (rate,) = (line for line in axis.lines if to_hex(line.get_color()) == RATE_LINE["color"])
    np.testing.assert_allclose(rate.get_ydata(), table["truth"].mean())
    texts = [text.get_text() for text in axis.get_legend().get_texts()]
    assert f"rate among the test samples: {table['truth'].mean():.2g}" in texts
    assert {"filled: dies within 24 hours", "empty: survives the next 24 hours"} <= set(texts)


def death_in_stay(store: Path) -> Stay:
    """A stay in which the patient dies, hours before the last bin ends."""
    stays = pd.read_parquet(store / "stays.parquet")
    early = stays[stays["death_hours"] < stays["los_hours"] - 3]
    return read_stay(Store.open(store), int(early["stay_id"].iloc[0]))


@pytest.mark.parametrize("is_known", [True, False])
def test_death_and_the_end_of_the_stay_are_marked_and_no_value_is_carried_past_death(
    store: Path, is_known: bool
) -> None:
    stay = death_in_stay(store)
    row = stay.row.copy()
    row["death_hour_known"] = is_known
    stay = replace(stay, row=row)
    death, until = stay.row["death_hours"], stay.row["death_hours"] + (0 if is_known else 24)
    figure = draw_record(stay, variables(), None, {})
    words = "death" if is_known else "day of death"
    for axis in figure.axes:
        at = {to_hex(line.get_color()).upper(): line.get_xdata() for line in axis.lines}
        assert set(at[DEATH]) == {death} and set(at[END]) == {stay.row["los_hours"]}
        assert words in [text.get_text() for text in axis.texts]
        assert bool(axis.patches) != is_known  # the day on which it was
        for line in axis.lines:
            if line.get_drawstyle() == "steps-post":
                assert max(line.get_xdata()) <= until
    assert any(words in text.get_text() for text in figure.legends[0].get_texts())


def test_many_thumbnails_stand_before_the_line_of_a_late_death(store: Path) -> None:
    stay = death_in_stay(store)
    row = stay.row.copy()
    row["death_hours"] = death = 0.9 * stay.end
    image = np.zeros((5, 6), np.uint8)
    hours = np.linspace(0.95 * death, death, 10)
    stay = replace(stay, row=row, image_hours=hours, views=["AP"] * 10, images=[image] * 10)
    axis = draw_record(stay, variables()[:1], None, {}).axes[0]
    boxes = sorted(image.get_extent()[:2] for image in axis.images)
    assert boxes[0][0] >= axis.get_xlim()[0] - 1e-9 and boxes[-1][1] <= death + 1e-9
    assert all(a[1] <= b[0] for a, b in pairwise(boxes))


def test_a_death_after_the_stay_is_not_marked(store: Path) -> None:
    stay = death_in_stay(store)
    row = stay.row.copy()
    row["death_hours"] = stay.end + 5
    figure = draw_record(replace(stay, row=row), variables()[:2], None, {})
    assert all(to_hex(line.get_color()).upper() != DEATH for axis in figure.axes for line in axis.lines)
    assert "death" not in {text.get_text() for text in figure.legends[0].get_texts()}
    edges = [line.get_xdata()[-1] for line in figure.axes[-1].lines if line.get_drawstyle() == "steps-post"]
    assert edges[-1] == stay.end


@pytest.mark.parametrize(
    ("config", "method", "reads"),
    [
        ({"protocol": "supervised", "fusion": "ehr"}, "supervised, EHR only", "reads the record alone"),
        (
            {"protocol": "lineareval", "fusion": "mmtm", "load_state": "random"},
            "linear evaluation, MMTM, random encoders",
            "reads records and X-rays",
        ),
        ({"protocol": "supervised", "fusion": "cxr"}, "supervised, X-ray only", "reads X-rays alone"),
        (
            {
                "protocol": "finetune",
                "fusion": "early",
                "load_state": "runs/a/last.ckpt",
                "results_dir": "no",
            },
            "fine-tuning, early, encoders of runs/a/last.ckpt",
            "reads records and X-rays",
        ),
        (
            {"model": "logistic_regression", "data_pairs": "paired"},
            "baseline, logistic regression",
            "reads the record alone",
        ),
    ],
)
def test_a_run_is_described_by_its_method_and_what_it_reads(
    tmp_path: Path, config: dict[str, object], method: str, reads: str
) -> None:
    config = config if "data_pairs" in config else config | {"data": {"data_pairs": "paired"}}
    by = Predictor.of(tmp_path, config)
    assert (by.method, by.reads, by.pairs_only) == (method, reads, True)
    assert by.title == f"predictions of {tmp_path.name}: {method}; {reads}"


def test_the_objective_of_a_run_is_that_of_its_result_row(tmp_path: Path) -> None:
    (tmp_path / "decompensation.csv").write_text("run,objective\nmine,simclr\nother,clip\n")
    config = {"protocol": "lineareval", "fusion": "ehr", "task": "decompensation", "load_state": "a.ckpt"}
    config |= {"results_dir": str(tmp_path), "data": {"data_pairs": "ehr_all"}}
    by = Predictor.of(tmp_path / "mine", config)
    assert by.method == "linear evaluation, EHR only, SimCLR encoders" and not by.pairs_only


def test_predictions_that_begin_with_an_x_ray_say_why(store: Path, tmp_path: Path) -> None:
    rows = pd.read_csv(store / "decompensation" / "test_listfile.csv")
    images = pd.read_parquet(store / "cxr.parquet").groupby("stay_id")["hours"].min()
    first = rows.groupby("stay_id")["end_hours"].agg(["min", "max"]).join(images, how="inner")
    stay_id = int(first.query("min < hours < max - 1").index[0])
    run = write_run(tmp_path / "run", store, "decompensation")
    path = run / "predictions_test.csv"
    table = pd.read_csv(path)
    table[(table["stay_id"] != stay_id) | (table["end_hours"] >= images[stay_id])].to_csv(path, index=False)
    note = "no prediction before the first X-ray: trained on stays with one"
    for pairs in ("paired", "partial"):
        config = {"task": "decompensation", "fusion": "late", "data": {"data_pairs": pairs}}
        (run / "config.yaml").write_text(yaml.safe_dump(config))
        axis = Record(store, stay_id, run=run, out=tmp_path).draw()[0].axes[-1]
        assert (note in [text.get_text() for text in axis.texts]) == (pairs == "paired")
        assert axis.get_title(loc="left") == "predictions of run: late; reads records and X-rays"


@pytest.mark.parametrize("task", ["decompensation", "in-hospital-mortality", "readmission"])
def test_without_a_run_a_label_stands_on_its_class_in_words(store: Path, tmp_path: Path, task: str) -> None:
    axis = Record(store, long_stay(store, task), task=task, out=tmp_path).draw()[0].axes[-1]
    ticks = [label.get_text().replace("\n", " ") for label in axis.get_yticklabels()]
    assert ticks == list(TASKS[task].class_titles) and axis.get_yticks().tolist() == [0, 1]
    assert not [line for line in axis.lines if len(set(line.get_ydata())) > 1 and len(line.get_xdata()) > 2]


@pytest.mark.parametrize("task", list(TASKS))
def test_a_task_says_what_each_of_its_classes_means(task: str) -> None:
    assert len(TASKS[task].class_titles) == TASKS[task].classes


@pytest.mark.parametrize("hours", [1, 3])
def test_the_legend_has_the_marks_of_the_panel(hours: int) -> None:
    item = Series(np.arange(float(hours)), np.ones(hours), np.full(hours, 0.3), 0.1)
    curve, rate, filled, empty = handles_of(TASKS["decompensation"], {"y_true": item}, "test")
    assert [handle.get_marker() for handle in (curve, filled, empty)] == ["o", "o", "o"]
    assert filled.get_markerfacecolor() == LABEL_COLORS[0] and empty.get_markerfacecolor() == "white"
    assert (curve.get_linewidth() > 0) == (hours > 1) and rate.get_marker() == "None"
    assert hours > 1 or curve.get_label() == "decompensation: dies within 24 hours, predicted 0.30"


def test_the_hours_stand_above_and_below_and_days_are_lines(store: Path, tmp_path: Path) -> None:
    stay_id = long_stay(store)
    figure, _ = Record(store, stay_id, variable=("pH", "Weight", "Height"), out=tmp_path).draw()
    top, bottom = figure.axes[0].xaxis, figure.axes[-1].xaxis
    assert top.get_major_ticks()[0].label2.get_visible()
    assert bottom.get_major_ticks()[0].label1.get_visible()
    assert not figure.axes[1].xaxis.get_major_ticks()[0].label1.get_visible()
    for axis in figure.axes:
        days = axis.get_xticks(minor=True)
        assert days.tolist() == [24.0 * k for k in range(len(days))] and len(days) > 1
        assert all(tick.gridline.get_visible() for tick in axis.xaxis.get_minor_ticks())


def test_many_dots_are_small_and_let_lines_be_seen() -> None:
    few, many = dot_style(20), dot_style(2000)
    assert few["alpha"] == 1 and many["alpha"] < 1 and many["markersize"] < few["markersize"]


def test_the_value_of_an_hour_is_called_so_and_explained(store: Path, tmp_path: Path) -> None:
    figure, _ = Record(store, long_stay(store), variable=("pH",), out=tmp_path).draw()
    names = {text.get_text() for text in figure.legends[0].get_texts()}
    assert "value of the hour, as the model reads it" in names
    assert any("Of several values in the hour the last counts." in text.get_text() for text in figure.texts)


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
