"""Faulty X-rays: a bad one is rejected and listed; a harmless one is read correctly."""

import io
import shutil
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from datasets.cxr import image_path
from datasets.store import Store
from tests.fuzz.cases import CORRECT, Failure, Fault, Workspace, check_result, pick
from tests.fuzz.tables import contents, extract, put, read_clean
from tests.random_cohort import random_cohort

SIZE = (300, 260)
MAX_DIFFERENCE = 4.0  # mean difference in grey levels that another encoding may make


def picture(number: int) -> Image.Image:
    """A smooth picture that differs from those of other numbers."""
    rough = np.random.default_rng(number).integers(0, 256, (7, 6), np.uint8)
    return Image.fromarray(rough).resize(SIZE, Image.Resampling.BICUBIC)


def jpeg(image: Image.Image, **options: object) -> bytes:
    """A picture as a JPEG file."""
    file = io.BytesIO()
    image.save(file, "JPEG", **{"quality": 95, **options})
    return file.getvalue()


def frame_header(content: bytes) -> int:
    """Position of the start of frame; precision, height and width are 4, 5 and 7 bytes after it."""
    positions = (content.find(marker) for marker in (b"\xff\xc0", b"\xff\xc2"))
    return min(position for position in positions if position > 0)


def claiming(content: bytes, width: int, height: int, precision: int = 8) -> bytes:
    """A JPEG whose header claims another size."""
    start = frame_header(content)
    return content[: start + 4] + struct.pack(">BHH", precision, height, width) + content[start + 9 :]


def as_format(image: Image.Image, name: str) -> bytes:
    """A picture as a file of another format."""
    file = io.BytesIO()
    image.save(file, name)
    return file.getvalue()


def sixteen_bits(draw: np.random.Generator, image: Image.Image) -> bytes:
    deep = Image.fromarray(np.asarray(image).astype(np.uint16) * 257)
    return as_format(deep, pick(draw, ("PNG", "TIFF")))


def cut(draw: np.random.Generator, image: Image.Image) -> bytes:
    content = jpeg(image, progressive=bool(draw.integers(2)))
    return content[: draw.integers(1, len(content))]


def nulls_at_the_end(draw: np.random.Generator, image: Image.Image) -> bytes:
    content = jpeg(image)
    length = int(draw.integers(2, len(content)))
    return content[:-length] + b"\0" * length


def junk_after_the_start(draw: np.random.Generator, image: Image.Image) -> bytes:
    return b"\xff\xd8\xff\xe0" + draw.bytes(int(draw.integers(10, 4000))) + b"\xff\xd9"


def small(draw: np.random.Generator, image: Image.Image) -> bytes:
    return jpeg(image.resize((int(draw.integers(1, 64)), int(draw.integers(1, 400)))))


def huge(draw: np.random.Generator, image: Image.Image) -> bytes:
    return claiming(
        jpeg(image), *pick(draw, ((20_000, 20_000), (65_000, 65_000), (13_000, 13_000), (65_500, 300)))
    )


BAD: dict[str, Callable[[np.random.Generator, Image.Image], bytes]] = {
    "truncated": cut,
    "empty": lambda draw, image: b"",
    "all zero bytes": lambda draw, image: bytes(len(jpeg(image))),
    "zero bytes at the end": nulls_at_the_end,
    "16-bit": sixteen_bits,
    "12-bit precision claimed": lambda draw, image: claiming(jpeg(image), *SIZE, precision=12),
    "1x1 to 63 wide": small,
    "20000x20000 and the like claimed": huge,
    "no size claimed": lambda draw, image: claiming(jpeg(image), *pick(draw, ((0, 300), (300, 0), (0, 0)))),
    "another format": lambda draw, image: as_format(image, pick(draw, ("GIF", "BMP", "WEBP"))),
    "not an image": lambda draw, image: pick(
        draw, (b"<html>403</html>", draw.bytes(500), b"\xff\xd8\xff\xd9")
    ),
    "junk after the start": junk_after_the_start,
}
HARMLESS: dict[str, Callable[[np.random.Generator, Image.Image], bytes]] = {
    "PNG": lambda draw, image: as_format(image.convert(pick(draw, ("L", "RGB", "RGBA", "P"))), "PNG"),
    "CMYK": lambda draw, image: jpeg(image.convert("CMYK")),
    "colour": lambda draw, image: jpeg(image.convert("RGB")),
    "progressive": lambda draw, image: jpeg(image, progressive=True),
    "other quality": lambda draw, image: jpeg(image, quality=int(draw.integers(80, 101)), optimize=True),
    "comment": lambda draw, image: jpeg(image, comment=b"x" * int(draw.integers(1, 60_000))),
}


def cohort(workspace: Workspace) -> Path:
    """A clean cohort whose X-rays differ from each other."""
    folder = workspace.shared / "pictures"
    if not folder.exists():
        random_cohort(1, 2).write(folder)
        for number, path in enumerate(sorted(folder.rglob("*.jpg"))):
            path.write_bytes(jpeg(picture(number)))
    return folder


def changed(workspace: Workspace, draw: np.random.Generator) -> tuple[Path, Path, str, Image.Image]:
    """A copy of the cohort, the path of one of its X-rays, its dicom_id, and its picture."""
    copy = Path(shutil.copytree(cohort(workspace), workspace.folder / "raw"))
    table = read_clean(copy, "metadata")
    row = int(draw.integers(len(table.rows)))
    ids = (int(table.cell(row, "subject_id")), int(table.cell(row, "study_id")), table.cell(row, "dicom_id"))
    path = image_path(copy / "cxr", *ids)
    return copy, path, ids[2], picture(sorted(copy.rglob("*.jpg")).index(path))


def store_without(workspace: Workspace, dicom_id: str = "") -> Path:
    """The store of the clean cohort, or of one whose metadata do not have an image."""
    store = workspace.shared / f"store-{dicom_id}"
    if not store.exists():
        copy = Path(shutil.copytree(cohort(workspace), workspace.folder / f"right-{dicom_id}"))
        table = read_clean(copy, "metadata")
        removed = [row for row in range(len(table.rows)) if table.cell(row, "dicom_id") == dicom_id]
        put(copy, "metadata", table.without(*removed).content(), ".csv")
        if (done := extract(copy, store)).status:
            raise Failure(f"the clean cohort is refused: {done.errors}")
    return store


def attempt_bad(spoil: Callable[[Path], None], draw: np.random.Generator, workspace: Workspace) -> str:
    """A bad image must change nothing else in the store, and be listed if it belongs to a stay."""
    copy, path, dicom_id, _ = changed(workspace, draw)
    spoil(path)
    done = extract(copy, workspace.folder / "store")
    right = contents(store_without(workspace, dicom_id))
    end = check_result(done, lambda: contents(workspace.folder / "store"), [right], [dicom_id], error=False)
    wanted = [dicom_id] if right != contents(store_without(workspace)) else []
    listed = pd.read_csv(workspace.folder / "store" / "cxr_rejected.csv")
    if listed["dicom_id"].tolist() != wanted or listed["reason"].isna().any():
        raise Failure(f"cxr_rejected.csv should list {wanted}, but has {listed.to_dict('records')}")
    return end


def attempt_harmless(
    make: Callable[[np.random.Generator, Image.Image], bytes], draw: np.random.Generator, workspace: Workspace
) -> str:
    """An unusual image must give the same pixels, except for what its encoding loses."""
    copy, path, dicom_id, image = changed(workspace, draw)
    path.write_bytes(make(draw, image))
    done = extract(copy, workspace.folder / "store")
    clean, store = store_without(workspace), workspace.folder / "store"
    check_result(done, lambda: _other_files(store), [_other_files(clean)], [dicom_id], error=False)
    images = [Store.open_without_samples(folder).cxr for folder in (clean, store)]
    pairs = ((part[row].astype(float) for part in images) for row in range(len(images[0])))
    difference = max((np.abs(before - after).mean() for before, after in pairs), default=0)
    if difference > MAX_DIFFERENCE:
        raise Failure(f"{dicom_id}: pixels differ by {difference:.1f} grey levels on average")
    return CORRECT


def _other_files(store: Path) -> dict[str, str]:
    return {name: digest for name, digest in contents(store).items() if name != "cxr.npy"}


def missing(path: Path) -> None:
    """No file."""
    path.unlink()


def folder(path: Path) -> None:
    """A folder of that name."""
    path.unlink()
    path.mkdir()


def link_to_nowhere(path: Path) -> None:
    """A link that leads nowhere."""
    path.unlink()
    path.symlink_to(path.with_name("nowhere.jpg"))


def attempt_content(
    make: Callable[[np.random.Generator, Image.Image], bytes], draw: np.random.Generator, workspace: Workspace
) -> str:
    """Replace an image by a bad file."""
    content = make(draw, picture(int(draw.integers(1000))))
    return attempt_bad(lambda path: path.write_bytes(content) and None, draw, workspace)


def faults() -> list[Fault]:
    """All kinds of faulty images."""
    bad = [Fault("images", name, partial(attempt_content, make)) for name, make in BAD.items()]
    replaced = {"missing": missing, "folder in its place": folder, "link to nowhere": link_to_nowhere}
    bad += [Fault("images", name, partial(attempt_bad, spoil)) for name, spoil in replaced.items()]
    return bad + [Fault("images", name, partial(attempt_harmless, make)) for name, make in HARMLESS.items()]
