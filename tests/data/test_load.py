"""Loading: digits, .npz files, statistics, resize; wrong files are in test_wrong_files.py."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests import bounds
from tests.data.files import loaded, some
from trainer.config.data import Data
from trainer.data.load import CUSTOMS, load

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
