"""Loading: each kind of wrong .npz file is one line, and nothing of it is unpacked or run."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from tests.data.files import Arrays, loaded, some, written
from trainer.config.data import Data
from trainer.config.errors import ConfigError
from trainer.data.load import load


def without(name: str) -> Arrays:
    return {key: array for key, array in some().items() if key != name}


def test_lengths_are_compared_before_anything_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(np, "load", lambda *_, **__: pytest.fail("unpacked"))
    with pytest.raises(ConfigError, match="x_train has 20 samples but y_train 19; make them agree"):
        loaded(tmp_path, some() | {"y_train": np.zeros(19, int)})


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
        (header("(20, 28, 4*7)"), "(malformed node or string on line 1: an expression)"),
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
    arrays = some() | {
        "x_train": np.zeros((2_000, 100, 100), np.uint8),
        "y_train": np.zeros(2_000, int),
    }
    np.savez_compressed(tmp_path / "bomb.npz", **arrays)
    assert (tmp_path / "bomb.npz").stat().st_size < 100_000

    class Small:
        total = 10_000_000

    monkeypatch.setattr(psutil, "virtual_memory", Small)
    monkeypatch.setattr(np, "load", lambda *_: pytest.fail("unpacked"))
    with pytest.raises(ConfigError, match=r"bomb.npz would take 0.0 GB of this machine's 0.0 GB"):
        load(Data(name="npz", path=str(tmp_path / "bomb.npz")), download=False)


def test_images_that_would_grow_beyond_memory_are_not_resized(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Usual:
        total = 64 * 10**9

    monkeypatch.setattr(psutil, "virtual_memory", Usual)
    arrays = some() | {"x_train": np.zeros((20_000, 1, 1), np.uint8)}
    arrays |= {"y_train": np.arange(20_000) % 10, "x_test": np.zeros((10, 1, 1), np.uint8)}
    with pytest.raises(ConfigError, match=r"data.resize=8192 would take 1,342.\d GB"):
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
