"""Views against slow references, their ranges, and their independence of the batch they are in."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as reference

from datasets import augment
from datasets.augment import RANGES, Geometry, Views, compose, draw_geometry
from datasets.image_batch import ImageBatch, _copied, _gathered
from datasets.schema import IMAGE_SIZE

SIDE = IMAGE_SIZE
CROP = 224


def warp(images: Tensor, views: Views, size: int) -> Tensor:
    """Views of square images."""
    return augment.warp(ImageBatch.of(images), views, size)


def centre_view(images: Tensor, size: int) -> Tensor:
    """Central views of square images."""
    return augment.centre_view(ImageBatch.of(images), size)


def random_views(rng: np.random.Generator, count: int, transforms: str) -> Views:
    """Random views of square images."""
    return augment.random_views(rng, np.ones((count, 2)), transforms)


def noise(count: int, seed: int = 0) -> Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.integers(0, 256, (count, SIDE, SIDE), np.uint8))


def smooth(count: int) -> Tensor:
    """Images whose grey changes slowly, so that a hundredth of a pixel changes little."""
    y, x = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    waves = [127 + 100 * torch.sin(x / (20 + k)) * torch.cos(y / (25 + k)) for k in range(count)]
    return torch.stack(waves).round().to(torch.uint8)


def view(
    angle: float = 0,
    shear: float = 0,
    scale: float = 1,
    shift: tuple[float, float] = (0, 0),
    crop: float = 1,
    centre: tuple[float, float] = (0, 0),
    flip: float = 1,
    brightness: float = 1,
    contrast: float = 1,
    brightness_first: bool = True,
) -> Views:
    """One view of a square; angles in degrees, shift and centre in halves of its side."""
    numbers = [np.array([value], float) for value in (math.radians(angle), math.radians(shear), scale)]
    place = np.array([centre], float) / (1 - crop) if crop < 1 else np.zeros((1, 2))
    geometry = Geometry(*numbers, np.array([shift], float), np.array([crop]), place, np.array([flip]))
    jitter = (np.array([brightness], np.float32), np.array([contrast], np.float32))
    return Views(compose(geometry, np.ones((1, 2))), *jitter, np.array([brightness_first]))


def slow_pixel(image: np.ndarray, x: float, y: float) -> float:
    """Bilinear value at (x, y), where pixel k covers k to k + 1 and what is outside is black."""
    total, left, top = 0.0, math.floor(x - 0.5), math.floor(y - 0.5)
    for column in (left, left + 1):
        for row in (top, top + 1):
            weight = (1 - abs(x - 0.5 - column)) * (1 - abs(y - 0.5 - row))
            inside = 0 <= column < SIDE and 0 <= row < SIDE
            total += weight * float(image[row, column]) if inside else 0.0
    return total / 255


def slow_place(column: int, row: int, size: int, p: dict[str, float]) -> tuple[float, float]:
    """Where a pixel of the view lies in the image, one published step after another, in pixels."""
    if p["flip"] < 0:
        column = size - 1 - column
    side = p["crop"] * SIDE
    left, top = (p["left"] * (SIDE - side), p["top"] * (SIDE - side))
    x, y = left + (column + 0.5) * side / size, top + (row + 0.5) * side / size
    angle, shear = math.radians(p["angle"]), math.radians(p["shear"])
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    forward = p["scale"] * turn @ np.array([[1, -math.tan(shear)], [0, 1]])
    shift = np.array([p["right"], p["down"]]) * SIDE
    x, y = np.linalg.solve(forward, np.array([x, y]) - SIDE / 2 - shift) + SIDE / 2
    return float(x), float(y)


PARAMETERS = st.fixed_dictionaries(
    {
        "angle": st.floats(-45, 45), "shear": st.floats(-25, 25), "scale": st.floats(0.7, 1.5),
        "right": st.floats(-0.15, 0.15), "down": st.floats(-0.15, 0.15), "crop": st.floats(0.6, 1),
        "left": st.floats(0, 1), "top": st.floats(0, 1), "flip": st.sampled_from([-1.0, 1.0]),
    }
)  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(p=PARAMETERS, size=st.sampled_from([224, 192, 256]), seed=st.integers(0, 99))
def test_one_warp_is_affine_crop_resize_and_flip(p: dict[str, float], size: int, seed: int) -> None:
    image = smooth(1)
    centre = tuple((2 * p[name] - 1) * (1 - p["crop"]) for name in ("left", "top"))
    views = view(
        p["angle"], p["shear"], p["scale"], (2 * p["right"], 2 * p["down"]), p["crop"], centre, p["flip"]
    )
    seen = warp(image, views, size)[0, 0]
    for column, row in np.random.default_rng(seed).integers(0, size, (30, 2)).tolist():
        expected = slow_pixel(image[0].numpy(), *slow_place(column, row, size, p))
        assert seen[row, column].item() == pytest.approx(expected, abs=2e-3)


@pytest.mark.parametrize(
    ("angle", "shear", "scale", "shift"),
    [(30, 0, 1, (0, 0)), (-45, 0, 0.7, (10, -20)), (0, 25, 1, (0, 0)), (12, -17, 1.4, (-25, 6))],
)
def test_the_affine_is_torchvisions(angle: float, shear: float, scale: float, shift: tuple[int, int]) -> None:
    image = smooth(1)
    moved = (2 * shift[0] / SIDE, 2 * shift[1] / SIDE)
    seen = warp(image, view(angle, shear, scale, moved), SIDE)
    bilinear = InterpolationMode.BILINEAR
    expected = reference.affine(image[:, None] / 255, angle, list(shift), scale, [shear, 0.0], bilinear)
    assert (seen - expected).abs().max() < 5e-3
    assert (seen - expected).abs().mean() < 1e-4


@pytest.mark.parametrize(("top", "left", "side"), [(0, 0, 256), (30, 50, 160), (102, 0, 154), (16, 16, 224)])
def test_the_crop_is_torchvisions(top: int, left: int, side: int) -> None:
    image = noise(1)
    middle = ((2 * left + side) / SIDE - 1, (2 * top + side) / SIDE - 1)
    seen = warp(image, view(crop=side / SIDE, centre=middle, flip=-1), 224)
    bilinear = InterpolationMode.BILINEAR
    resized = reference.resized_crop(
        image[:, None] / 255, top, left, side, side, [224, 224], bilinear, antialias=False
    )
    # At the border of the crop, torchvision repeats pixels, while our view interpolates with the image.
    assert torch.allclose(seen[..., 1:-1, 1:-1], reference.hflip(resized)[..., 1:-1, 1:-1], atol=1e-4)


def test_no_change_is_no_change() -> None:
    image = noise(3)
    nothing = Views(*(np.repeat(part, 3, axis=0) for part in view()))
    assert torch.allclose(warp(image, nothing, SIDE)[:, 0], image / 255, atol=1e-4)


def test_a_flip_mirrors_left_and_right() -> None:
    image = noise(1)
    assert torch.allclose(warp(image, view(flip=-1), SIDE)[:, 0], image.flip(2) / 255, atol=1e-4)


def test_a_shift_to_the_right_moves_the_image_right_and_leaves_black() -> None:
    image = noise(1)
    seen = warp(image, view(shift=(2 * 64 / SIDE, 0)), SIDE)[0, 0]
    assert torch.allclose(seen[:, 64:], image[0, :, :-64] / 255, atol=1e-4)
    assert not seen[:, :64].any()


def test_the_centre_view_takes_pixels_as_they_are() -> None:
    image = noise(2)
    assert torch.equal(centre_view(image, 224), image[:, None, 16:240, 16:240] / 255)


def test_a_small_centre_view_is_the_mean_of_squares() -> None:
    image = noise(2)
    squares = image[:, 16:240, 16:240].reshape(2, 112, 2, 112, 2).float().mean((2, 4))
    assert torch.allclose(centre_view(image, 112)[:, 0], squares / 255, atol=1e-6)


@pytest.mark.parametrize("mean_of", [1, 2, 4, 8])
def test_windows_are_of_averaged_pixels_to_the_bit(mean_of: int) -> None:
    images, corner = noise(3), np.array([0, 8, 16])
    windows = ImageBatch.of(images).windows(corner, corner[::-1], 160, 96, mean_of)
    for window, image, top in zip(windows, images, corner, strict=True):
        part = image[top : top + 160, 16 - top : 16 - top + 96].float()
        assert torch.equal(window, torch.nn.functional.avg_pool2d(part[None], mean_of))


@pytest.mark.parametrize("size", [32, 64, 96, 128, 200, 256])
def test_a_centre_view_of_any_size_shows_the_same(size: int) -> None:
    image = smooth(1)
    seen = centre_view(image, size)
    full = torch.nn.functional.interpolate(
        centre_view(image, CROP), (size, size), mode="area" if size < CROP else "bilinear"
    )
    assert seen.shape == (1, 1, size, size)
    assert (seen - full).abs().mean() < 0.02


def test_small_views_do_not_alias() -> None:
    """A board of single black and white pixels is grey from afar."""
    y, x = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    board = (255 * ((x + y) % 2)).to(torch.uint8)[None]
    assert torch.allclose(warp(board, view(crop=0.875), 64), torch.tensor(0.5), atol=0.01)


@pytest.mark.parametrize("first", [True, False])
def test_jitter_is_torchvisions_in_both_orders(first: bool) -> None:
    image = smooth(2)
    views = Views(
        *(np.repeat(part, 2, axis=0) for part in view(brightness=1.7, contrast=0.4, brightness_first=first))
    )
    plain = warp(image, Views(*(np.repeat(part, 2, axis=0) for part in view())), 224)
    steps = [lambda x: reference.adjust_brightness(x, 1.7), lambda x: reference.adjust_contrast(x, 0.4)]
    expected = plain
    for step in steps if first else reversed(steps):
        expected = step(expected)
    assert torch.allclose(warp(image, views, 224), expected, atol=1e-5)


def test_each_image_has_its_own_jitter() -> None:
    image = smooth(1).repeat(3, 1, 1)
    made = [view(), view(brightness=1.5), view(contrast=0.5, brightness_first=False)]
    views = Views(*(np.concatenate(parts) for parts in zip(*made, strict=True)))
    together = warp(image, views, 224)
    for index, alone in enumerate(made):
        assert torch.equal(together[index : index + 1], warp(image[:1], alone, 224))


def spans(values: np.ndarray, low: float, high: float) -> bool:
    """All values lie between the bounds and reach close to both."""
    slack, reach = 1e-3 * (high - low) + 1e-4, 0.02 * (high - low)
    inside = (values >= low - slack).all() and (values <= high + slack).all()
    return bool(inside and values.min() < low + reach and values.max() > high - reach)


def drawn(transforms: str) -> Geometry:
    """The geometry of 20,000 views."""
    return draw_geometry(np.random.default_rng(0), 20_000, RANGES[transforms])


def test_simclr_views_span_the_published_ranges() -> None:
    geometry = drawn("simclrv2")
    assert spans(np.degrees(geometry.angle), -45, 45) and spans(np.degrees(geometry.shear), -25, 25)
    assert spans(geometry.scale, 0.7, 1.5) and spans(geometry.crop, 0.6, 1.0)
    assert all(spans(shift / 2, -0.1, 0.1) for shift in geometry.shift.T)
    assert abs((geometry.flip < 0).mean() - 0.5) < 0.02


def test_supervised_views_span_the_published_ranges() -> None:
    geometry = drawn("supervised")
    assert spans(np.degrees(geometry.angle), -45, 45) and not geometry.shear.any()
    assert spans(geometry.scale, 0.85, 1.15) and (geometry.crop == 224 / 256).all()
    assert all(spans(shift / 2, -0.15, 0.15) for shift in geometry.shift.T)
    assert not geometry.place.any()
    assert abs((geometry.flip < 0).mean() - 0.5) < 0.02


def test_a_crop_lies_anywhere_inside_the_image() -> None:
    geometry = drawn("simclrv2")
    assert all(spans(place, -1, 1) for place in geometry.place.T)


@pytest.mark.parametrize("transforms", ["simclrv2", "supervised"])
def test_views_have_the_geometry_that_is_drawn(transforms: str) -> None:
    views = random_views(np.random.default_rng(0), 100, transforms)
    geometry = draw_geometry(np.random.default_rng(0), 100, RANGES[transforms])
    assert np.array_equal(views.matrix, compose(geometry, np.ones((100, 2))))


def test_supervised_views_keep_the_grey() -> None:
    views = random_views(np.random.default_rng(1), 1000, "supervised")
    assert (views.brightness == 1).all() and (views.contrast == 1).all()


def test_four_in_five_simclr_views_are_jittered() -> None:
    views = random_views(np.random.default_rng(2), 20_000, "simclrv2")
    jittered = views.brightness != 1
    assert abs(jittered.mean() - 0.8) < 0.02 and ((views.contrast != 1) == jittered).all()
    assert spans(views.brightness, 0.2, 1.8) and spans(views.contrast, 0.2, 1.8)
    assert abs(views.brightness_first.mean() - 0.5) < 0.02


def test_views_are_a_function_of_the_random_state() -> None:
    first, same, other = (random_views(np.random.default_rng(seed), 50, "simclrv2") for seed in (4, 4, 5))
    assert all(np.array_equal(a, b) for a, b in zip(first, same, strict=True))
    assert not np.array_equal(first.matrix, other.matrix)


@settings(max_examples=20, deadline=None)
@given(start=st.integers(0, 8), length=st.integers(1, 9), size=st.sampled_from([224, 64]))
def test_a_view_does_not_depend_on_its_neighbours(start: int, length: int, size: int) -> None:
    image, views = noise(9), random_views(np.random.default_rng(6), 9, "simclrv2")
    part = slice(start, start + length)
    assert torch.equal(warp(image, views, size)[part], warp(image[part], views.take(part), size))


def test_views_are_greys_from_black_to_white() -> None:
    image = torch.full((64, SIDE, SIDE), 255, dtype=torch.uint8)
    seen = warp(image, random_views(np.random.default_rng(7), 64, "simclrv2"), 96)
    assert seen.dtype == torch.float32 and seen.shape == (64, 1, 96, 96)
    assert seen.min() >= 0 and seen.max() <= 1 and seen.std() > 0


def test_rounding_makes_no_white_whiter() -> None:
    image = torch.full((64, SIDE, SIDE), 255, dtype=torch.uint8)
    assert warp(image, random_views(np.random.default_rng(9), 64, "supervised"), 224).max() == 1


def test_no_image_gives_no_view() -> None:
    nothing = random_views(np.random.default_rng(8), 0, "simclrv2")
    assert warp(noise(0), nothing, 224).shape == centre_view(noise(0), 224).shape == (0, 1, 224, 224)


def ragged(count: int, seed: int = 0) -> ImageBatch:
    """Smooth images of five shapes in turn, the third of them extremely long."""
    shapes = np.array([(SIDE, SIDE), (308, SIDE), (SIDE // 2, 4 * SIDE // 2), (SIDE, 300), (290, SIDE)])
    height, width = shapes[np.arange(count) % 5].T
    phase = np.random.default_rng(seed).uniform(20, 40, count)
    images = [
        127 + 100 * np.sin(np.arange(w) / p)[None] * np.cos(np.arange(h) / p)[:, None]
        for h, w, p in zip(height, width, phase, strict=True)
    ]
    pixels = torch.from_numpy(np.concatenate([image.round().astype(np.uint8).ravel() for image in images]))
    return ImageBatch(pixels, np.cumsum(height * width) - height * width, height, width, SIDE)


def one(images: ImageBatch, row: int) -> Tensor:
    """An image of a batch, uint8 [1, H, W]."""
    start, height, width = (int(part[row]) for part in images[1:4])
    return images.pixels[start : start + height * width].view(1, height, width)


@pytest.mark.parametrize(("side", "across", "down"), [(308, 0, 0), (100, 37, 51), (350, -20, -7)])
def test_windows_are_cut_alike_one_by_one_and_all_at_once(side: int, across: int, down: int) -> None:
    images = ragged(7)
    corner = np.full(7, down), np.full(7, across)
    windows = _copied(images, *corner, side, side)
    assert torch.equal(windows, _gathered(images, *corner, side, side))
    for row in range(7):
        padded = torch.nn.functional.pad(one(images, row), [400] * 4)
        top, left = 400 + down, 400 + across
        assert torch.equal(windows[row], padded[:, top : top + side, left : left + side].float())


@pytest.mark.parametrize(
    ("angle", "scale", "shift"),
    [(30, 1, (0, 0)), (-45, 0.85, (20, -30)), (12, 1.15, (-25, 6)), (0, 1, (0, 0))],
)
def test_a_supervised_view_of_any_shape_is_torchvisions(
    angle: float, scale: float, shift: tuple[int, int]
) -> None:
    """Affine of the image with its shape kept, then the central 224 x 224."""
    images = ragged(5).take(np.array([0, 1, 3, 4]))
    numbers = (np.full(4, value, float) for value in (math.radians(angle), 0, scale))
    moved = 2 * np.array(shift) / np.stack([images.width, images.height], axis=1)
    geometry = Geometry(*numbers, moved, np.full(4, 224 / 256), np.zeros((4, 2)), np.ones(4))
    plain = np.ones(4, np.float32)
    seen = augment.warp(images, Views(compose(geometry, images.aspect), plain, plain, plain > 0), 224)
    bilinear = InterpolationMode.BILINEAR
    for row in range(4):
        moved_image = reference.affine(
            one(images, row) / 255, angle, list(shift), scale, [0.0, 0.0], bilinear
        )
        height, width = moved_image.shape[1:]
        top, left = (height - 224) / 2, (width - 224) / 2
        whole = top == int(top) and left == int(left)
        expected = reference.center_crop(moved_image, [224, 224])
        assert (seen[row] - expected).abs().mean() < (5e-4 if whole else 4e-3)


def test_the_centre_of_any_shape_is_torchvisions_crop() -> None:
    images = ragged(5).take(np.array([0, 1, 3, 4]))
    seen = augment.centre_view(images, 224)
    for row in range(4):
        assert torch.equal(seen[row], reference.center_crop(one(images, row), [224, 224]) / 255)


def test_a_squeezed_centre_is_that_of_the_image_resized_to_a_square() -> None:
    images = ragged(5)
    seen = augment.centre_view(images, 224, square=True)
    for row in range(5):
        square = reference.resize(one(images, row) / 255, [SIDE, SIDE], antialias=False)
        assert (seen[row] - reference.center_crop(square, [224, 224])).abs().mean() < 2e-3


@pytest.mark.parametrize("square", [False, True])
@pytest.mark.parametrize("size", [224, 64])
def test_a_view_does_not_depend_on_neighbours_of_other_shapes(square: bool, size: int) -> None:
    images = ragged(10)
    aspect = np.ones((10, 2)) if square else images.aspect
    views = augment.random_views(np.random.default_rng(3), aspect, "simclrv2")
    together = augment.warp(images, views, size)
    central = augment.centre_view(images, size, square=square)
    for row in range(10):
        alone = images.take(slice(row, row + 1))
        mine = views.take(slice(row, row + 1))
        assert torch.allclose(together[row : row + 1], augment.warp(alone, mine, size), atol=1e-4)
        centre = augment.centre_view(alone, size, square=square)
        assert torch.allclose(central[row : row + 1], centre, atol=1e-4)
