"""Random streams, each a function of its key, so that a checkpoint never holds a generator.

No other module numbers the purposes of random draws. Two purposes never share a number, and a key
includes its own length, so no two streams of a run can be the same.
"""

from enum import IntEnum, unique

import numpy as np
import torch


@unique
class Purpose(IntEnum):
    """The purpose of a stream. The numbers are part of every result: never change one."""

    ORDER = 100  # (seed, ORDER, client, pass): the order of a client's samples
    SAMPLING = 101  # (seed, SAMPLING, round): the clients of a round
    TURN = 102  # (seed, TURN, client, round): augmentation, dropout, label noise
    FULL_GRADIENT = 103  # (seed, FULL_GRADIENT, client, round): the same, for the full gradient
    DEAL = 104  # (seed, DEAL, pass): the order of samples that all clients share
    UNREACHABLE = 105  # (seed, UNREACHABLE, round): clients that never answer
    SLOW = 106  # (seed, SLOW, client, round): whether a client is late, and by how much
    ESTIMATE = 107  # (seed, ESTIMATE, rank, round): batches for BatchNorm's statistics
    FREEZING = 110  # (seed, FREEZING, round): random freezing in APF# and its relatives
    CROP = 111  # (seed of a turn's stream, CROP, batch): random crops of images in files
    ROUNDING = 112  # (seed, ROUNDING, round, client or owner, vector): stochastic rounding
    BASIS = 113  # (seed, BASIS, matrix): the first basis of a low-rank code
    STAGGER = 114  # (seed, STAGGER, tensor): by how much parameters' frozen periods are shifted
    CHOICE = 115  # (seed, CHOICE, round, exchange): the values that travel in a round
    DROPOUT = 120  # (seed, DROPOUT, purpose, client, round, stage): of a pipeline's later stages


def stream(seed: int, purpose: Purpose, *place: int) -> torch.Generator:
    """Create a generator on the CPU that depends on the whole key and on nothing else."""
    # With the key's length, since (1, 2) and (1, 2, 0) are the same entropy to numpy.
    key = (seed, int(purpose), *place)
    (state,) = np.random.SeedSequence((*key, len(key))).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state) >> 1)  # 63 bits suit every device
