"""GWPF's Transformer for language: gwpf-transformer, and transformer-tiny for laptops.

It is PyTorch's word_language_model as GWPF's task W1 uses it. It is an nn.Sequential of embedding,
layers and decoder, so a pipeline stage is a contiguous part of it. Layer 1.
"""

import math

import torch
from torch import Tensor, nn

INITIAL = 0.1  # embedding and decoder weights start between -INITIAL and INITIAL
LONGEST_WAVE = 10_000.0  # of the positions' sinusoids, in tokens over 2 pi


def sinusoids(length: int, width: int, device: torch.device | None = None) -> Tensor:
    """Return the positions' code of Vaswani et al. 2017, section 3.5: (length, width) float32.

    Column 2i is sin(t / 10000^(2i / width)) at position t, column 2i + 1 the cosine of the same.
    """
    rates = torch.exp(torch.arange(0, width, 2, device=device) * (-math.log(LONGEST_WAVE) / width))
    angles = torch.arange(length, device=device)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], 2).flatten(1)


class Embedding(nn.Module):
    """Tokens (B, T) to vectors (B, T, width): embedding times sqrt(width), plus the code of places.

    The code is computed, not a buffer: clients exchange float buffers, and this one never changes.
    """

    def __init__(self, vocabulary: int, width: int, dropout: float) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        vectors = self.tokens(x) * math.sqrt(self.tokens.embedding_dim)
        code = sinusoids(x.shape[1], vectors.shape[2], x.device)
        out: Tensor = self.dropout(vectors + code.to(vectors))
        return out


class Layer(nn.Module):
    """A post-norm encoder layer in which each position sees itself and those before it."""

    def __init__(self, width: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(width, heads, hidden, dropout, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1], x.device, x.dtype)
        out: Tensor = self.layer(x, src_mask=mask, is_causal=True)
        return out


class Transformer(nn.Sequential):
    """GWPF's W1: 13,828,478 parameters for WikiText-2's 33,278 words; 27 tensors.

    Weights of embedding and decoder are not tied. The original ends in log_softmax; this one
    returns logits (B, T, vocabulary), as all networks here do.
    """

    def __init__(
        self,
        vocabulary: int = 33_278,
        *,
        width: int = 200,
        heads: int = 2,
        hidden: int = 200,
        layers: int = 2,
        dropout: float = 0.2,
    ) -> None:
        embedding, decoder = Embedding(vocabulary, width, dropout), nn.Linear(width, vocabulary)
        nn.init.uniform_(embedding.tokens.weight, -INITIAL, INITIAL)
        nn.init.uniform_(decoder.weight, -INITIAL, INITIAL)
        super().__init__(
            embedding, *(Layer(width, heads, hidden, dropout) for _ in range(layers)), decoder
        )
