"""Loading: digits, .npz files (right ones and each kind of wrong one), statistics, resize."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch

from tests import bounds
from trainer.config.data import Data
from trainer.config.errors import ConfigError
from trainer.data.load import CUSTOMS, Dataset, load

Arrays = dict[str, Any]


def some(channels: int | None = None, classes: int = 10, side: int = 28) -> Arrays:
    """A well-formed file: 20 training and 10 test samples."""
    numbers = np.random.RandomState(0)
    shape = (side, side) if channels is None else (side, side, channels)
    return {
        "x_train": numbers.randint(0, 256, (20, *shape), dtype=np.uint8),
        "y_train": (np.arange(20) % classes).astype(np.uint8),
        "x_test": numbers.randint(0, 256, (10, *shape), dtype=np.uint8),
        "y_test": (np.arange(10) % classes).astype(np.uint8),
    }


def written(folder: Path, arrays: Arrays) -> str:
    path = folder / "some.npz"
    np.savez(path, **arrays)
    return str(path)


def loaded(folder: Path, arrays: Arrays, **settings: Any) -> Dataset:
    settings = {"name": "npz", **settings}
    return load(Data(path=written(folder, arrays), **settings), download=False)


# --- digits ---------------------------------------------------------------------------------------


def test_digits() -> None:
    digits = load(Data(), download=False)
    assert digits.shape == (1, 8, 8)
    assert (len(digits.x_train), len(digits.x_test)) == (1437, 360)
    assert (digits.classes, digits.scale, digits.augment) == (10, 16.0, False)
    assert digits.x_train.dtype == torch.uint8 and digits.y_train.dtype == torch.int64
    assert int(digits.x_train.max()) == 16


def test_digits_split_is_stratified_disjoint_and_fixed() -> None:
    digits, again = load(Data(), download=False), load(Data(), download=False)
    assert torch.equal(digits.x_test, again.x_test)
    test, train = (torch.bincount(y, minlength=10) for y in (digits.y_test, digits.y_train))
    assert (test - (test + train) / 5).abs().max() <= 1
    from sklearn.datasets import load_digits

    sums = (digits.x_train.long().sum((0, 1)) + digits.x_test.long().sum((0, 1))).numpy()
    assert np.array_equal(sums, load_digits().images.sum(0)), "each digit is in one of the parts"
    assert digits.y_test[:12].tolist() == [9, 2, 5, 7, 6, 9, 7, 3, 3, 3, 4, 6]


def test_digits_normalisation_is_the_data_s_own() -> None:
    digits = load(Data(), download=False)
    x = torch.cat([digits.x_train, digits.x_test]).double() / 16
    assert round(x.mean().item(), 4) == digits.mean[0]
    assert round(x.std().item(), 3) == digits.std[0]


# --- .npz -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [None, 1, 3])
def test_npz(tmp_path: Path, channels: int | None) -> None:
    arrays = some(channels)
    data = loaded(tmp_path, arrays)
    assert data.shape == (channels or 1, 28, 28)
    assert data.x_train.is_contiguous() and data.x_train.dtype == torch.uint8
    assert data.y_train.tolist() == arrays["y_train"].tolist()
    assert (data.classes, data.scale, data.augment) == (10, 255.0, False)
    image = arrays["x_test"][3]
    expected = image[None] if channels is None else image.transpose(2, 0, 1)
    assert np.array_equal(data.x_test[3].numpy(), expected)


def test_npz_labels_may_be_a_column(tmp_path: Path) -> None:
    arrays = some()
    column = {name: y[:, None].astype(np.int32) for name, y in arrays.items() if name[0] == "y"}
    data = loaded(tmp_path, arrays | column)
    assert data.y_train.tolist() == arrays["y_train"].tolist()


def test_npz_statistics_are_those_of_the_training_set(tmp_path: Path) -> None:
    arrays = some(3)
    arrays["x_train"][..., 2] = 7  # a constant channel
    data = loaded(tmp_path, arrays)
    x = arrays["x_train"] / 255
    rounding = bounds.of_sums(x[..., 0].size, unit=bounds.FP64)
    np.testing.assert_allclose(data.mean, x.mean((0, 1, 2)), rtol=rounding)
    np.testing.assert_allclose(data.std[:2], x.std((0, 1, 2))[:2], rtol=rounding)
    assert data.std[2] == 1 / 255, "nothing divides by zero"


def test_given_statistics_win(tmp_path: Path) -> None:
    data = loaded(tmp_path, some(), mean=(0.25,), std=(0.5,))
    assert (data.mean, data.std) == ((0.25,), (0.5,))


@pytest.mark.parametrize(
    ("name", "channels", "side"),
    [
        ("mnist", None, 28),
        ("emnist", None, 28),
        ("emnist-digits", None, 28),
        ("cifar10", 3, 32),
        ("cifar100", 3, 32),
    ],
)
def test_named_set_from_a_file_has_its_own_customs(
    tmp_path: Path, name: str, channels: int | None, side: int
) -> None:
    data = loaded(tmp_path, some(channels, side=side), name=name)
    custom = CUSTOMS[name]
    assert (data.classes, data.mean, data.std) == (custom.classes, custom.mean, custom.std)
    assert data.augment == name.startswith("cifar")


def test_published_class_counts_and_normalisations() -> None:
    assert {name: custom.classes for name, custom in CUSTOMS.items()} == {
        "digits": 10, "mnist": 10, "emnist": 47, "emnist-digits": 10, "cifar10": 10, "cifar100": 100
    }  # fmt: skip
    assert (CUSTOMS["mnist"].mean, CUSTOMS["mnist"].std) == ((0.1307,), (0.3081,))
    assert CUSTOMS["cifar10"].std == (0.2023, 0.1994, 0.2010)


@pytest.mark.parametrize(("setting", "expected"), [(None, True), (False, False), (True, True)])
def test_augment_overrides_the_custom(tmp_path: Path, setting: bool | None, expected: bool) -> None:
    data = loaded(tmp_path, some(3, side=32), name="cifar10", augment=setting)
    assert data.augment is expected


@pytest.mark.parametrize("channels", [None, 3])
@pytest.mark.parametrize("side", [16, 32, 28])
def test_resize_equals_pillow(tmp_path: Path, channels: int | None, side: int) -> None:
    from PIL import Image

    arrays = some(channels)
    data = loaded(tmp_path, arrays, resize=side)
    assert data.shape == (channels or 1, side, side) and data.x_train.dtype == torch.uint8
    for image, ours in zip(arrays["x_test"], data.x_test, strict=True):
        theirs = Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR)
        difference = np.asarray(theirs, np.int16).reshape(side, side, -1) - np.asarray(
            ours.permute(1, 2, 0), np.int16
        )
        assert np.abs(difference).max() <= 1


# --- what can be wrong with a file ----------------------------------------------------------------


def without(name: str) -> Arrays:
    return {key: array for key, array in some().items() if key != name}


@pytest.mark.parametrize(
    ("arrays", "problem"),
    [
        (without("y_test"), "lacks y_test; it must hold x_train, y_train, x_test, y_test"),
        (some() | {"x_train": np.zeros((20, 28, 28), np.float32)}, "x_train is float32; it must"),
        (some() | {"x_test": np.zeros((20, 784), np.uint8)}, "x_test has shape (20, 784); it"),
        (some() | {"x_train": np.zeros((20, 3, 32, 32), np.uint8)}, "1, 3 or 4 channels last"),
        (some() | {"x_train": np.zeros((0, 28, 28), np.uint8)}, "x_train is empty"),
        (some() | {"y_train": np.zeros(20)}, "y_train is float64 of shape (20,); it must be N int"),
        (some() | {"y_test": np.zeros((10, 10), np.uint8)}, "y_test is uint8 of shape (10, 10)"),
        (some() | {"y_train": np.zeros(19, int)}, "x_train has 20 samples but y_train 19"),
        (some() | {"y_train": np.arange(20) - 1}, "y_train has labels from -1 to 18"),
        (some() | {"y_test": np.arange(10) + 1}, "y_test has labels from 1 to 10; with 10 classes"),
        (some() | {"x_test": np.zeros((10, 28, 20), np.uint8)}, "but test images (1, 28, 20)"),
        (some() | {"y_test": np.zeros(0, int)}, "y_test is empty (shape (0,)); it needs samples"),
        (
            some(classes=4) | {"y_train": np.arange(20) % 4 + 1},
            "y_train has labels from 1 to 4, so no sample is of class 0; subtract 1 from y_train",
        ),
        (
            some(classes=4)
            | {"y_train": np.where(np.arange(20) == 7, 2 * 10**9, np.arange(20) % 4)},
            "y_train has label 2000000000 (of sample 7), but 4 other classes, and no sample with "
            "label 4; number the classes 0 to 4",
        ),
        (
            some() | {"y_train": np.arange(20) * 2},
            "no sample with label 1; number the classes 0 to",
        ),
        (
            some() | {"y_train": np.full(20, 2**64 - 1, np.uint64)},
            "y_train has label 18446744073709551615; number the classes from 0",
        ),
        (some() | {"x_train": np.zeros((20, 28, 28), complex)}, "x_train is complex128; it must"),
        (some() | {"y_train": np.full(20, "x")}, "y_train is <U1 of shape (20,); it must be N int"),
        (some() | {"y_train": np.array([None] * 20)}, "as an .npz file of plain arrays (Object"),
    ],
)
def test_wrong_arrays(tmp_path: Path, arrays: Arrays, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, arrays)
    assert caught.value.key == "data.path"
    assert problem in caught.value.problem
    assert "\n" not in str(caught.value)


def test_labels_beyond_the_named_set(tmp_path: Path) -> None:
    arrays = some() | {"y_train": np.arange(20)}
    with pytest.raises(ConfigError, match="with 10 classes they must be 0 to 9"):
        loaded(tmp_path, arrays, name="mnist")


def test_channels_of_another_set(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"images have 3 channels, but .* has 1; set data.name=npz"
    ):
        loaded(tmp_path, some(3), name="mnist")


def header(shape: str, dtype: str = "|u1") -> bytes:
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x01\x00v\x00" + text.ljust(117) + b"\n"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (
            header("(1000000000, 1000, 1000)"),
            "x_train has shape (1000000000, 1000, 1000), but 0 by",
        ),
        (header("(20, 28, 28)") + bytes(100), "x_train has shape (20, 28, 28), but 100 bytes"),
        (header("(20, 28, 28)", "|O"), "Object arrays such as x_train are pickles"),
        (header("(-1, 28, 28)"), "x_train has shape (-1, 28, 28), but 0 bytes"),
        (header("(" * 60 + ")" * 60), "cannot be read as an .npz file of plain arrays"),
        (b"\x93NUMPY\x09\x00v\x00" + bytes(200), "cannot be read as an .npz file"),
    ],
)
def test_a_header_is_checked_before_anything_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, problem: str
) -> None:
    np.savez(tmp_path / "some.npz", **without("x_train"))
    with zipfile.ZipFile(tmp_path / "some.npz", "a") as file:
        file.writestr("x_train.npy", content)
    monkeypatch.setattr(np, "load", lambda *_: pytest.fail("unpacked"))
    with pytest.raises(ConfigError) as caught:
        load(Data(name="npz", path=str(tmp_path / "some.npz")), download=False)
    assert problem in caught.value.problem and "\n" not in caught.value.problem


def test_a_bomb_is_refused_by_its_declared_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrays = some() | {"x_train": np.zeros((2_000, 100, 100), np.uint8)}
    np.savez_compressed(tmp_path / "bomb.npz", **arrays)
    assert (tmp_path / "bomb.npz").stat().st_size < 100_000

    class Small:
        total = 10_000_000

    monkeypatch.setattr(psutil, "virtual_memory", Small)
    monkeypatch.setattr(np, "load", lambda *_: pytest.fail("unpacked"))
    with pytest.raises(ConfigError, match=r"bomb.npz would take 0 GB of this machine's 0 GB"):
        load(Data(name="npz", path=str(tmp_path / "bomb.npz")), download=False)


def test_images_that_would_grow_beyond_memory_are_not_resized(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Usual:
        total = 64 * 10**9

    monkeypatch.setattr(psutil, "virtual_memory", Usual)
    arrays = some() | {"x_train": np.zeros((20_000, 1, 1), np.uint8)}
    arrays |= {"y_train": np.arange(20_000) % 10, "x_test": np.zeros((10, 1, 1), np.uint8)}
    with pytest.raises(ConfigError, match=r"data.resize=8192 would take 1,342 GB"):
        loaded(tmp_path, arrays, resize=8192)


def truncated(good: bytes) -> bytes:
    return good[: len(good) // 2]


def damaged(good: bytes) -> bytes:
    return good[:500] + bytes(reversed(good[500:600])) + good[600:]


def lone_array(_: bytes) -> bytes:
    return b"\x93NUMPY\x01\x00v\x00" + (
        b"{'descr': '<f8', 'fortran_order': False, 'shape': (1,), }".ljust(117) + b"\n" + bytes(8)
    )


@pytest.mark.parametrize(
    "spoil", [truncated, damaged, lone_array, lambda _: b"", lambda _: b"not a zip file"]
)
def test_unreadable_files(tmp_path: Path, spoil: Any) -> None:
    path = Path(written(tmp_path, some()))
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(
        ConfigError, match=r"data.path: .* (cannot be read as an|is not an) .npz file"
    ):
        load(Data(name="npz", path=str(path)), download=False)


def test_a_file_that_would_run_code_does_not(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "sprung",)

    with pytest.raises(ConfigError, match="plain arrays"):
        loaded(tmp_path, some() | {"y_train": np.array([Trap()], dtype=object)})
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("name", ["npz", "mnist", "cifar10"])
def test_missing_file(tmp_path: Path, name: Any) -> None:
    with pytest.raises(ConfigError, match=r"data.path: .*nowhere.npz is not a file"):
        load(Data(name=name, path=str(tmp_path / "nowhere.npz")), download=True)


@pytest.mark.parametrize(
    ("settings", "key", "problem"),
    [
        ({"mean": (0.1, 0.2, 0.3)}, "data.mean", "has 3 values, but the images have 1 channels"),
        ({"std": (0.1, 0.2)}, "data.std", "has 2 values"),
    ],
)
def test_statistics_that_do_not_fit(
    tmp_path: Path, settings: dict[str, Any], key: str, problem: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, some(), **settings)
    assert caught.value.key == key and problem in caught.value.problem
