"""Agreement: what decides which values travel is compared after each round, before it is used.

Every rank computes for itself which values are left out, or along which directions matrices travel.
If one rounds otherwise, has faulty memory or other software, ranks would add up values of different
places, or wait for messages of other lengths. So each puts a part of a digest of what it holds into
the settling of the ledger, which comes after each round, has the same length whatever the places
are, and is on its way anyway. Only an evaluation of what clients hold apart comes before it, so
that digests are compared before that too.
"""

from collections import Counter
from collections.abc import Sequence

from torch import Tensor

from trainer.config.errors import EnvironmentFault
from trainer.engine.parts import Parts, RankState
from trainer.exchange.digest import as_number, digest
from trainer.exchange.message import Places


class Disagreement(EnvironmentFault):
    """Ranks hold different places or bases, so what they exchange would make no sense."""


def note(rank: RankState, places: Places) -> None:
    """Put what this rank holds at the end of a round into its ledger; places: that travelled."""
    decisive = _decisive(rank.parts) if rank.parts.group.size > 1 else {}
    if not decisive:
        return
    vectors = [vector for own in decisive.values() for vector in own]
    if places.mask is not None:
        vectors.append(places.mask)
    rank.ledger.digest = as_number(digest(vectors, rank.parts.group.device))


def compare(rank: RankState, saved: int) -> None:
    """As `check`, before an evaluation, which may exchange as many values as are left out."""
    if rank.parts.policy.keeps and rank.experiment.evaluation.model == "mean":
        rank.ledger.tell_digests()
        check(rank, rank.server.number, saved)


def check(rank: RankState, number: int, saved: int) -> None:
    """Raise Disagreement, the same on every rank, if one held something else after a round.

    The ledger was settled since. number: the round; saved: the round of the newest checkpoint.
    """
    digests, stages = rank.ledger.digests, rank.parts.line.size
    for stage in range(stages):
        ranks = range(stage, len(digests), stages)
        odd, others = dissenting([digests[r] for r in ranks])
        if odd:
            named = _listed([ranks[at] for at in odd])
            raise Disagreement(_line(rank.parts, named, others=others, number=number, saved=saved))


def dissenting(digests: Sequence[int]) -> tuple[list[int], bool]:
    """Return which of the digests differ from that of the majority, and whether there is one.

    Without one nobody can say who is right, so all are returned.
    """
    counted = Counter(digests).most_common(1)
    if not counted or counted[0][1] == len(digests):
        return [], True
    right, count = counted[0]
    majority = 2 * count > len(digests)
    return [at for at, own in enumerate(digests) if own != right or not majority], majority


def _decisive(parts: Parts) -> dict[str, Sequence[Tensor]]:
    """Return by what ranks choose the values that travel, under its name; empty: by nothing."""
    held = {
        "which values travel": parts.policy.decisive(),
        "the bases of low rank": parts.reduction.decisive(),
    }
    return {name: vectors for name, vectors in held.items() if vectors is not None}


def _line(parts: Parts, named: str, *, others: bool, number: int, saved: int) -> str:
    whom = "the other ranks" if others else "each other"
    verb = "disagree" if named.startswith("ranks") else "disagrees"
    kept = f" from the checkpoint of round {saved} with --resume RUN" if saved else ""
    return (
        f"{named} {verb} with {whom} after round {number} on {' and '.join(_decisive(parts))}; "
        "give all ranks the same kind of processor and the same versions, test the memory of "
        f"theirs, and start again{kept}"
    )


def _listed(ranks: Sequence[int]) -> str:
    *most, last = map(str, ranks)
    return f"ranks {', '.join(most)} and {last}" if most else f"rank {last}"
