"""Figures show the numbers of their sources, are whole PNG files, and refuse what is none of theirs."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from sklearn.metrics import roc_auc_score, roc_curve

from evaluation import metrics, plots, results
from evaluation.plots import PlotsConfig
from utils.config import parse

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
    results.write_predictions(folder / "predictions_test.csv", stays, stays, LABELS, truth, guess)
    (folder / "config.yaml").write_text(yaml.safe_dump({"data": {"store": str(store_of(tmp_path / "a", 1))}}))
    return folder


def store_of(folder: Path, stays_a_subject: int) -> Path:
    """What a store says of the subjects of 100 stays."""
    folder.mkdir()
    stays = np.arange(100)
    table = pd.DataFrame({"stay_id": stays, "subject_id": stays // stays_a_subject})
    table.to_parquet(folder / "stays.parquet")
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


def config(*words: str | Path) -> PlotsConfig:
    return parse(PlotsConfig, [*map(str, words)])


def drawn(*words: str | Path) -> tuple[Figure, Path]:
    """The figure that a command line asks for, and where it would go."""
    asked = config(*words)
    plots.check(asked)
    return plots.DRAWINGS[asked.figure](asked)


def lines(axis: Axes) -> dict[str, np.ndarray]:
    """{label: [n, 2]} of the lines that a legend names."""
    return {line.get_label(): line.get_xydata() for line in axis.get_lines() if line.get_label()[0] != "_"}


def test_every_figure_is_a_png_beside_its_source(
    run: Path, table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    epochs, arrays = run / "results_label_x.csv", run / "features.npz"
    pd.DataFrame({"epoch": [0, 1], "val_auroc": [0.5, 0.6], "test_auroc": [0.4, 0.5]}).to_csv(epochs)
    np.savez(arrays, embeddings=np.random.default_rng(0).normal(size=(30, 4)))
    asked = {
        ("curves", run): run / "curves.png",
        ("epochs", epochs): run / "results_label_x.png",
        ("roc", run, "--resamples", "3"): run / "roc_test.png",
        ("calibration", run): run / "calibration_test.png",
        ("bars", table): table.parent / "phenotyping_bars_auroc.png",
        ("heat", table): table.parent / "phenotyping_heat_auroc.png",
        ("map", arrays): run / "features_pca.png",
        ("map", arrays, "--tsne"): run / "features_tsne.png",
    }
    assert {words[0] for words in asked} == set(plots.DRAWINGS)
    for words, path in asked.items():
        plots.main(config(*words))
        assert capsys.readouterr().out.strip() == str(path)
        with Image.open(path) as image:
            image.verify()
            assert image.format == "PNG" and min(image.size) > 300
    assert not list(run.parent.rglob("*.partial"))


def test_synthetic_data_are_called_so_in_every_title(run: Path, table: Path) -> None:
    np.savez(run / "a.npz", embeddings=np.eye(4))
    told = ("--save_dir", run.parent)
    asked = [("curves", run), ("roc", run), ("calibration", run), ("map", run / "a.npz")]
    for words in (*asked, ("bars", table, *told), ("heat", table, *told)):
        figure, _ = drawn(*words)
        assert "synthetic data" in figure.get_suptitle(), words
    (run / "environment.yaml").write_text("commit: abc\n")
    assert drawn("curves", run)[0].get_suptitle() == "mine"


def test_curves_show_the_log_a_panel_a_term(run: Path) -> None:
    log = pd.read_csv(run / "log.csv").drop(columns="Unnamed: 0")
    figure = plots.draw_curves(log, "")
    assert [axis.get_ylabel() for axis in figure.axes] == ["loss", "auroc"]
    loss = lines(figure.axes[0])
    assert set(loss) == {"train_loss", "val_loss"}
    for name, found in loss.items():
        assert np.array_equal(found, log[["epoch", name]])


def test_epochs_show_each_split_and_mark_the_best_validation_epoch(tmp_path: Path) -> None:
    table = pd.DataFrame({"epoch": [2, 0, 1], "val_auroc": [0.6, 0.5, 0.7], "test_auroc": [0.9, 0.5, 0.4]})
    table.assign(**{"val_auroc[x]": 1.0}).to_csv(tmp_path / "results_label_x.csv", index=False)
    (tmp_path / "results_label_x.yaml").write_text("data: synthetic data\n")
    figure, path = drawn("epochs", tmp_path / "results_label_x.csv")
    (axis,) = figure.axes
    found = lines(axis)
    assert set(found) == {"val", "test", "best: 1"}
    assert found["val"].tolist() == [[0, 0.5], [1, 0.7], [2, 0.6]] and found["best: 1"][0, 0] == 1
    assert "synthetic data" in figure.get_suptitle() and path == tmp_path / "results_label_x.png"


def known(run: Path, label: str) -> tuple[np.ndarray, np.ndarray]:
    table = pd.read_csv(run / "predictions_test.csv").dropna()
    part = table[table["label"] == label]
    return part["truth"].to_numpy(), part["probability"].to_numpy()


def test_a_roc_curve_is_the_reference_and_its_legend_the_area(run: Path) -> None:
    figure, _ = drawn("roc", run, "--label", "shock", "--resamples", "0")
    truth, guess = known(run, "shock")
    curve = lines(figure.axes[0])[f"shock: AUROC {roc_auc_score(truth, guess):.3f}"]
    false, true, _ = roc_curve(truth, guess, drop_intermediate=False)
    assert np.allclose(curve, np.stack([false, true], axis=1))


def test_the_area_under_the_drawn_precision_is_the_average_precision(run: Path) -> None:
    figure, _ = drawn("roc", run, "--label", "shock", "--resamples", "0")
    expected = metrics.auprc(*known(run, "shock"))
    recall, precision = lines(figure.axes[1])[f"shock: AUPRC {expected:.3f}"].T
    assert np.diff(recall) @ precision[1:] == pytest.approx(expected)
    (line,) = (line for line in figure.axes[1].get_lines() if line.get_label()[0] != "_")
    assert line.get_drawstyle() == "steps-pre"


def band(figure: Figure) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper end [101] of the band around a mean ROC curve."""
    found = figure.axes[0].collections[0].get_paths()[0].vertices
    low, high = (np.array([f(found[np.isclose(found[:, 0], x), 1]) for x in plots.GRID]) for f in (min, max))
    return low, high


def test_the_band_surrounds_the_mean_curve_and_narrows_with_more_subjects(run: Path) -> None:
    table = pd.read_csv(run / "predictions_test.csv").dropna()
    more = pd.concat([table.assign(stay_id=table["stay_id"] + 1000 * k) for k in range(9)], ignore_index=True)
    widths = []
    for predictions in (table.reset_index(drop=True), more):
        figure = plots.draw_roc(predictions.assign(subject_id=predictions["stay_id"]), "", resamples=40)
        (mean,) = (f for name, f in lines(figure.axes[0]).items() if name.startswith("mean of 3 labels"))
        low, high = band(figure)
        assert (low[1:] <= mean[1:, 1] + 0.02).all() and (high >= mean[:, 1] - 0.02).all()
        widths.append((high - low).mean())
    assert 2 * widths[1] < widths[0] < 0.3


def test_the_band_is_over_the_subjects_of_the_store(run: Path, tmp_path: Path) -> None:
    few = store_of(tmp_path / "few", 20)
    own, given = (band(drawn("roc", run, *flags)[0]) for flags in ((), ("--store", few)))
    stays = pd.read_csv(run / "predictions_test.csv").dropna(ignore_index=True)
    for found, size in ((own, 1), (given, 20)):
        subjects = stays.assign(subject_id=stays["stay_id"] // size)
        assert np.array_equal(found, band(plots.draw_roc(subjects, "", resamples=200)))
    assert not np.array_equal(own, given)
    with pytest.raises(ValueError, match=r"nowhere/stays\.parquet is missing, which tells the subject"):
        drawn("roc", run, "--store", tmp_path / "nowhere")


def test_calibration_shows_shares_of_equal_bins(run: Path) -> None:
    figure, _ = drawn("calibration", run, "--label", "sepsis")
    truth, guess = known(run, "sepsis")
    for x, y in lines(figure.axes[0])["sepsis"]:
        inside = np.floor(guess * 10) == np.floor(x * 10)
        assert (guess[inside].mean(), truth[inside].mean()) == pytest.approx((x, y))
    assert sum(bar.get_height() for bar in figure.axes[1].patches) == len(truth)


def test_bars_are_the_latest_scores_with_their_intervals(table: Path) -> None:
    figure, _ = drawn("bars", table)
    (axis,) = figure.axes
    assert axis.containers[0].get_label() == "mine"
    assert [bar.get_width() for bar in axis.containers[0]] == pytest.approx([0.6, 0.65, 0.7])
    reach = axis.containers[1].lines[2][0].get_segments()
    assert np.allclose([segment[:, 0] for segment in reach], [[0.55, 0.7], [0.6, 0.75], [0.65, 0.8]])
    assert [text.get_text() for text in axis.get_yticklabels()] == list(LABELS)
    only, _ = drawn("bars", table, "--run", "other", "--label", "shock")
    assert [bar.get_width() for bar in only.axes[0].patches] == pytest.approx([0.75])


def test_the_bars_of_many_runs_differ_in_colour(table: Path) -> None:
    more = {"split": "test", "metric": "auroc", "label": "shock", "value": 0.5}
    results.append(table, [more | {"run": f"run{number}"} for number in range(15)])
    containers = drawn("bars", table, "--label", "shock")[0].axes[0].containers
    colors = {bars[0].get_facecolor() for bars in containers if bars.get_label()[0] != "_"}
    assert len(colors) == 17


def test_a_heat_map_has_a_cell_for_each_run_and_label(table: Path) -> None:
    results.append(
        table, [{"run": "third", "split": "test", "metric": "auroc", "label": "shock", "value": 1}]
    )
    axis = drawn("heat", table)[0].axes[0]
    cells = np.ma.filled(axis.get_images()[0].get_array().astype(float), np.nan).T
    assert np.allclose(cells[:2], [[0.6, 0.65, 0.7], [0.7, 0.75, 0.8]])
    assert cells[2, 1] == 1 and np.isnan(cells[2, [0, 2]]).all()
    assert [text.get_text() for text in axis.get_xticklabels()] == ["mine", "other", "third"]


def test_a_map_shows_the_main_components_by_label(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    embeddings = draw.normal(size=(50, 6)) * [9, 3, 0.1, 0.1, 0.1, 0.1]
    labels = np.arange(50) % 2
    np.savez(tmp_path / "a.npz", embeddings=embeddings, labels=labels)
    (axis,) = drawn("map", tmp_path / "a.npz")[0].axes
    shown = {dots.get_label(): dots.get_offsets() for dots in axis.collections}
    for value in (0, 1):
        centred = (embeddings - embeddings.mean(0))[labels == value]
        for axis_number in (0, 1):
            together = np.corrcoef(shown[str(value)][:, axis_number], centred[:, axis_number])[0, 1]
            assert abs(together) > 0.99


def test_embeddings_before_and_after_are_two_panels_coloured_by_one_label(run: Path) -> None:
    draw, before = np.random.default_rng(0), run.parent / "random"
    before.mkdir()
    truth = draw.integers(0, 2, (4000, 2)).astype(np.float32)
    truth[::9, 1] = np.nan
    for folder in (before, run):
        made = draw.normal(size=(4000, 3)).astype(np.float32)
        results.write_embeddings(folder / results.EMBEDDINGS, made, ("sepsis", "shock"), truth, seed=5)
    figure, path = drawn("map", run, "--before", before, "--label", "shock")
    assert path == run / "embeddings_test_pca.png" and "synthetic data" in figure.get_suptitle()
    titles = [axis.get_title() for axis in figure.axes]
    assert titles == ["random: 3000 of 3000 samples", "mine: 3000 of 3000 samples"]
    for axis in figure.axes:
        sizes = {dots.get_label(): len(dots.get_offsets()) for dots in axis.collections}
        assert set(sizes) == {"0", "1", "unknown"} and sum(sizes.values()) == 3000
        assert 250 < sizes["unknown"] < 420
    with pytest.raises(ValueError, match="coloured by one label; choose --label from sepsis, shock"):
        drawn("map", run)


def test_neighbours_stay_together_in_a_map() -> None:
    draw = np.random.default_rng(0)
    groups = np.arange(60) % 2
    points = plots.neighbour_map(draw.normal(size=(60, 5)) + 20 * groups[:, None], seed=0)
    middles = [points[groups == value].mean(axis=0) for value in (0, 1)]
    nearest = np.argmin([np.linalg.norm(points - middle, axis=1) for middle in middles], axis=0)
    assert np.array_equal(nearest, groups)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("curves nowhere", r"nowhere/log.csv: there is no such file"),
        ("roc {run} --split val", r"predictions_val.csv: there is no such file"),
        ("roc {run} --label fever", r"has no label fever; choose --label from sepsis, shock"),
        ("epochs {run}/log.csv --label x", r"epochs does not heed --label; leave it out"),
        ("epochs {run}/predictions_test.csv", r"has no column epoch"),
        ("curves {run}/empty", r"log.csv has no row yet"),
        ("bars {run}/log.csv", r"has no column run, task"),
        ("bars {table} --metric kappa", r"has no metric kappa; choose --metric from auroc"),
        ("bars {run}/picture.png", r"picture.png is not a table"),
        ("map {run}/log.csv", r"log.csv must be an .npz with embeddings"),
        ("map {run}", r"mine/embeddings_test.npz: there is no such file; run_gpu.py --protocol lineareval"),
        ("map {run}/flat.npz", r"must be an .npz .*; it has \(3,\)"),
        ("map {run}/nan.npz", r"nan.npz: 1 numbers are not finite"),
        ("roc {run}/one --resamples 0", r"every label has one class"),
    ],
)
def test_a_wrong_source_is_one_clear_error(run: Path, table: Path, words: str, message: str) -> None:
    for name in ("empty", "one"):
        (run / name).mkdir()
    (run / "empty" / "log.csv").write_text("epoch,loss\n")
    (run / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n\xff\xfe\n\x00")
    np.savez(run / "flat.npz", embeddings=np.zeros(3))
    np.savez(run / "nan.npz", embeddings=np.array([[0, 1], [2, np.nan]]))
    few = (np.arange(2), np.zeros(2), ["x"], np.ones((2, 1)), np.full((2, 1), 0.5))
    results.write_predictions(run / "one" / "predictions_test.csv", *few)
    with pytest.raises(ValueError, match=message):
        drawn(*words.format(run=run, table=table).split())
