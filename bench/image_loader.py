"""Owns the comparison of our loader of stored images with torchvision's usual one.

    python -m bench.image_loader

Both read the same JPEG files, made here from a seed (500 x 375, quality 90, about as large as those
of ImageNet), and both give shuffled batches of 32 random resized crops of 224, flipped at random,
uint8: ours is trainer/data/stored.py, plain is ImageFolder with transforms v2 in a DataLoader.

Per core: images per second of CPU time, of ours with one decoding thread, of plain without worker
processes. Passes are played in turn, after one of each that is not counted; a ratio is the median
over pairs. Nothing is trained, and neither threads nor workers are scaled up: this is the work that
an image costs, not what a run reaches.
"""

import argparse
import importlib
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image

from bench.harness import Benchmark, Row, by_case, markdown, publish, recording, spread
from trainer.config.data import Data
from trainer.data.load import load
from trainer.data.torchvision_cpu import torchvision
from trainer.keys import Purpose, stream

SEEDS = (1, 2, 3)
CLASSES, SIZE, QUALITY = 4, (500, 375), 90
BATCH, SIDE = 32, 224
CASE = "decoded, cropped to 224, flipped"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--images", type=int, default=192)
    parser.add_argument("--passes", type=int, default=4)
    options = parser.parse_args()
    torch.set_num_threads(1)
    used = {"images": options.images, "passes": options.passes, "batch_size": BATCH, "side": SIDE}
    used |= {name: version(name) for name in ("torchvision", "torchcodec", "pillow")}
    with recording(BENCHMARK) as record:
        for seed in SEEDS:
            with tempfile.TemporaryDirectory() as folder:
                size = paint(Path(folder), options.images, seed)
                values = compare(Path(folder), seed, options.passes)
                values["mean_file_bytes"] = size / options.images
                record(CASE, seed, values, used)
                print(seed, values, flush=True)
    publish(BENCHMARK)


def paint(root: Path, count: int, seed: int) -> int:
    """`count` pictures in train/ and one per class in val/; returns the bytes of the former."""
    numbers = np.random.RandomState(seed)
    total = 0
    for part, of_part in (("train", count), ("val", CLASSES)):
        for number in range(of_part):
            path = root / part / f"class-{number % CLASSES}" / f"{number}.JPEG"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture(numbers).save(path, quality=QUALITY)
            total += path.stat().st_size if part == "train" else 0
    return total


def picture(numbers: np.random.RandomState) -> Image.Image:
    """Noise at all scales, which compresses about as photographs do."""
    pixels = np.full((SIZE[1], SIZE[0], 3), 128.0)
    for cells, height in ((4, 40), (16, 25), (64, 14), (256, 24)):
        noise = numbers.uniform(0, 255, (cells, cells, 3)).astype(np.uint8)
        pixels += (np.asarray(Image.fromarray(noise).resize(SIZE), float) - 128) * height / 64
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def compare(root: Path, seed: int, passes: int) -> dict[str, Any]:
    """Images per second of CPU time of both, and by how much ours is faster."""
    subjects = {"ours": ours(root, seed), "plain": plain(root, seed)}
    speeds: dict[str, list[float]] = {name: [] for name in subjects}
    for number in range(passes + 1):
        for name, begin in subjects.items():
            start = time.process_time()
            images = sum(len(x) for x in begin(number))
            if number:
                speeds[name].append(images / (time.process_time() - start))
    pairs = zip(speeds["ours"], speeds["plain"], strict=True)
    return {
        "images_per_second": statistics.median(speeds["ours"]),
        "images_per_second_plain": statistics.median(speeds["plain"]),
        "ratio": statistics.median(one / other for one, other in pairs),
    }


Pass = Callable[[int], Iterable[torch.Tensor]]


def ours(root: Path, seed: int) -> Pass:
    data = load(Data(name="imagenet", path=str(root), threads=1), download=False)

    def begin(number: int) -> Iterable[torch.Tensor]:
        draws = stream(seed, Purpose.TURN, 0, number)
        chosen = torch.randperm(len(data.x_train), generator=draws).split(BATCH)
        return (x for _, x in data.x_train.batches(chosen, draws))

    return begin


def plain(root: Path, seed: int) -> Pass:
    folder = torchvision().datasets.ImageFolder
    v2 = importlib.import_module("torchvision.transforms.v2")
    crop = [v2.RandomResizedCrop(SIDE), v2.RandomHorizontalFlip(), v2.PILToTensor()]
    data = folder(root / "train", v2.Compose(crop))
    draws = torch.Generator().manual_seed(seed)
    loader = torch.utils.data.DataLoader(data, BATCH, shuffle=True, generator=draws)
    return lambda number: (x for x, _ in loader)


# ---------------------------------------------------------------------------------------------


def table(rows: Sequence[Row]) -> str:
    lines = []
    for case, runs in by_case(rows).items():
        value = {key: [run[key] for run in runs] for key in runs[0]}
        lines.append(
            [
                case,
                spread(value["images_per_second"], 0),
                spread(value["images_per_second_plain"], 0),
                spread(value["ratio"], 2),
            ]
        )
    header = ["", "images per CPU second, ours", "plain", "ratio"]
    size = statistics.fmean(row["values"]["mean_file_bytes"] for row in rows) / 1000
    return (
        f"{markdown(header, lines)}\n\nMean ± half the range over seeds {list(SEEDS)}; files of "
        f"{SIZE[0]} x {SIZE[1]} pixels and {size:.0f} kB."
    )


def figure(rows: Sequence[Row]) -> Figure:
    page = Figure(figsize=(4, 3))
    axes = page.subplots()
    for case, runs in by_case(rows).items():
        ours, theirs = (
            statistics.fmean(run[key] for run in runs)
            for key in ("images_per_second", "images_per_second_plain")
        )
        axes.bar(case, ours, -0.4, align="edge", color="C0")
        axes.bar(case, theirs, 0.4, align="edge", color="C7")
    axes.set_title("images per CPU second: ours (blue), plain (grey)", size=9)
    axes.tick_params(labelsize=7)
    return page


BENCHMARK = Benchmark("image_loader", table, figure)

if __name__ == "__main__":
    main()
