"""X-rays: times, links to stays, and files that cannot be used."""

import io
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image
from tqdm import tqdm

from datasets import cxr
from datasets.augment import Geometry, Views, centre_view, compose, warp
from datasets.cxr import cache_images, image_path, link_images, read_image, study_time
from datasets.image_batch import ImageBatch
from datasets.pixels import PackedImages
from datasets.raw.reading import read_table
from tests.raw_tables import CXR_COLUMNS, write_mimic_cxr, write_table

STAYS = pl.DataFrame(
    {
        "stay_row": [0, 1], "subject_id": [1, 1], "stay_id": [111, 112], "los_hours": [24.0, 10.0],
        "intime": ["2150-01-01 00:00:00", "2150-03-01 12:00:00"],
    }
).with_columns(pl.col("intime").str.to_datetime(time_unit="us"))  # fmt: skip


def image(dicom: str, date: int, time: float, study: int = 7, view: str = "AP", subject: int = 1) -> dict:
    ids = {"dicom_id": dicom, "subject_id": subject, "study_id": study}
    return ids | {"ViewPosition": view, "StudyDate": date, "StudyTime": time}


def linked(folder: Path, metadata: list[dict], chexpert: list[dict] | None = None) -> pl.DataFrame:
    findings = [{"subject_id": 1, "study_id": 7, "Edema": 1.0}] if chexpert is None else chexpert
    root = write_mimic_cxr(folder, metadata, findings)
    return link_images(read_table(root, "metadata"), read_table(root, "chexpert"), STAYS, ("AP",))


@pytest.mark.parametrize(
    ("time", "text"),
    [
        (2959.812, "00:29:59.812"),
        (0.0, "00:00:00"),
        (235959.0, "23:59:59"),
        (93005.5, "09:30:05.500"),
        (93005.1236, "09:30:05.124"),
        (7.0, "00:00:07"),
        (59.9994, "00:00:59.999"),
        (59.9995, "00:01:00"),
        (95959.9996, "10:00:00"),
        (235958.9999, "23:59:59"),
        (93005.9995, "09:30:06"),
    ],
)
def test_leading_zeros_of_a_time_come_back(time: float, text: str) -> None:
    times = pl.DataFrame({"StudyDate": [21500131], "StudyTime": [time]}).select(study_time())
    assert str(times["time"][0]).startswith(f"2150-01-31 {text}")


def test_a_time_that_rounds_to_midnight_is_of_the_next_day() -> None:
    last = pl.DataFrame({"StudyDate": [21500131], "StudyTime": [235959.9996]})
    assert str(last.select(study_time())["time"][0]) == "2150-02-01 00:00:00"


@pytest.mark.parametrize(
    ("date", "time"),
    [
        *((date, 0.0) for date in (21501331, 500131, 99999999, 0, -1)),
        *((21500131, time) for time in (240000.0, 126000.0, 120060.0, 246000.0, -1.0)),
    ],
)
def test_an_impossible_time_is_missing(date: int, time: float) -> None:
    assert (
        pl.DataFrame({"StudyDate": [date], "StudyTime": [time]}).select(study_time())["time"].is_null().all()
    )


def test_an_image_belongs_to_the_stay_in_which_it_was_taken(tmp_path: Path) -> None:
    rows = [
        image("before", 21491231, 235959.0), image("start", 21500101, 0.0), image("late", 21500102, 0.0),
        image("after", 21500102, 1.0), image("second", 21500301, 130000.0),
        image("side", 21500101, 1.0, view="LATERAL"),
    ]  # fmt: skip
    images = linked(tmp_path, rows)
    assert images["dicom_id"].to_list() == ["start", "late", "second"]
    assert images["stay_row"].to_list() == [0, 0, 1]
    assert images["hours"].to_list() == [0.0, 24.0, 1.0]


def test_images_of_one_hour_stand_by_study_and_name_and_each_once(tmp_path: Path) -> None:
    rows = [image(name, 21500101, 0.0, study) for name, study in (("c", 7), ("d", 7), ("a", 8), ("b", 8))]
    labelled = [{"subject_id": 1, "study_id": s, "Edema": value} for s, value in ((8, 1.0), (7, 0.0))]
    images = linked(tmp_path, rows[::-1], labelled)
    assert images["dicom_id"].to_list() == ["c", "d", "a", "b"]
    assert images["Edema"].to_list() == [0.0, 0.0, 1.0, 1.0]
    assert images["view"].to_list() == ["AP"] * 4


def test_an_image_of_another_subject_is_nobodys(tmp_path: Path) -> None:
    findings = [{"subject_id": subject, "study_id": 7} for subject in (1, 2)]
    assert linked(tmp_path, [image("a", 21500101, 0.0, subject=2)], findings).is_empty()


def test_an_image_without_findings_is_left_out(tmp_path: Path) -> None:
    assert linked(tmp_path, [image("a", 21500101, 0.0, study=8)]).is_empty()


def test_findings_keep_missing_and_uncertain_apart(tmp_path: Path) -> None:
    images = linked(tmp_path, [image("a", 21500101, 0.0)], [{"subject_id": 1, "study_id": 7, "Edema": -1.0}])
    assert images["Edema"].item() == -1 and images["Pneumonia"].item() is None


@pytest.mark.parametrize(
    ("metadata", "findings", "fault"),
    [
        ([image("a", 21500101, 0.0)] * 2, [], "metadata: dicom_id a is in 2 rows"),
        ([image("", 21500101, 0.0)], [], "metadata: 1 rows have no dicom_id"),
        ([image("../../a", 21500101, 0.0)], [], "metadata: 1 dicom_id are not file names .*study 7"),
        ([image("/etc/a", 21500101, 0.0)], [], "metadata: 1 dicom_id are not file names"),
        ([], [{"subject_id": 1, "study_id": 7}] * 2, "chexpert: study_id 7 is in 2 rows"),
        (
            [],
            [{"subject_id": 1, "study_id": 7, "Edema": 2.0}],
            "chexpert: Edema must be 1, 0, -1 or empty.*study 7",
        ),
        ([], [{"subject_id": 1, "study_id": 7, "Edema": "inf"}], "chexpert: Edema must be 1, 0, -1 or empty"),
    ],
)
def test_tables_of_another_kind_are_refused_with_the_study(
    tmp_path: Path, metadata: list[dict], findings: list[dict], fault: str
) -> None:
    (tmp_path / "outside").mkdir()
    for name, rows in (("metadata", metadata), ("chexpert", findings)):
        header = CXR_COLUMNS[f"mimic-cxr-2.0.0-{name}"].split(",")
        write_table(tmp_path / f"mimic-cxr-2.0.0-{name}.csv.gz", header, rows)
    with pytest.raises(ValueError, match=fault):
        link_images(read_table(tmp_path, "metadata"), read_table(tmp_path, "chexpert"), STAYS, ("AP",))


@pytest.mark.parametrize("time", [np.nan, np.inf, -np.inf, 1e300, -1.0, None])
def test_a_time_that_is_no_number_of_a_clock_is_missing(time: float | None) -> None:
    study = pl.DataFrame(
        {"StudyDate": [21500131], "StudyTime": [time]}, schema_overrides={"StudyTime": pl.Float64}
    )
    assert study.select(study_time())["time"].item() is None


def test_a_finding_that_is_not_a_number_is_missing(tmp_path: Path) -> None:
    images = linked(tmp_path, [image("a", 21500101, 0.0)], [{"subject_id": 1, "study_id": 7, "Edema": "NaN"}])
    assert images["Edema"].item() is None


def test_a_jpeg_whose_end_is_missing_is_not_filled_up(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (300, 400), np.uint8)).save(path)
    good = path.read_bytes()
    frame = good.index(b"\xff\xc0")
    wide = good[: frame + 5] + (13_000).to_bytes(2, "big") * 2 + good[frame + 9 :]
    for content in (good[:-2] + bytes(2), good[:-200] + bytes(200), good[:-2] + bytes(5000), wide):
        path.write_bytes(content)
        assert isinstance(read_image(path), str)


def damaged(folder: Path) -> dict[str, Path]:
    """A file of each kind that is no usable radiograph."""
    good = folder / "good.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (300, 400), np.uint8)).save(good)
    (folder / "truncated.jpg").write_bytes(good.read_bytes()[:2000])
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "text.jpg").write_text("not an image")
    Image.new("L", (1, 1)).save(folder / "tiny.jpg")
    Image.new("L", (300, 300)).save(folder / "gif.jpg", format="GIF")
    return {name: folder / f"{name}.jpg" for name in ("truncated", "empty", "text", "tiny", "gif", "missing")}


def test_an_unusable_image_gives_a_reason_and_never_pixels(tmp_path: Path) -> None:
    reasons = {name: read_image(path) for name, path in damaged(tmp_path).items()}
    assert all(isinstance(reason, str) for reason in reasons.values())
    assert reasons["missing"] == "missing" and reasons["tiny"] == "only 1x1 pixels"
    assert str(tmp_path) not in "".join(reasons.values())
    assert reasons["text"] == "unreadable: cannot identify image file 'text.jpg'"
    assert reasons["truncated"].startswith("unreadable: image file is truncated")


def test_the_smallest_image_has_64_pixels_a_side(tmp_path: Path) -> None:
    for size in ((64, 80), (63, 80)):
        Image.new("L", size).save(tmp_path / f"{size[0]}.jpg")
    assert isinstance(read_image(tmp_path / "64.jpg"), np.ndarray)
    assert read_image(tmp_path / "63.jpg") == "only 63x80 pixels"


def test_resizing_adds_no_halo_to_an_edge(tmp_path: Path) -> None:
    edge = np.full((320, 320), 100, np.uint8)
    edge[:, 160:] = 150  # the blocks of a JPEG are 8 pixels wide: each of these has one grey
    Image.fromarray(edge).save(tmp_path / "edge.jpg", quality=100)
    pixels = read_image(tmp_path / "edge.jpg")
    assert pixels.min() == 100 and pixels.max() == 150


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_a_jpeg_of_any_mode_becomes_grey(tmp_path: Path, mode: str) -> None:
    ramp = np.linspace(0, 255, 1024, dtype=np.uint8)[None].repeat(768, 0)
    Image.fromarray(ramp).convert(mode).save(tmp_path / "a.jpg", quality=95)
    pixels = read_image(tmp_path / "a.jpg")
    assert isinstance(pixels, np.ndarray) and pixels.shape == (256, 341) and pixels.dtype == np.uint8
    wanted = np.linspace(0, 255, 341)[None].repeat(256, 0)
    assert np.abs(pixels.astype(float) - wanted).mean() < 4


def test_the_cache_keeps_good_images_in_order_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    rows = [image(f"d{i:03d}", 21500101, float(i)) for i in range(40)]
    images = linked(tmp_path, rows)
    for broken in (3, 39):
        image_path(tmp_path, 1, 7, f"d{broken:03d}").write_bytes(b"broken")
    parts, reasons = cache_images(images, tmp_path, tmp_path / "parts")
    pixels = np.concatenate(list(parts))
    assert [i for i, reason in enumerate(reasons) if isinstance(reason, str)] == [3, 39]
    kept = [50 + i for i in range(40) if i not in (3, 39)]
    shapes = np.array([shape for shape in reasons if not isinstance(shape, str)])
    packed = PackedImages(pixels, shapes[:, 0], shapes[:, 1], 256)
    np.testing.assert_allclose([packed[row][128, 128] for row in range(38)], kept, atol=2)
    for path in (tmp_path / "files").rglob("*.jpg"):
        path.unlink()
    again, reasons_again = cache_images(images, tmp_path, tmp_path / "parts")
    assert reasons_again == reasons and (np.concatenate(list(again)) == pixels).all()


@pytest.mark.parametrize("left", [".npy", ".json"])
def test_a_cache_that_was_killed_while_it_was_removed_is_made_again(tmp_path: Path, left: str) -> None:
    images = linked(tmp_path, [image(f"d{i}", 21500101, float(i)) for i in range(3)])
    parts, reasons = cache_images(images, tmp_path, tmp_path / "parts")
    pixels = np.concatenate(list(parts))
    for path in (tmp_path / "parts").iterdir():
        if path.suffix != left:
            path.unlink()
    again, reasons_again = cache_images(images, tmp_path, tmp_path / "parts")
    assert reasons_again == reasons and (np.concatenate(list(again)) == pixels).all()


def test_parts_have_their_share_of_images_and_the_bar_counts_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bars = []

    def bar(**about: object) -> tqdm:
        bars.append(tqdm(**about | {"disable": False, "file": io.StringIO()}))
        return bars[-1]

    monkeypatch.setattr(cxr, "IMAGES_PER_PART", 4)
    monkeypatch.setattr(cxr, "tqdm", bar)
    images = linked(tmp_path, [image(f"d{i}", 21500101, float(i)) for i in range(10)])
    for broken in (1, 4, 5, 6, 7):
        image_path(tmp_path, 1, 7, f"d{broken}").write_bytes(b"broken")
    parts, reasons = cache_images(images, tmp_path, tmp_path / "new" / "parts")
    assert [len(part) / 256**2 for part in parts] == [3, 0, 2]
    assert [reason == (256, 256) for reason in reasons] == [i not in (1, 4, 5, 6, 7) for i in range(10)]
    assert [(bar.total, bar.n) for bar in bars] == [(10, 10)]


def film(height: int, width: int, bright: float) -> np.ndarray:
    """A texture with much fine structure, and a circle in the middle that is brighter, uint8."""
    rng = np.random.default_rng(0)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    spectrum = np.fft.rfft2(rng.standard_normal((height, width))) / np.maximum(frequency, 1 / width)
    texture = np.fft.irfft2(spectrum, (height, width))
    y, x = np.arange(height)[:, None] - height / 2, np.arange(width)[None] - width / 2
    circle = np.hypot(x, y) < 0.3 * min(height, width)
    return np.clip(90 + 30 * texture / texture.std() + bright * circle, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("side", [256, 384])
def test_sharpness_does_not_jump_where_a_side_passes_a_power_of_two(tmp_path: Path, side: int) -> None:
    whole = Image.fromarray(film(2048, 2048, 0))
    deviations = []
    for length in (2047, 2048):
        path = tmp_path / f"{length}.jpg"
        whole.resize((length, length), Image.Resampling.LANCZOS).save(path, quality=88)
        pixels = read_image(path, side)
        assert isinstance(pixels, np.ndarray) and pixels.shape == (side, side)
        view = centre_view(ImageBatch.of(torch.from_numpy(pixels.copy())[None]), 224)
        deviations.append((view.std().item(), view.diff().std().item()))
    (before, fine_before), (after, fine_after) = deviations
    assert after == pytest.approx(before, rel=0.02)
    assert fine_after == pytest.approx(fine_before, rel=0.05)  # 14 % apart if resized bilinearly


def test_a_circle_in_a_film_is_a_circle_in_the_view(tmp_path: Path) -> None:
    path = tmp_path / "film.jpg"
    Image.fromarray(film(3056, 2544, 100)).save(path, quality=88)
    pixels = read_image(path)
    assert isinstance(pixels, np.ndarray) and pixels.shape == (308, 256)
    images = ImageBatch.of(torch.from_numpy(pixels.copy())[None])
    for square, ratio in ((False, 1.0), (True, 256 / 308)):
        bright = centre_view(images, 224, square=square)[0, 0] > 150 / 255
        down, across = (int(bright.float().mean(axis).gt(0.05).sum()) for axis in (1, 0))
        assert down / across == pytest.approx(ratio, abs=0.02)
    ones, nothing = np.ones(1), np.zeros(1)
    turned = Geometry(np.radians(30) * ones, nothing, ones, nothing[None], 0.875 * ones, nothing[None], ones)
    plain = np.ones(1, np.float32)
    view = warp(images, Views(compose(turned, images.aspect), plain, plain, plain > 0), 224)[0, 0] > 150 / 255
    down, across = (int(view.float().mean(axis).gt(0.05).sum()) for axis in (1, 0))
    assert down / across == pytest.approx(1, abs=0.02)


def test_an_extremely_long_image_keeps_its_shape_too(tmp_path: Path) -> None:
    Image.new("L", (64, 1600)).save(tmp_path / "long.jpg")
    pixels = read_image(tmp_path / "long.jpg", 100)
    assert isinstance(pixels, np.ndarray) and pixels.shape == (400, 16)
