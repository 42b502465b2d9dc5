"""How a model is divided into fragments, and what a client goes on from when it comes back."""

from itertools import pairwise

import pytest
import torch

from tests.exchange.turns import select, turn
from trainer.config.communication import Streaming as Settings
from trainer.config.models import MODELS
from trainer.exchange.policies.fragments import divide, here
from trainer.exchange.policies.streaming import Streaming
from trainer.layout import Layout

CPU = torch.device("cpu")
PATTERNS = ["strided", "sequential"]


def equal_layers(count: int) -> Layout:
    """Layers of two tensors and 10 values each."""
    tensors = (("weight", (3, 3)), ("bias", (1,)))
    return Layout((f"{at}.{name}", shape) for at in range(count) for name, shape in tensors)


def of_model(name: str) -> Layout:
    with torch.device("meta"):
        model = MODELS[name](vocabulary=300) if MODELS[name].takes == "text" else MODELS[name]()
    return Layout((key, p.shape) for key, p in model.named_parameters())


def layers(fragment: list[range]) -> list[int]:
    """The equal layers that a fragment's places are."""
    return [at for places in fragment for at in range(places.start // 10, places.stop // 10)]


def test_equal_layers_are_strided_as_in_the_paper() -> None:
    found = divide(equal_layers(12), 4, "strided")
    assert [layers(f) for f in found] == [[0, 4, 8], [1, 5, 9], [2, 6, 10], [3, 7, 11]]


def test_or_neighbours() -> None:
    found = divide(equal_layers(12), 4, "sequential")
    assert [layers(f) for f in found] == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11]]


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("count", [2, 5, 7])
def test_layers_that_do_not_divide_stay_whole(pattern: str, count: int) -> None:
    found = divide(equal_layers(12), count, pattern)
    assert all(fragment for fragment in found)
    assert sorted(at for fragment in found for at in layers(fragment)) == list(range(12))
    assert all(places.start % 10 == places.stop % 10 == 0 for f in found for places in f)


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("name", ["softmax", "digits-cnn", "lenet", "llama-tiny", "cifar-resnet56"])
@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_every_value_is_in_one_fragment_of_about_the_same_size(
    name: str, pattern: str, count: int
) -> None:
    whole = of_model(name)
    found = divide(whole, count, pattern)
    times = torch.zeros(whole.size, dtype=torch.int32)
    for places in (places for fragment in found for places in fragment):
        times[places.start : places.stop] += 1
    assert (times == 1).all()
    sizes = [sum(map(len, fragment)) for fragment in found]
    assert max(sizes) < 2 * whole.size / count


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("edges", [(0, 2, 12), (0, 4, 6, 12)])
def test_stages_have_parts_of_the_whole_models_fragments(
    pattern: str, edges: tuple[int, ...]
) -> None:
    whole = equal_layers(12)
    stages = [
        Layout((p.name, p.shape) for p in whole.pieces[2 * a : 2 * b]) for a, b in pairwise(edges)
    ]
    for fragment in divide(whole, 5, pattern):
        one, joined = torch.zeros(whole.size), []
        for place in here(fragment, whole, whole):
            one[place] = 1
        for stage in stages:
            joined.append(torch.zeros(stage.size))
            for place in here(fragment, whole, stage):
                joined[-1][place] = 1
        assert torch.equal(torch.cat(joined), one)


# ------------------------------------------------------------------ a client that was away


def after(rounds: int, anchor: torch.Tensor) -> Streaming:
    """Of four layers in four fragments, after so many rounds."""
    policy = Streaming(Settings(fragments=4), 40, CPU)
    policy.arrange(equal_layers(4), equal_layers(4))
    for number in range(1, rounds + 1):
        assert int(select(policy).index[0]) == 10 * ((number - 1) % 4)
        policy.departed(number)
    return policy


@pytest.mark.parametrize(
    ("kept", "now", "own"),
    [
        (1, 2, [1, 2, 3]),  # the fragment of round 1 is agreed, the others are its own
        (1, 3, [2, 3]),  # that of round 2 travelled without it
        (1, 4, [3]),
        (1, 5, []),
        (1, 50, []),
        (3, 4, [0, 1, 3]),
        (4, 6, [1, 2]),  # those of rounds 4 and 5 are fragments 3 and 0
    ],
)
def test_a_client_keeps_what_has_not_travelled_since(kept: int, now: int, own: list[int]) -> None:
    anchor, trained, memory = torch.zeros(40), torch.full((40,), 7.0), {}
    after(kept - 1, anchor).leaving(turn(trained, anchor, kept), memory)
    policy, coming = after(now - 1, anchor), turn(anchor.clone(), anchor, now)
    apart = policy.displacement(anchor, memory)
    policy.entering(coming, memory)
    expected = torch.zeros(4, 10)
    expected[own] = 7.0
    assert torch.equal(coming.params, expected.flatten())
    assert torch.equal(apart, -coming.params)  # anchor - local, as a reconciliation counts it


def test_before_the_first_round_and_with_one_fragment_clients_are_not_apart() -> None:
    assert after(0, torch.zeros(40)).drifted() is None
    policy = Streaming(Settings(fragments=1), 40, CPU)
    policy.arrange(equal_layers(4), equal_layers(4))
    policy.departed(1)
    assert policy.drifted() is None and policy.live() is None and policy.labelled == 0
    assert not policy.keeps
