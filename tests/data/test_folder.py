"""Folders of images: every layout that loads, and a clear line for each that does not."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests import bounds
from trainer.config.data import Data
from trainer.config.errors import ConfigError
from trainer.data.load import load

COLOURS = {"blue": (0, 0, 255), "green": (0, 255, 0), "red": (255, 0, 0)}


def paint(root: Path, part: str, classes: dict[str, tuple[int, int, int]], count: int) -> None:
    for name, colour in classes.items():
        (root / part / name).mkdir(parents=True)
        for i in range(count):
            size = (20 + i, 30)  # not square, and each another
            Image.new("RGB", size, colour).save(root / part / name / f"{i}.png")


def folder_data(root: Path, side: int = 16) -> Data:
    return Data(name="folder", path=str(root), resize=side)


@pytest.mark.parametrize("test_part", ["test", "val"])
def test_folder(tmp_path: Path, test_part: str) -> None:
    paint(tmp_path, "train", COLOURS, 4)
    paint(tmp_path, test_part, COLOURS, 2)
    data = load(folder_data(tmp_path), download=False)
    assert data.x_train.shape == (12, 3, 16, 16) and data.x_test.shape == (6, 3, 16, 16)
    assert data.classes == 3 and not data.augment
    assert data.y_train.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    for image, label in zip(data.x_test, data.y_test, strict=True):
        colour = list(COLOURS.values())[int(label)]
        assert image.amax((1, 2)).tolist() == image.amin((1, 2)).tolist() == list(colour)
    rounding = bounds.of_sums(12 * 16 * 16, unit=bounds.FP64)
    np.testing.assert_allclose(data.mean, [1 / 3] * 3, rtol=rounding)


def test_folder_whose_test_part_lacks_a_class(tmp_path: Path) -> None:
    paint(tmp_path, "train", COLOURS, 2)
    paint(tmp_path, "test", {"red": COLOURS["red"]}, 2)
    assert load(folder_data(tmp_path), download=False).y_test.tolist() == [2, 2]


def test_folder_in_grey_becomes_rgb(tmp_path: Path) -> None:
    for part in ("train", "test"):
        (tmp_path / part / "grey").mkdir(parents=True)
        Image.new("L", (8, 8), 77).save(tmp_path / part / "grey" / "a.png")
    data = load(folder_data(tmp_path, 8), download=False)
    assert data.x_train.unique().tolist() == [77] and data.shape == (3, 8, 8)


def test_folder_with_an_unknown_class(tmp_path: Path) -> None:
    paint(tmp_path, "train", {"red": COLOURS["red"]}, 1)
    paint(tmp_path, "test", COLOURS, 1)
    with pytest.raises(ConfigError, match=r"lacks: blue, green; give both the same sub-folders"):
        load(folder_data(tmp_path), download=False)


@pytest.mark.parametrize("parts", [(), ("train",)])
def test_folder_without_its_parts(tmp_path: Path, parts: tuple[str, ...]) -> None:
    for part in parts:
        paint(tmp_path, part, COLOURS, 1)
    with pytest.raises(ConfigError, match=r"data.path needs train/ and test/ \(or val/\)"):
        load(folder_data(tmp_path), download=False)


def test_folder_with_a_damaged_image(tmp_path: Path) -> None:
    paint(tmp_path, "train", COLOURS, 1)
    paint(tmp_path, "test", COLOURS, 1)
    (tmp_path / "train" / "red" / "0.png").write_bytes(b"no picture")
    with pytest.raises(ConfigError, match=r"data.path: .*red/0.png is not a readable image"):
        load(folder_data(tmp_path), download=False)
