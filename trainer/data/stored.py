"""Images that stay in their files: decoded and cropped on access, ahead of the training step.

No other module decodes images while a run trains. All random numbers of a batch are drawn from the
key of the client's turn before any thread starts, so results depend on neither threads nor ranks.
"""

import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from trainer.config.errors import ConfigError
from trainer.data.batches import augment
from trainer.data.listing import Files
from trainer.data.memory import ranks_here
from trainer.files import open_regular
from trainer.keys import Purpose
from trainer.keys import stream as keyed

AHEAD = 4  # batches decoded while one is trained on: the memory cost of prefetching
ATTEMPTS = 10  # at a random box, before the middle is taken, as in torchvision and FFCV
AREA, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)  # of a random box
CENTRE = 224 / 256  # side of the central box, as a share of the image's shorter side

Chosen = Tensor | slice  # some samples, by their places (B,) or as a range
Decode = Callable[[bytes], Tensor]  # a file's content -> (3, H, W) uint8


class Box(NamedTuple):
    """The rectangle that is cut out of an image, in pixels."""

    top: int
    left: int
    height: int
    width: int


class Draw(NamedTuple):
    """The random numbers of one image, each from [0, 1): enough for an image of any size."""

    attempts: list[list[float]]  # area and ratio of each
    top: float
    left: float
    flip: float


def random_box(height: int, width: int, draw: Draw) -> Box:
    """Return a box of random area and ratio at a random place (Inception's random resized crop)."""
    low, high = math.log(RATIO[0]), math.log(RATIO[1])
    for area, ratio in draw.attempts:
        pixels = height * width * (AREA[0] + area * (AREA[1] - AREA[0]))
        shape = math.exp(low + ratio * (high - low))
        across, down = round(math.sqrt(pixels * shape)), round(math.sqrt(pixels / shape))
        if 0 < across <= width and 0 < down <= height:
            top = int(draw.top * (height - down + 1))
            return Box(top, int(draw.left * (width - across + 1)), down, across)
    across = min(width, round(height * RATIO[1]))
    down = min(height, round(width / RATIO[0]))
    return Box((height - down) // 2, (width - across) // 2, down, across)


def central_box(height: int, width: int) -> Box:
    """Return the central square to which a test image is cut, as in FFCV's centre crop."""
    side = max(1, int(CENTRE * min(height, width)))
    return Box((height - side) // 2, (width - side) // 2, side, side)


# ---------------------------------------------------------------------------------------------
# decoding


def decoder() -> Decode:
    """Return torchcodec's decoder, which releases the GIL, or Pillow's: slower, the same pixels."""
    try:
        from torchcodec.decoders import decode_image  # type: ignore[attr-defined]  # it is public
    except (ImportError, RuntimeError, OSError):  # its CUDA wheel with a CPU-only torch
        return _pillow
    decode: Decode = decode_image
    return decode


def _pillow(content: bytes) -> Tensor:
    import io

    import numpy as np
    from PIL import Image, ImageOps

    with Image.open(io.BytesIO(content)) as file:
        image = ImageOps.exif_transpose(file).convert("RGB")  # upright, as torchcodec does
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def threads_here() -> int:
    """Return the cores of this process divided by the number of ranks on this machine."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, (cores or 1) // ranks_here())


class Decoder:
    """Threads that turn a row of a file list into a crop; shared by the parts of a data set."""

    def __init__(self, threads: int | None = None) -> None:
        self.threads = threads or threads_here()
        self.decode = decoder()
        # The pool's threads are the parallelism: none may start compute threads of its own.
        self.pool = ThreadPoolExecutor(
            self.threads, "decode", initializer=torch.set_num_threads, initargs=(1,)
        )

    def submit(self, files: Files, row: int, draw: Draw | None, out: Tensor) -> Future[None]:
        """Start to fill `out`, (3, S, S), with the crop that `draw` selects (None: the centre)."""
        return self.pool.submit(self._fill, files, row, draw, out)

    def _fill(self, files: Files, row: int, draw: Draw | None, out: Tensor) -> None:
        path = files.path(row)
        try:
            with open_regular(path) as file:
                image = self.decode(file.read())
        except Exception as error:  # which exception a damaged file raises depends on the decoder
            why = (str(error).splitlines() or [""])[0] or type(error).__name__
            raise ConfigError(
                "data.path", f"{path} is not a readable image ({why[-200:]}); replace or remove it"
            ) from error
        height, width = image.shape[1:]
        box = central_box(height, width) if draw is None else random_box(height, width, draw)
        cut = image[:, box.top : box.top + box.height, box.left : box.left + box.width]
        small = interpolate(cut[None], out.shape[1:], mode="bilinear", antialias=True)[0]
        out.copy_(small.flip(2) if draw is not None and draw.flip < 0.5 else small)


# ---------------------------------------------------------------------------------------------
# access


@dataclass
class _Batch:
    """A batch whose images are being decoded."""

    chosen: Chosen
    x: Tensor  # (B, 3, S, S)
    work: list[Future[None]]

    def finish(self) -> Tensor:
        for future in self.work:
            future.result()
        return self.x


@dataclass(frozen=True)
class Stored:
    """Images in files, indexed like a tensor (n, 3, S, S); a batch of them is such a tensor."""

    files: Files
    side: int  # S
    decoder: Decoder
    rows: Tensor  # (n,) int64, places in `files`
    device: torch.device  # where batches go

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(n, C, H, W)"""
        return len(self.rows), 3, self.side, self.side

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, chosen: Tensor | slice) -> "Stored":
        """Select images, which still stay in their files."""
        return replace(self, rows=self.rows[chosen])

    def to(self, device: torch.device) -> "Stored":
        """Return the same images, with batches on `device`."""
        return replace(self, device=device)

    def batches(
        self, chosen: Iterable[Chosen], stream: torch.Generator | None
    ) -> Iterator[tuple[Chosen, Tensor]]:
        """Yield each item of `chosen` with its images, (B, 3, S, S) uint8 on the device.

        The next AHEAD batches are decoded at the same time. With `stream`, whose seed is the key,
        images are cropped and flipped at random; without it, the centre is taken.
        """
        waiting: deque[_Batch] = deque()
        try:
            for number, places in enumerate(chosen):
                waiting.append(self._begin(places, stream, number))
                if len(waiting) > AHEAD:
                    yield self._end(waiting.popleft())
            while waiting:
                yield self._end(waiting.popleft())
        finally:  # the caller stopped early, because of an error or because it has enough
            for batch in waiting:
                for future in batch.work:
                    future.cancel()

    def _begin(self, chosen: Chosen, stream: torch.Generator | None, number: int) -> _Batch:
        # Pinned, so that the copy to the GPU is asynchronous; torch reuses the memory after it.
        pinned = self.device.type == "cuda"
        rows: list[int] = self.rows[chosen].tolist()
        x = torch.empty(len(rows), *self.shape[1:], dtype=torch.uint8, pin_memory=pinned)
        draws: list[Draw] | list[None] = [None] * len(rows)
        if stream is not None:
            draws = _draws(keyed(stream.initial_seed(), Purpose.CROP, number), len(rows))
        work = [
            self.decoder.submit(self.files, row, draw, out)
            for row, draw, out in zip(rows, draws, x, strict=True)
        ]
        return _Batch(chosen, x, work)

    def _end(self, batch: _Batch) -> tuple[Chosen, Tensor]:
        return batch.chosen, batch.finish().to(self.device, non_blocking=True)


def _draws(stream: torch.Generator, count: int) -> list[Draw]:
    numbers = torch.rand(count, 2 * ATTEMPTS + 3, generator=stream, dtype=torch.float64)
    first, attempts = numbers[:, :3].tolist(), numbers[:, 3:].view(count, ATTEMPTS, 2).tolist()
    return [Draw(tries, *rest) for tries, rest in zip(attempts, first, strict=True)]


Images = Tensor | Stored


def feed(
    x: Images, y: Tensor, chosen: Iterable[Chosen], stream: torch.Generator | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield images and labels of each item of `chosen`, from memory or files.

    With `stream` the images are augmented. For files, `chosen` is consumed AHEAD batches early.
    """
    if isinstance(x, Stored):
        for places, images in x.batches(chosen, stream):
            yield images, y[places].to(x.device, non_blocking=True)
    else:
        for places in chosen:
            if isinstance(places, slice):
                images, labels = x[places], y[places]
            else:  # half the cost of indexing, which matters if a step is short
                images, labels = x.index_select(0, places), y.index_select(0, places)
            yield images if stream is None else augment(images, stream), labels
