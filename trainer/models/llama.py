"""Decoders like LLaMA (Touvron et al. 2023): llama-26m, and llama-tiny for laptops.

Each is an nn.Sequential of embedding, blocks, norm and head, so a pipeline stage is a contiguous
part of it. Layer 1.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention, silu

THETA = 10_000.0
EPSILON = 1e-5


def rotated(x: Tensor) -> Tensor:
    """Rotate queries or keys (B, heads, T, D) by their positions (RoFormer, Su et al. 2021).

    Values 2i and 2i + 1 are the real and imaginary part of a number, which is multiplied by
    exp(j t THETA^(-2i / D)) at position t, in single precision at least, as in LLaMA's own code.
    """
    length, size = x.shape[2:]
    rates = THETA ** (-torch.arange(0, size, 2, device=x.device) / size)
    angles = torch.arange(length, device=x.device)[:, None] * rates  # (T, D / 2)
    cos, sin = angles.cos(), angles.sin()  # fp32, to which bf16 values are promoted
    real, imaginary = x[..., 0::2], x[..., 1::2]
    pairs = [real * cos - imaginary * sin, real * sin + imaginary * cos]
    return torch.stack(pairs, -1).flatten(-2).type_as(x)


class Attention(nn.Module):
    """Causal self-attention with rotary positions, without biases."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (
            nn.Linear(width, width, bias=False) for _ in range(4)
        )

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (
            layer(x).unflatten(2, (self.heads, -1)).transpose(1, 2)  # (B, heads, T, D)
            for layer in (self.query, self.key, self.value)
        )
        seen = scaled_dot_product_attention(rotated(query), rotated(key), value, is_causal=True)
        out: Tensor = self.out(seen.transpose(1, 2).flatten(2))
        return out


class SwiGLU(nn.Module):
    """The feed-forward part of Shazeer 2020: down(silu(gate(x)) * up(x))."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gate = nn.Linear(width, hidden, bias=False)
        self.up = nn.Linear(width, hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down(silu(self.gate(x)) * self.up(x))
        return out


class Block(nn.Module):
    """Attention and feed-forward part, each on normalised values and added to its input."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.before_attention = nn.RMSNorm(width, eps=EPSILON)
        self.attention = Attention(width, heads)
        self.before_feed_forward = nn.RMSNorm(width, eps=EPSILON)
        self.feed_forward = SwiGLU(width, 4 * width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.before_attention(x))
        out: Tensor = x + self.feed_forward(self.before_feed_forward(x))
        return out


class Llama(nn.Sequential):
    """The course's decoder: 26,398,368 parameters for LLaMA-2's 32,000 tokens.

    Embedding and head are not tied. It takes tokens (B, T) and returns logits (B, T, vocabulary).
    """

    def __init__(
        self, vocabulary: int = 32_000, *, width: int = 288, heads: int = 6, blocks: int = 6
    ) -> None:
        super().__init__(
            nn.Embedding(vocabulary, width),
            *(Block(width, heads) for _ in range(blocks)),
            nn.RMSNorm(width, eps=EPSILON),
            nn.Linear(width, vocabulary, bias=False),
        )
