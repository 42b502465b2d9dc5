"""ImageNet in its files: crops, labels, the order of work, and a clear line for each fault."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.jpegs import CLASSES, imagenet, jpeg
from trainer.config.data import Data
from trainer.config.errors import ConfigError
from trainer.data import listing, stored
from trainer.data.load import Dataset, load
from trainer.data.stored import ATTEMPTS, Draw, central_box, random_box
from trainer.data.torchvision_cpu import torchvision
from trainer.keys import Purpose, stream

SIDE = 32
DECILES = np.arange(1, 10) / 10


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """18 training images and 9 test images in three classes."""
    return imagenet(tmp_path / "set")


def opened(root: Path, **more: object) -> Dataset:
    data: dict[str, object] = {"name": "imagenet", "path": str(root), "resize": SIDE}
    return load(Data.model_validate(data | more), download=False)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rows(*numbers: int) -> torch.Tensor:
    return torch.tensor(numbers)


def taken(data: Dataset, chosen: list[torch.Tensor], key: int | None = 7) -> torch.Tensor:
    draws = None if key is None else generator(key)
    return torch.cat([x for _, x in data.x_train.batches(chosen, draws)])


def reference(path: str, box: stored.Box, flip: bool, side: int = SIDE) -> np.ndarray:
    """What Pillow makes of the same box."""
    with Image.open(path) as file:
        cut = file.convert("RGB").crop(
            (box.left, box.top, box.left + box.width, box.top + box.height)
        )
    small = np.asarray(cut.resize((side, side), Image.Resampling.BILINEAR)).astype(int)
    return (small[:, ::-1] if flip else small).transpose(2, 0, 1)


# ---------------------------------------------------------------------------------------------
# what comes out


def test_labels_go_by_the_sorted_names_of_the_class_folders(root: Path) -> None:
    data = opened(root)
    assert data.classes == 3 and data.shape == (3, SIDE, SIDE) and data.augment
    assert data.y_train.tolist() == [0] * 6 + [1] * 6 + [2] * 6
    assert data.y_test.tolist() == [0] * 3 + [1] * 3 + [2] * 3
    for row in range(18):
        assert Path(data.x_train.files.path(row)).parent.name == CLASSES[data.y_train[row]]


def test_the_side_is_224_unless_resize_says_otherwise(root: Path) -> None:
    data = opened(root, resize=None)
    ((_, x),) = data.x_train.batches([rows(0, 5)], None)
    assert x.shape == (2, 3, 224, 224) and x.dtype == torch.uint8


def test_a_random_crop_is_that_of_pillow_for_the_same_box(root: Path) -> None:
    data = opened(root)
    chosen = rows(3, 17, 0, 8, 8)
    x = taken(data, [chosen])
    draws = stored._draws(stream(generator(7).initial_seed(), Purpose.CROP, 0), len(chosen))
    assert len({draw.flip < 0.5 for draw in draws}) == 2  # the test sees both
    for image, row, draw in zip(x, chosen.tolist(), draws, strict=True):
        path = data.x_train.files.path(row)
        with Image.open(path) as file:
            width, height = file.size
        box = random_box(height, width, draw)
        assert np.abs(image.numpy() - reference(path, box, draw.flip < 0.5)).max() <= 1
    assert not torch.equal(x[3], x[4])  # twice the same image, two crops


def test_a_test_image_is_cut_to_its_central_square(root: Path) -> None:
    data = opened(root)
    chosen = rows(0, 4, 8)
    ((indices, x),) = data.x_test.batches([chosen], None)
    assert torch.equal(indices, chosen)
    for image, row in zip(x, chosen.tolist(), strict=True):
        path = data.x_test.files.path(row)
        with Image.open(path) as file:
            width, height = file.size
        side = int(224 / 256 * min(width, height))
        box = stored.Box((height - side) // 2, (width - side) // 2, side, side)
        assert np.abs(image.numpy() - reference(path, box, False)).max() <= 1


def test_random_boxes_lie_inside_and_are_spread_as_those_of_torchvision() -> None:
    numbers = torch.rand(2000, 3 + 2 * ATTEMPTS, generator=generator(1), dtype=torch.float64)
    boxes = []
    for line in numbers.tolist():
        attempts = [line[3 + 2 * i : 5 + 2 * i] for i in range(ATTEMPTS)]
        box = random_box(375, 500, Draw(attempts, *line[:3]))
        assert 0 <= box.top <= 375 - box.height and 0 <= box.left <= 500 - box.width
        assert 0.74 < box.width / box.height < 1.35
        boxes.append(box)
    torch.manual_seed(2)
    crop, image = torchvision().transforms.RandomResizedCrop, torch.empty(3, 375, 500)
    theirs = np.array([crop.get_params(image, (0.08, 1), (3 / 4, 4 / 3)) for _ in range(2000)])
    for one, other in zip(np.array(boxes).T, theirs.T, strict=True):
        assert np.abs(np.quantile(one, DECILES) - np.quantile(other, DECILES)).max() < 16  # pixels


@pytest.mark.parametrize("size", [(1, 1), (1000, 10), (10, 1000), (3, 2)])
def test_a_box_exists_for_images_of_any_shape(size: tuple[int, int]) -> None:
    height, width = size
    full = Draw([[0.999, 0.5]] * ATTEMPTS, 0.99, 0.99, 0.0)
    for box in (random_box(height, width, full), central_box(height, width)):
        assert 0 < box.height <= height - box.top and 0 < box.width <= width - box.left


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_grey_and_cmyk_files_become_rgb(root: Path, mode: str) -> None:
    path = root / "train" / CLASSES[0] / f"{CLASSES[0]}_0.JPEG"
    path.write_bytes(jpeg(1, (40, 40), mode))
    ((_, x),) = opened(root).x_train.batches([rows(0)], None)
    box = central_box(40, 40)
    assert np.abs(x[0].numpy() - reference(str(path), box, False)).max() <= 1


def test_without_torchcodec_the_pixels_are_the_same(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fast = taken(opened(root), [torch.arange(18)])
    monkeypatch.setattr(stored, "decoder", lambda: stored._pillow)
    assert torch.equal(taken(opened(root), [torch.arange(18)]), fast)


# ---------------------------------------------------------------------------------------------
# keyed randomness, threads, memory


def test_the_key_alone_decides_whatever_the_number_of_threads(root: Path) -> None:
    chosen = [rows(0, 17, 4), rows(9), rows(1, 2, 3, 4, 5, 6), *[rows(i) for i in range(12)]]
    one, three = (taken(opened(root, threads=n), chosen) for n in (1, 3))
    assert torch.equal(one, three)
    assert not torch.equal(one, taken(opened(root), chosen, key=8))


def test_a_part_gives_the_same_images_as_the_whole(root: Path) -> None:
    """So a rank that holds some clients' samples trains on what one rank would."""
    whole = opened(root)
    part = whole.x_train[rows(2, 5, 11)]
    ((_, mine),) = part.batches([rows(1, 2, 0)], generator(7))
    assert torch.equal(mine, taken(whole, [rows(5, 11, 2)]))
    assert part.shape == (3, 3, SIDE, SIDE) and len(whole.x_test[1::2]) == 4


def test_only_a_few_batches_are_prepared_ahead(root: Path) -> None:
    asked = []

    def endless():
        while True:
            asked.append(rows(len(asked) % 18))
            yield asked[-1]

    feed = opened(root).x_train.batches(endless(), generator(7))
    for number in range(1, 30):
        next(feed)
        assert len(asked) == number + stored.AHEAD
    feed.close()  # left early: what is not begun is called off


def test_what_is_held_per_image_is_its_name_and_little_more(root: Path) -> None:
    files = opened(root).x_train.files
    held = len(files.names) + files.labels.nbytes + files.ends.nbytes
    assert held == 18 * (len(f"{CLASSES[0]}_0.JPEG") + 16)


# ---------------------------------------------------------------------------------------------
# the list of files


def test_the_list_is_made_once_and_again_when_a_file_comes(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = opened(root).x_train.files
    walked = []
    walk = listing._walk
    monkeypatch.setattr(listing, "_walk", lambda *a: walked.append(a[0].name) or walk(*a))
    again = opened(root).x_train.files
    assert not walked and [again.path(i) for i in range(18)] == [first.path(i) for i in range(18)]
    (root / "train" / CLASSES[1] / "new.jpg").write_bytes(jpeg(5))
    assert len(opened(root).x_train) == 19 and walked == ["train"]


def test_a_damaged_list_is_made_anew(root: Path) -> None:
    opened(root)
    (root / ".fedctl-train.npz").write_bytes(b"half a fi")
    assert len(opened(root).x_train) == 18


@pytest.mark.parametrize(
    "change",
    [
        {"labels": np.full(18, 10**9)},
        {"labels": np.zeros(17, int)},
        {"labels": np.zeros(18)},
        {"ends": np.arange(18)},
        {"ends": np.full(18, 10**9)},
        {"names": np.zeros(10**6, np.uint8)},
    ],
)
def test_a_list_that_leads_elsewhere_is_made_anew(root: Path, change: dict[str, Any]) -> None:
    files = opened(root).x_train.files
    with np.load(root / ".fedctl-train.npz") as cached:
        np.savez(root / ".fedctl-train.npz", **{**cached, **change})
    again = opened(root).x_train.files
    assert (again.names, again.labels.tolist()) == (files.names, files.labels.tolist())


def test_data_that_cannot_be_written_to_has_its_list_in_the_users_cache(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for part in ("train", "val"):  # a folder where the file would go: refused even to root
        (root / f".fedctl-{part}.npz").mkdir()
    assert len(opened(root).x_train) == 18
    assert len(list((tmp_path / "cache" / "fedctl" / "data").glob("listing-*.npz"))) == 2
    assert not list(root.glob("*.partial"))
    (tmp_path / "cache").rename(tmp_path / "moved")
    (tmp_path / "cache").write_text("no folder")  # and nowhere at all: no cache, no error
    assert len(opened(root).x_train) == 18


# ---------------------------------------------------------------------------------------------
# faults


@pytest.mark.parametrize("content", [b"no picture", b"", jpeg(1)[:300]])
def test_a_broken_file_is_named(root: Path, content: bytes) -> None:
    (root / "train" / CLASSES[1] / f"{CLASSES[1]}_2.JPEG").write_bytes(content)
    data = opened(root)
    with pytest.raises(
        ConfigError, match=r"data.path: .*n01443537_2.JPEG is not a readable image"
    ) as e:
        taken(data, [torch.arange(18)])
    assert "replace or remove it" in str(e.value) and "\n" not in str(e.value)


def test_a_file_that_is_gone_is_named(root: Path) -> None:
    data = opened(root)
    (root / "train" / CLASSES[0] / f"{CLASSES[0]}_0.JPEG").unlink()
    with pytest.raises(
        ConfigError, match=r"n01440764_0.JPEG is not a readable image \(.*No such file"
    ):
        taken(data, [rows(0)])


def test_a_pipe_among_the_files_is_not_waited_for(root: Path) -> None:
    data = opened(root)
    path = root / "train" / CLASSES[0] / f"{CLASSES[0]}_0.JPEG"
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(ConfigError, match=r"_0.JPEG is not a readable image \(.*is a pipe; name"):
        taken(data, [rows(0)])


@pytest.mark.parametrize("part", ["train", "val"])
def test_a_missing_part_is_named(root: Path, part: str) -> None:
    (root / part).rename(root / "elsewhere")
    with pytest.raises(ConfigError, match=rf"/{part} cannot be read .* needs train/ and val/"):
        opened(root)


def test_a_part_without_class_folders_is_named(root: Path) -> None:
    (root / "val").rename(root / "elsewhere")
    (root / "val").mkdir()
    (root / "val" / "ILSVRC2012_val_00000001.JPEG").write_bytes(jpeg(1))  # as it is unpacked
    with pytest.raises(ConfigError, match=r"val has no sub-folders; data.path needs"):
        opened(root)


@pytest.mark.parametrize("part,other", [("train", "val"), ("val", "train")])
def test_a_class_that_only_one_part_has_is_named(root: Path, part: str, other: str) -> None:
    (root / part / "n09").mkdir()
    (root / part / "n09" / "a.jpg").write_bytes(jpeg(1))
    with pytest.raises(ConfigError, match=rf"/{part} has classes that .*/{other} lacks: n09; both"):
        opened(root)


def test_a_class_without_images_is_named(root: Path) -> None:
    (root / "train" / "n09").mkdir()
    with pytest.raises(ConfigError, match=r"n09 holds no .jpg or .jpeg file; add some"):
        opened(root)


def test_the_path_must_be_given() -> None:
    with pytest.raises(ValueError, match="name imagenet needs path"):
        Data(name="imagenet")
