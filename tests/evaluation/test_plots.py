"""Figures show the numbers of their sources, are whole PNG files, and refuse sources that do not fit."""

import os
import subprocess
import sys
from pathlib import Path
from typing import get_args
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import yaml
from matplotlib.figure import Figure
from PIL import Image
from sklearn.metrics import roc_auc_score, roc_curve

from evaluation import metrics, results
from evaluation.bootstrap import Resamples
from evaluation.plots import style
from evaluation.plots.__main__ import Command, main
from evaluation.plots.calibration import reliability
from evaluation.plots.curves import epoch_panels, log_panels
from evaluation.plots.embedding import Embedding, label_masks, principal_components, tsne
from evaluation.plots.figures import PredictionSelection
from evaluation.plots.roc import Roc
from evaluation.plots.scores import Bars, by_label_and_run
from evaluation.plots.style import save
from evaluation.predictions import EMBEDDINGS, write_embeddings, write_predictions
from evaluation.roc_curves import GRID, CurveSet, compute_curves
from tests.samples import make_samples
from utils.config import parse

ROOT = Path(__file__).resolve().parents[2]

LABELS = ("sepsis", "shock", "fluid, other")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a run on synthetic data, with its log and predictions."""
    folder, draw = tmp_path / "runs" / "mine", np.random.default_rng(0)
    folder.mkdir(parents=True)
    (folder / "environment.yaml").write_text(yaml.safe_dump({"data": "synthetic data"}))
    terms = {name: draw.random(4) for name in ("train_loss", "val_loss", "auroc")}
    pd.DataFrame({"epoch": range(4), "step": 5, "seconds": 1.0, **terms}).to_csv(folder / "log.csv")
    truth = draw.integers(0, 2, (200, 3)).astype(np.float32)
    truth[:9, 1] = np.nan
    guess = (0.6 * draw.random((200, 3)) + 0.4 * np.nan_to_num(truth) * draw.random((200, 3))).round(2)
    stays = np.arange(200) // 2
    write_predictions(folder / "predictions_test.csv", make_samples(truth, stays, stays // 4), LABELS, guess)
    return folder


@pytest.fixture
def table(run: Path) -> Path:
    """Results of two runs, one of which has intervals and was evaluated twice."""
    path = run.parent / "results" / "phenotyping.csv"
    common = {"task": "phenotyping", "split": "test", "metric": "auroc"}
    for name, first in (("mine", 0.1), ("mine", 0.6), ("other", 0.7)):
        rows = [{**common, "run": name, "label": lb, "value": first + i / 20} for i, lb in enumerate(LABELS)]
        if name == "mine":
            rows = [row | {"low": row["value"] - 0.05, "high": row["value"] + 0.1} for row in rows]
        results.append(path, rows)
    return path


def test_every_figure_is_a_png_beside_its_source_that_calls_synthetic_data_so(
    run: Path, table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    epochs, arrays = run / "results_label_x.csv", run / "features.npz"
    pd.DataFrame({"epoch": [0, 1], "val_auroc": [0.5, 0.6], "test_auroc": [0.4, 0.5]}).to_csv(epochs)
    np.savez(arrays, embeddings=np.random.default_rng(0).normal(size=(30, 4)))
    saved = ("--save_dir", run.parent)
    paths = {
        ("curves", run): run / "curves.png",
        ("epochs", epochs): run / "results_label_x.png",
        ("roc", run, "--resamples", "3"): run / "roc_test.png",
        ("calibration", run): run / "calibration_test.png",
        ("bars", table, *saved): table.parent / "phenotyping_bars_auroc.png",
        ("heatmap", table, *saved): table.parent / "phenotyping_heatmap_auroc.png",
        ("embedding", arrays): run / "features_pca.png",
        ("embedding", arrays, "--tsne"): run / "features_tsne.png",
    }
    others = {"record", "robustness", "decision", "labels", "search"}  # have tests of their own
    assert {words[0] for words in paths} | others == {figure.__name__.lower() for figure in get_args(Command)}
    for words, path in paths.items():
        command = parse(Command, [*map(str, words)])
        figure, written = command.draw()
        assert command.format == "png"
        assert written == path and "synthetic data" in figure.get_suptitle(), words
        save(figure, path)
        with Image.open(path) as image:
            image.verify()
            assert image.format == "PNG" and min(image.size) > 300
    main(parse(Command, ["curves", str(run)]))
    assert capsys.readouterr().out.strip() == str(run / "curves.png")
    assert not list(run.parent.rglob("*.partial"))
    (run / "environment.yaml").write_text("commit: abc\n")
    assert parse(Command, ["curves", str(run)]).draw()[0].get_suptitle() == "mine"


@pytest.mark.parametrize(
    ("kind", "first"), [("png", b"\x89PNG"), ("pdf", b"%PDF-"), ("svg", b"<?xml")], ids=["png", "pdf", "svg"]
)
def test_a_figure_has_the_format_that_is_asked_for_and_the_same_bytes(
    run: Path, table: Path, kind: str, first: bytes
) -> None:
    for words in (["curves", run], ["bars", table, "--save_dir", run.parent]):
        contents = []
        for _ in range(2):
            main(parse(Command, [*map(str, words), "--format", kind]))
            path = (
                run / f"curves.{kind}"
                if words[0] == "curves"
                else table.with_name(f"phenotyping_bars_auroc.{kind}")
            )
            contents.append(path.read_bytes())
        assert contents[0].startswith(first) and contents[0] == contents[1]


NAMES = (
    "a $x$ b",
    "$\\frac{$",
    '<b>bold</b> & "more"',
    "_first",
    "x\x00\x1b[31my",
    "{0} %s \\n",
    "名前",
    "😀 run",
)


@pytest.mark.filterwarnings("ignore:Glyph .* missing")
@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_text_whatever_characters_it_has(run: Path, table: Path, name: str) -> None:
    rows = [
        {"run": name, "split": "test", "metric": "auroc", "label": label, "value": 0.5}
        for label in (name, "b")
    ]
    path = table.with_name("named.csv")
    results.append(path, rows)
    shown = style.plain(name)
    figure, _ = Bars(path).draw()
    assert legend_of(figure) == [shown] and shown in [
        text.get_text() for text in figure.axes[0].get_yticklabels()
    ]
    predictions = pd.read_csv(run / "predictions_test.csv").replace({"label": {"shock": name}})
    predictions.to_csv(run / "predictions_test.csv", index=False)
    figure, path = Roc(run, resamples=2).draw()
    assert any(text.startswith(f"{shown}: AUROC") for text in legend_of(figure))
    with mpl.rc_context({"svg.fonttype": "none"}):
        save(figure, path.with_suffix(".svg"))
    texts = "".join(ElementTree.parse(path.with_suffix(".svg")).getroot().itertext())
    assert f"{shown}: AUROC" in texts


def test_scores_labels_and_tasks_have_names_for_readers(run: Path) -> None:
    (run / "config.yaml").write_text("task: length-of-stay\n")
    draw = np.random.default_rng(0)
    truth, guess = draw.integers(0, 10, (60, 1)).astype(float), draw.random((60, 10))
    write_predictions(
        run / "predictions_val.csv", make_samples(truth), ["y_true"], guess / guess.sum(1)[:, None]
    )
    figure, _ = parse(Command, ["calibration", str(run), "--split", "val", "--label", "y_true[9]"]).draw()
    assert legend_of(figure) == ["14 days or more", "perfect calibration"]
    figure, _ = parse(Command, ["curves", str(run)]).draw()
    assert [axis.get_ylabel() for axis in figure.axes][-2:] == ["loss", "AUROC"]
    assert legend_of(figure) == ["training", "validation"]


def test_a_legend_covers_no_data(run: Path, table: Path) -> None:
    for words in (["roc", run, "--resamples", 2], ["calibration", run], ["bars", table], ["curves", run]):
        figure, _ = parse(Command, [*map(str, words)]).draw()
        figure.draw_without_rendering()
        legends = [*figure.legends, *(axis.get_legend() for axis in figure.axes if axis.get_legend())]
        boxes = [axis.get_window_extent() for axis in figure.axes]
        assert legends
        for legend in legends:
            covered = legend.get_window_extent()
            assert not any(covered.overlaps(box) for box in boxes), words
            assert covered.x0 >= 0 and covered.x1 <= figure.bbox.x1 and covered.y0 >= 0


def test_a_log_has_a_panel_for_each_term_and_the_learning_rate_comes_last() -> None:
    log = pd.DataFrame(columns=["epoch", "step", "lr", "train_loss", "val_loss", "auroc", "seconds"])
    panels = {"loss": ["train_loss", "val_loss"], "auroc": ["auroc"], "lr": ["lr"]}
    assert log_panels(log) == panels and list(log_panels(log)) == list(panels)


def test_epochs_have_a_panel_for_each_mean_score_and_a_record_of_their_data(tmp_path: Path) -> None:
    table = pd.DataFrame({"epoch": [2, 0, 1], "val_auroc": [0.6, 0.5, 0.7], "test_auroc": [0.9, 0.5, 0.4]})
    table = table.assign(**{"val_auroc[x]": 1.0})
    assert epoch_panels(table) == {"auroc": {"val": "val_auroc", "test": "test_auroc"}}
    table.to_csv(tmp_path / "results_label_x.csv", index=False)
    (tmp_path / "results_label_x.yaml").write_text("data: synthetic data\n")
    figure, path = parse(Command, ["epochs", str(tmp_path / "results_label_x.csv")]).draw()
    lines = {line.get_label(): line.get_xydata().tolist() for line in figure.axes[0].get_lines()}
    assert lines["validation"] == [[0, 0.5], [1, 0.7], [2, 0.6]] and lines["best: 1"][0][0] == 1
    assert "synthetic data" in figure.get_suptitle() and path == tmp_path / "results_label_x.png"


def known(run: Path, label: str) -> tuple[np.ndarray, np.ndarray]:
    rows = pd.read_csv(run / "predictions_test.csv").dropna()
    rows = rows[rows["label"] == label]
    return rows["truth"].to_numpy(), rows["probability"].to_numpy()


def curves_of(
    area_name: str, predictions: pd.DataFrame, resamples: int = 0, subject: str = "subject_id"
) -> CurveSet:
    draws = Resamples.of(predictions[subject].to_numpy(), resamples, seed=0)
    return compute_curves(area_name, predictions, draws)


def test_a_roc_curve_is_the_reference_with_its_area(run: Path) -> None:
    curves = curves_of("AUROC", PredictionSelection(run, label=("shock",)).read())
    truth, guess = known(run, "shock")
    false, true, _ = roc_curve(truth, guess, drop_intermediate=False)
    np.testing.assert_allclose(curves.curves["shock"], (false, true))
    np.testing.assert_allclose(curves.mean, np.interp(GRID, false, true))
    assert curves.areas == {"shock": pytest.approx(roc_auc_score(truth, guess))} and curves.band is None


def test_the_area_under_the_precision_curve_is_the_average_precision(run: Path) -> None:
    curves = curves_of("AUPRC", PredictionSelection(run, label=("shock",)).read())
    recall, precision = curves.curves["shock"]
    area = metrics.auprc(*known(run, "shock"))
    assert np.diff(recall) @ precision[1:] == pytest.approx(area) == curves.areas["shock"]
    assert recall[0] == 0 and precision[0] == precision[1]


@pytest.mark.parametrize("area_name", ["AUROC", "AUPRC"])
def test_a_band_is_of_curves_of_the_samples_that_were_drawn(run: Path, area_name: str) -> None:
    predictions = PredictionSelection(run).read()
    draws = Resamples.of(predictions["subject_id"].to_numpy(), 5, seed=0)
    means = []
    for number in range(5):
        counts = draws.counts(range(number, number + 1))[0][draws.subject]
        repeated = predictions.loc[np.repeat(predictions.index, counts)].reset_index(drop=True)
        means.append(curves_of(area_name, repeated).mean)
    band = curves_of(area_name, predictions, 5).band
    np.testing.assert_allclose(band, np.percentile(means, (2.5, 97.5), axis=0))


def test_the_band_surrounds_the_mean_curve_and_narrows_with_more_subjects(run: Path) -> None:
    predictions = PredictionSelection(run).read()
    more = [predictions.assign(subject_id=predictions["subject_id"] + 1000 * k) for k in range(9)]
    widths = []
    for table in (predictions, pd.concat(more, ignore_index=True)):
        curves = curves_of("AUROC", table, 40)
        low, high = curves.band
        assert (low[1:] <= curves.mean[1:] + 0.02).all() and (high >= curves.mean - 0.02).all()
        widths.append((high - low).mean())
    assert 2 * widths[1] < widths[0] < 0.5


def test_the_band_is_over_subjects(run: Path) -> None:
    predictions = PredictionSelection(run).read()
    over_subjects, over_stays = (
        curves_of("AUROC", predictions, 40, subject).band for subject in ("subject_id", "stay_id")
    )
    assert not np.array_equal(over_subjects, over_stays)
    figure, _ = parse(Command, ["roc", str(run), "--resamples", "3"]).draw()
    texts = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert "95 % band of the mean, over subjects" in texts


def test_a_label_of_one_class_has_no_curve(run: Path) -> None:
    predictions = PredictionSelection(run).read()
    predictions.loc[predictions["label"] == "shock", "truth"] = 1
    curves = curves_of("AUPRC", predictions)
    assert list(curves.curves) == ["sepsis", "fluid, other"] and curves.excluded == 1


def test_calibration_shows_fractions_in_equal_bins(run: Path) -> None:
    truth, guess = known(run, "sepsis")
    bins = reliability(PredictionSelection(run, label=("sepsis",)).read())
    for x, y in bins.to_numpy():
        inside = np.floor(guess * 10) == np.floor(x * 10)
        assert (guess[inside].mean(), truth[inside].mean()) == pytest.approx((x, y))


def test_bars_and_heatmaps_show_the_latest_scores(table: Path) -> None:
    results.append(
        table, [{"run": "third", "split": "test", "metric": "auroc", "label": "shock", "value": 1}]
    )
    scores = Bars(table).read()
    values, low, high = (by_label_and_run(scores, column) for column in ("value", "low", "high"))
    assert list(values.index) == list(LABELS) and list(values.columns) == ["mine", "other", "third"]
    np.testing.assert_allclose(values[["mine", "other"]].T, [[0.6, 0.65, 0.7], [0.7, 0.75, 0.8]])
    np.testing.assert_equal(values["third"].to_numpy(), [np.nan, 1, np.nan])
    np.testing.assert_allclose((low["mine"], high["mine"]), [[0.55, 0.6, 0.65], [0.7, 0.75, 0.8]])
    assert low["other"].isna().all()
    only = by_label_and_run(Bars(table, run=("other",), label=("shock",)).read())
    assert only.to_dict() == {"other": {"shock": pytest.approx(0.75)}}


def test_runs_of_one_name_have_a_bar_each(table: Path) -> None:
    row = {"run": "again", "split": "test", "metric": "auroc", "label": "shock", "data": "synthetic X-rays"}
    results.append(table, [row | {"value": value, "started": f"2030-0{value}"} for value in (1, 2)])
    bars = Bars(table, run=("again",), label=("shock",))
    assert by_label_and_run(bars.read()).loc["shock"].to_dict() == {"again, 2030-01": 1, "again, 2030-02": 2}
    assert bars.title(bars.read()).splitlines() == [
        "phenotyping: AUROC, test",
        "real records with SYNTHETIC X-rays: these scores mean nothing clinically",
    ]


def legend_of(figure: Figure) -> list[str]:
    legends = [*figure.legends, *(axis.get_legend() for axis in figure.axes)]
    return [text.get_text() for legend in legends if legend for text in legend.get_texts()]


def test_bands_and_intervals_say_what_they_are_drawn_over(run: Path, table: Path) -> None:
    figure, _ = Bars(table).draw()
    assert legend_of(figure) == ["mine", "95 % interval, over subjects", "other"]
    figure, _ = Roc(run, resamples=5).draw()
    assert legend_of(figure).count("95 % band of the mean, over subjects") == 2
    figure, _ = Roc(run, label=("shock",), resamples=5).draw()
    assert legend_of(figure).count("95 % band of the curve, over subjects") == 2


def test_a_run_called_by_a_number_is_found(table: Path) -> None:
    results.append(table, [{"run": "001", "split": "test", "metric": "auroc", "label": "shock", "value": 1}])
    assert Bars(table, run=("001",)).read()["run"].tolist() == ["001"]


def test_principal_components_keep_the_directions_of_largest_variance() -> None:
    embeddings = np.random.default_rng(0).normal(size=(50, 6)) * [9, 3, 0.1, 0.1, 0.1, 0.1]
    points = principal_components(embeddings)
    for axis in (0, 1):
        assert abs(np.corrcoef(points[:, axis], embeddings[:, axis])[0, 1]) > 0.99


def test_embeddings_before_and_after_are_coloured_by_one_label(run: Path) -> None:
    draw, before = np.random.default_rng(0), run.parent / "random"
    before.mkdir()
    truth = draw.integers(0, 2, (4000, 2)).astype(np.float32)
    truth[::9, 1] = np.nan
    for folder in (before, run):
        made = draw.normal(size=(4000, 3)).astype(np.float32)
        write_embeddings(folder / EMBEDDINGS, made, ("sepsis", "shock"), truth, seed=5)
    command = Embedding(run, label="shock", before=before)
    figure, path = command.draw()
    assert path == run / "embeddings_test_pca.png" and "synthetic data" in figure.get_suptitle()
    titles = [axis.get_title() for axis in figure.axes]
    assert titles == ["random: 3000 of 3000 samples", "mine: 3000 of 3000 samples"]
    masks = label_masks(command.project(run / EMBEDDINGS).labels)
    assert set(masks) == {"0", "1", "unknown"} and sum(mask.sum() for mask in masks.values()) == 3000
    assert 250 < masks["unknown"].sum() < 420
    with pytest.raises(ValueError, match="coloured by one label; choose --label from sepsis, shock"):
        Embedding(run).draw()


def test_neighbours_stay_together_in_t_sne() -> None:
    draw = np.random.default_rng(0)
    groups = np.arange(60) % 2
    points = tsne(draw.normal(size=(60, 5)) + 20 * groups[:, None], seed=0)
    middles = [points[groups == value].mean(axis=0) for value in (0, 1)]
    nearest = np.argmin([np.linalg.norm(points - middle, axis=1) for middle in middles], axis=0)
    assert np.array_equal(nearest, groups)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("curves nowhere", r"nowhere/log.csv is missing; give the folder"),
        ("roc {run} --split val", r"predictions_val.csv is missing; give the folder"),
        ("roc {run} --label fever", r"has no label fever; choose --label from sepsis, shock"),
        ("epochs {run}/predictions_test.csv", r"has no column epoch"),
        ("epochs {run}/lr.csv", r"lr.csv has no column val_...; give a results_label_<task>.csv of epoch_ev"),
        ("curves {run}/empty", r"log.csv has no rows yet"),
        ("bars {run}/log.csv", r"has no column run, task"),
        ("bars {table} --metric kappa", r"has no metric kappa; choose --metric from auroc"),
        ("bars {run}/picture.png", r"picture.png is not a table"),
        ("embedding {run}/log.csv", r"log.csv must be an .npz with embeddings"),
        ("embedding {run}", r"mine/embeddings_test.npz is missing; run_gpu.py --protocol lineareval"),
        ("embedding {run}/flat.npz", r"must be an .npz .*; it has \(3,\)"),
        ("embedding {run}/nan.npz", r"nan.npz: 1 numbers are not finite"),
        ("roc {run}/one --resamples 0", r"no label has both classes"),
    ],
)
def test_a_wrong_source_is_one_clear_error(run: Path, table: Path, words: str, message: str) -> None:
    for name in ("empty", "one"):
        (run / name).mkdir()
    (run / "empty" / "log.csv").write_text("epoch,loss\n")
    (run / "lr.csv").write_text("epoch,lr\n1,0.1\n")
    (run / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n\xff\xfe\n\x00")
    np.savez(run / "flat.npz", embeddings=np.zeros(3))
    np.savez(run / "nan.npz", embeddings=np.array([[0, 1], [2, np.nan]]))
    samples = make_samples(np.ones((2, 1)))
    write_predictions(run / "one" / "predictions_test.csv", samples, ["x"], np.full((2, 1), 0.5))
    with pytest.raises(ValueError, match=message):
        parse(Command, words.format(run=run, table=table).split()).draw()


def test_files_are_drawn_whatever_the_backend_of_a_notebook() -> None:
    notebook = os.environ | {"MPLBACKEND": "module://matplotlib_inline.backend_inline"}
    command = [
        sys.executable,
        "-c",
        "import evaluation.plots.figures, matplotlib as m; print(m.get_backend())",
    ]
    done = subprocess.run(command, cwd=ROOT, env=notebook, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "Agg\n", "")


def test_a_flag_of_another_figure_is_refused(run: Path) -> None:
    with pytest.raises(SystemExit, match="2"):
        parse(Command, ["curves", str(run), "--label", "x"])
