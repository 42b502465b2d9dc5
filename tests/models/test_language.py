"""Language models: their sizes, causality, and the same arithmetic written a second time."""

import math

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, silu
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from trainer.config.models import MODELS
from trainer.layout import Flat
from trainer.models.llama import EPSILON, Llama, rotated
from trainer.models.transformer import Transformer, sinusoids

LANGUAGE = [name for name, network in MODELS.items() if network.takes == "text"]


def layer_parameters(width: int, hidden: int) -> int:
    """Of an encoder layer: attention in and out with biases, two linear layers, two norms."""
    return 4 * width * width + 4 * width + 2 * width * hidden + hidden + width + 4 * width


# model, vocabulary; parameters, tensors
PUBLISHED = [
    ("gwpf-transformer", 33_278, 13_828_478, 27),
    ("transformer-tiny", 1_000, 2 * 64_000 + 1_000 + 2 * layer_parameters(64, 64), 27),
    ("llama-26m", 32_000, 26_398_368, 57),
    ("llama-tiny", 1_000, 2 * 64_000 + 2 * (4 * 64**2 + 3 * 64 * 256 + 2 * 64) + 64, 21),
]


@pytest.mark.parametrize(("name", "vocabulary", "parameters", "tensors"), PUBLISHED)
def test_published_counts(name, vocabulary, parameters, tensors):
    with torch.device("meta"):
        model = MODELS[name](vocabulary=vocabulary)
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert len(list(model.parameters())) == tensors


def test_every_language_model_has_a_count():
    assert {name for name, *_ in PUBLISHED} == set(LANGUAGE)


def test_parts_of_w1_are_as_in_the_papers_code():
    parts = [sum(p.numel() for p in part.parameters()) for part in Transformer()]
    assert parts == [6_655_600, 242_000, 242_000, 6_688_878]


@pytest.mark.parametrize("name", ["transformer-tiny", "llama-tiny"])
def test_nothing_but_parameters_is_exchanged(name):
    flat = Flat(MODELS[name](vocabulary=20))
    assert len(flat.buffers) == 0 and flat.counters == []


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", ["transformer-tiny", "llama-tiny"])
def test_a_token_changes_no_output_before_it(name, training):
    torch.manual_seed(0)
    model = MODELS[name](vocabulary=20).train(training)
    x = torch.randint(20, (3, 12))
    for place in (0, 5, 11):
        other = x.clone()
        other[:, place] = (other[:, place] + 1) % 20
        outputs = []
        for tokens in (x, other):
            torch.manual_seed(1)  # the same dropout
            with torch.no_grad():
                outputs.append(model(tokens))
        one, two = outputs
        assert torch.equal(one[:, :place], two[:, :place])
        assert not torch.equal(one[:, place], two[:, place])


@pytest.mark.parametrize("name", ["transformer-tiny", "llama-tiny"])
def test_every_parameter_has_a_gradient(name):
    torch.manual_seed(0)
    model = MODELS[name](vocabulary=20)
    x = torch.randint(20, (4, 9))
    out = model(x)
    assert out.shape == (4, 9, 20)
    cross_entropy(out.flatten(0, 1), x.flatten()).backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), key
        assert parameter.grad.any(), key


def test_rotation_is_multiplication_by_complex_numbers():
    x = torch.randn(2, 3, 7, 16, dtype=torch.float64)
    theta = 1 / 10_000 ** (torch.arange(0, 16, 2, dtype=torch.float64) / 16)
    turns = torch.polar(torch.ones(7, 8, dtype=torch.float64), torch.outer(torch.arange(7), theta))
    pairs = torch.view_as_complex(x.unflatten(-1, (8, 2)).contiguous())
    expected = torch.view_as_real(pairs * turns).flatten(-2)
    # angles are in single precision: at most 6 radians, of which each digit is 2^-24 at most
    assert torch.allclose(rotated(x), expected, atol=7 * 7 * 2**-23 * float(x.abs().max()))


def test_rotation_rounds_to_bf16_once():
    x = torch.randn(2, 3, 70, 16).bfloat16()
    assert rotated(x).dtype == torch.bfloat16
    assert torch.equal(rotated(x), rotated(x.float()).bfloat16())


def test_scores_of_rotated_vectors_depend_on_their_distance_only():
    query, key = torch.randn(2, 16, dtype=torch.float64)
    turned = [rotated(v.expand(1, 1, 9, 16)).squeeze() for v in (query, key)]
    scores = turned[0] @ turned[1].T
    for distance in range(-8, 9):
        diagonal = scores.diagonal(distance)
        assert torch.allclose(diagonal, diagonal[:1].expand_as(diagonal), atol=1e-4)


def llama_rewritten(model: Llama, x: torch.Tensor) -> torch.Tensor:
    """The decoder in plain matrices, with an explicit mask."""
    embedding, *blocks, norm, head = model

    def normed(layer: nn.RMSNorm, x: torch.Tensor) -> torch.Tensor:
        return x / (x.square().mean(-1, keepdim=True) + EPSILON).sqrt() * layer.weight

    x = embedding.weight[x]
    length = x.shape[1]
    mask = torch.full((length, length), -math.inf, dtype=x.dtype).triu(1)
    for block in blocks:
        part, y = block.attention, normed(block.before_attention, x)
        heads = [
            (y @ layer.weight.T).view(*y.shape[:2], part.heads, -1).permute(0, 2, 1, 3)
            for layer in (part.query, part.key, part.value)
        ]
        query, key, value = rotated(heads[0]), rotated(heads[1]), heads[2]
        scores = query @ key.transpose(2, 3) / math.sqrt(query.shape[3]) + mask
        seen = scores.softmax(-1) @ value
        x = x + seen.permute(0, 2, 1, 3).reshape(y.shape) @ part.out.weight.T
        part, y = block.feed_forward, normed(block.before_feed_forward, x)
        x = x + (silu(y @ part.gate.weight.T) * (y @ part.up.weight.T)) @ part.down.weight.T
    return normed(norm, x) @ head.weight.T


def test_llama_is_its_formulas():
    torch.manual_seed(0)
    model = Llama(30, width=24, heads=3, blocks=2).double()
    x = torch.randint(30, (2, 11))
    assert torch.allclose(model(x), llama_rewritten(model, x), atol=1e-12)


def test_positions_are_sines_and_cosines():
    code = sinusoids(9, 6)
    for t in range(9):
        for i in range(3):
            angle = t / 10_000 ** (2 * i / 6)
            expected = torch.tensor([math.sin(angle), math.cos(angle)])
            assert torch.allclose(code[t, 2 * i : 2 * i + 2], expected, atol=1e-5)


class Devices(TorchDispatchMode):
    """Where the results of all operations are."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        self.seen |= {t.device.type for t in tree_leaves(result) if isinstance(t, torch.Tensor)}
        return result


@pytest.mark.parametrize("name", ["transformer-tiny", "llama-tiny"])
def test_nothing_is_computed_on_another_device(name):
    model = MODELS[name](vocabulary=20).to("meta")
    with Devices() as devices:
        model(torch.zeros(2, 9, dtype=torch.int64, device="meta"))
    assert devices.seen == {"meta"}


def example(model: Transformer, x: torch.Tensor) -> torch.Tensor:
    """What PyTorch's word_language_model computes, (T, B) as there, on the same weights."""
    embedding, *layers, decoder = model
    width, length = embedding.tokens.embedding_dim, len(x)
    y = embedding.tokens(x) * math.sqrt(width)
    y = y + sinusoids(length, width)[:, None].to(y)
    mask = torch.log(torch.tril(torch.ones(length, length, dtype=y.dtype)))
    for ours in layers:
        layer = nn.TransformerEncoderLayer(width, 2, width, 0.0).double()
        layer.load_state_dict(ours.layer.state_dict())
        y = layer(y, src_mask=mask)
    return decoder(y).log_softmax(-1)


def test_w1_is_pytorchs_example():
    torch.manual_seed(0)
    model = Transformer(40, width=20, hidden=20, dropout=0.0).double()
    x = torch.randint(40, (13, 3))
    ours = model(x.T).log_softmax(-1).transpose(0, 1)
    assert torch.allclose(ours, example(model, x), atol=1e-12)
    with torch.no_grad():  # the fused kernel of evaluation
        assert torch.allclose(
            model.eval()(x.T).log_softmax(-1).transpose(0, 1), example(model, x), atol=1e-12
        )


def test_w1_begins_between_a_tenth_and_minus_a_tenth():
    torch.manual_seed(0)
    embedding, *_, decoder = Transformer(1000)
    for weight in (embedding.tokens.weight, decoder.weight):
        assert 0.099 < weight.abs().max() <= 0.1 and abs(weight.mean()) < 1e-3


@pytest.mark.parametrize("name", ["transformer-tiny", "llama-tiny"])
def test_a_run_of_layers_is_a_pipeline_stage(name):
    torch.manual_seed(0)
    model = MODELS[name](vocabulary=20).eval()
    x = torch.randint(20, (2, 7))
    for cut in range(1, len(model)):
        first, second = nn.Sequential(*[*model][:cut]), nn.Sequential(*[*model][cut:])
        assert torch.equal(second(first(x)), model(x))
