"""Batches: equal to torchvision's transforms, and a function of client and number alone."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tests import bounds
from trainer.data.batches import Normalise, augment
from trainer.data.sampling import Sampler, order
from trainer.data.torchvision_cpu import torchvision


def generator(seed: int, device: str = "cpu") -> torch.Generator:
    return torch.Generator(device).manual_seed(seed)


def pictures(count: int = 6, channels: int = 3, side: int = 8) -> Tensor:
    shape = (count, channels, side, side)
    return torch.randint(1, 256, shape, dtype=torch.uint8, generator=generator(0))


# --- normalise ------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [255.0, 16.0])
def test_normalise_equals_its_definition(scale: float) -> None:
    x = pictures()
    mean, std = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
    out = Normalise(mean, std, scale)(x)
    channel = [torch.tensor(v, dtype=torch.float64)[:, None, None] for v in (mean, std)]
    exact = (x.to(torch.float64) / scale - channel[0]) / channel[1]
    assert out.dtype == torch.float32 and out.shape == x.shape
    # a division, a subtraction and a division, of constants that are rounded too
    assert (out.double() - exact).abs().max() < bounds.of_sums(5, exact.abs().max())


def test_normalise_equals_torchvision() -> None:
    from importlib import import_module

    torchvision()
    v2 = import_module("torchvision.transforms.v2")
    x = pictures(channels=1)
    theirs = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.1307], [0.3081])])
    ours = Normalise((0.1307,), (0.3081,), 255.0)(x)
    assert (ours - theirs(x)).abs().max() < bounds.of_sums(5, ours.abs().max())


def test_normalise_leaves_the_samples_alone() -> None:
    x = pictures()
    before = x.clone()
    Normalise((0.5,) * 3, (0.5,) * 3, 255.0)(x)
    assert torch.equal(x, before)


# --- augment --------------------------------------------------------------------------------------


def all_crops(image: Tensor) -> list[Tensor]:
    _, height, width = image.shape
    padded = torch.nn.functional.pad(image, (4, 4, 4, 4))
    crops = [
        padded[:, top : top + height, left : left + width] for top in range(9) for left in range(9)
    ]
    return crops + [crop.flip(2) for crop in crops]


@pytest.mark.parametrize("shape", [(20, 3, 8, 8), (5, 1, 4, 6)])
def test_each_image_becomes_one_of_its_162_crops(shape: tuple[int, ...]) -> None:
    x = torch.randint(1, 256, shape, dtype=torch.uint8, generator=generator(1))
    out = augment(x, generator(2))
    assert out.shape == x.shape and out.dtype == torch.uint8
    for before, after in zip(x, out, strict=True):
        assert any(torch.equal(after, crop) for crop in all_crops(before))


def test_all_crops_occur_equally_often() -> None:
    image = pictures(1, 1, 9)
    out = augment(image.expand(162 * 60, 1, 9, 9), generator(3))
    crops = torch.stack(all_crops(image[0])).flatten(1)
    seen = (out.flatten(1)[:, None] == crops).all(-1).sum(0)
    assert int(seen.sum()) == 162 * 60
    assert seen.min() > 25 and seen.max() < 100


def test_augment_depends_on_the_generator_only() -> None:
    x = pictures(64)
    assert torch.equal(augment(x, generator(5)), augment(x, generator(5)))
    assert not torch.equal(augment(x, generator(5)), augment(x, generator(6)))
    state = torch.get_rng_state()
    augment(x, generator(5))
    assert torch.equal(state, torch.get_rng_state())


# --- order and sampler ----------------------------------------------------------------------------


def test_order_is_keyed_by_seed_client_and_epoch() -> None:
    one = order(1, 2, 3, 50)
    assert sorted(one.tolist()) == list(range(50))
    assert torch.equal(one, order(1, 2, 3, 50))
    for key in ((2, 2, 3), (1, 3, 3), (1, 2, 4), (3, 2, 1), (2, 1, 3)):
        assert not torch.equal(one, order(*key, 50)), key


def test_order_is_the_same_in_every_version() -> None:
    """A checkpoint resumes on this; a change here is a change of every result."""
    assert order(1, 0, 0, 8).tolist() == [0, 7, 1, 4, 5, 2, 6, 3]


CLIENT = 4  # the others hold something else


def sampler(n: int, batch_size: int, reshuffle: bool = True) -> Sampler:
    parts = [torch.arange(2) for _ in range(CLIENT)] + [torch.arange(n) * 10 + 3]
    return Sampler(parts, batch_size=batch_size, seed=1, reshuffle=reshuffle)


@given(n=st.integers(1, 40), batch_size=st.integers(1, 50), passes=st.integers(1, 3))
def test_every_pass_deals_every_sample_once(n: int, batch_size: int, passes: int) -> None:
    deal = sampler(n, batch_size)
    per_pass = deal.steps_per_pass(CLIENT)
    for number in range(passes):
        steps = range(number * per_pass, (number + 1) * per_pass)
        batches = [deal.places(CLIENT, k) for k in steps]
        assert [len(batch) for batch in batches[:-1]] == [batch_size] * (len(batches) - 1)
        assert sorted(torch.cat(batches).tolist()) == [i * 10 + 3 for i in range(n)]


def test_the_last_batch_of_a_pass_may_be_smaller() -> None:
    deal = sampler(10, 4)
    assert [len(deal.places(CLIENT, k)) for k in range(6)] == [4, 4, 2, 4, 4, 2]


def test_passes_differ_if_reshuffled() -> None:
    deal = sampler(50, 50)
    assert not torch.equal(deal.places(CLIENT, 0), deal.places(CLIENT, 1))


def test_without_reshuffle_every_pass_takes_the_given_order() -> None:
    deal = sampler(10, 4, reshuffle=False)
    for first in (0, 3):
        taken = torch.cat([deal.places(CLIENT, first + k) for k in range(3)])
        assert torch.equal(taken, deal.parts[CLIENT]) and torch.equal(taken, deal.every(CLIENT))


@given(steps=st.lists(st.tuples(st.integers(0, 40), st.booleans())), reshuffle=st.booleans())
def test_a_batch_depends_on_its_number_alone(
    steps: list[tuple[int, bool]], reshuffle: bool
) -> None:
    """Not on which batches, of which clients, were drawn before: any rank can go on from here."""
    running = sampler(11, 3, reshuffle)
    for k, other in steps:
        running.places(0 if other else CLIENT, k)
        fresh = sampler(11, 3, reshuffle)
        assert torch.equal(running.places(CLIENT, k), fresh.places(CLIENT, k))


@pytest.mark.gpu
def test_the_hot_path_never_waits_for_the_device() -> None:
    x = pictures(64).cuda()
    normalise = Normalise((0.5,) * 3, (0.5,) * 3, 255.0, "cuda")
    deal = Sampler([torch.arange(64)], batch_size=16, seed=1, device="cuda")
    random = generator(1, device="cuda")
    deal.places(0, 0)  # a pass begins with one copy to the device
    torch.cuda.set_sync_debug_mode("error")
    try:
        out = normalise(augment(x[deal.places(0, 1)], random))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert out.shape == (16, 3, 8, 8)
