"""Laws of averages within nodes, which come between two exchanges of all clients."""

from typing import Any

import numpy as np
import pytest

from tests import bounds, checkpoint_jobs, law_jobs, node_jobs, pipeline_jobs
from tests.jobs import history
from tests.laws.test_state_laws import CODEC
from tests.ranks import ranks
from trainer.config.errors import ConfigError
from trainer.config.load import load

BASE: dict[str, Any] = {
    "seed": 7,
    "clients": 4,
    "data": {"partition": {"name": "dirichlet", "alpha": 1.0}},
    "placement": "fixed",
}
KEPT = {"optimizer": {"momentum": 0.9, "state": "keep"}}


def noded(members: int, every: int, steps: int, **settings: Any) -> dict[str, Any]:
    nodes = {"clients": members, "every": every}
    return BASE | settings | {"schedule": scheduled(steps) | {"nodes": nodes}}


def scheduled(steps: int) -> dict[str, Any]:
    return {"batch_size": 32, "phases": [{"steps": steps}]}


@pytest.mark.parametrize("codec", [name for name in CODEC if not name.endswith("-ahead")])
@pytest.mark.parametrize("every", [3, 5])
def test_with_no_average_in_a_round_it_is_local_sgd_to_the_bit(every, codec):
    """The last steps of a round end in the exchange of all, and not in a node's average."""
    changes = {"codec": CODEC[codec]}
    plain = ranks(4).run(law_jobs.models, BASE | changes | {"schedule": scheduled(3)}, 3)
    within = ranks(4).run(law_jobs.models, noded(2, every, 3, **changes), 3)
    for ours, theirs in zip(within, plain, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            assert np.array_equal(a["anchor"], b["anchor"])


@pytest.mark.parametrize("size", [2, 4])
def test_one_node_of_all_clients_averages_as_rounds_of_its_own_would(size):
    """b averages after H steps each are b rounds of H steps; momentum is each client's own."""
    every, blocks, rounds = 2, 3, 3
    changes = bounds.DOUBLE | KEPT | {"clients": size}
    node = noded(size, every, blocks * every, **changes)
    one = ranks(size).run(history, node, rounds, "fixed")[0]
    plain = BASE | changes | {"schedule": scheduled(every)}
    many = ranks(size).run(history, plain, blocks * rounds, "fixed")[0]
    for number in range(1, rounds + 1):
        difference = np.abs(one[number]["anchor"] - many[blocks * number]["anchor"]).max()
        assert difference < bounds.of_runs(many)
    alone = BASE | changes | {"schedule": scheduled(blocks * every)}
    apart = ranks(size).run(history, alone, rounds, "fixed")[0]
    assert bounds.apart(one, apart) > 10 * bounds.of_runs(many), "averages changed nothing"


@pytest.mark.parametrize("weighting", ["samples", "uniform"])
def test_an_average_is_the_nodes_mean_and_moves_no_mean_of_all(weighting):
    every, steps, rounds = 2, 5, 2
    tree = noded(2, every, steps, **bounds.DOUBLE, algorithm={"weighting": weighting})
    results = ranks(4).run(node_jobs.averages, tree, rounds)
    assert all(len(rows) == steps * rounds for rows in results)
    averaged = 0
    for step in zip(*results, strict=True):
        weights = np.array([row["weight"] for row in step])
        before, after = (np.stack([row[name] for row in step]) for name in ("before", "after"))
        rounding = bounds.of_sums(4, np.abs(before).max(), bounds.FP64)
        total = weights / weights.sum()
        assert np.abs(total @ before - total @ after).max() < rounding
        if step[0]["last"] or step[0]["taken"] % every:
            assert np.array_equal(before, after)
            continue
        averaged += 1
        for first in (0, 2):
            own = weights[first : first + 2] / weights[first : first + 2].sum()
            mean = own @ before[first : first + 2]
            assert np.abs(after[first] - mean).max() < rounding
            assert np.array_equal(after[first], after[first + 1])
        assert np.abs(after[0] - after[2]).max() > rounding, "nodes are one"
    assert averaged == 2 * rounds


@pytest.mark.parametrize("codec", ["fp32", "int4", "lowrank"])
def test_what_nodes_send_is_counted_apart_and_the_rest_is_as_ever(codec):
    every, blocks = 1, 3
    changes = {"codec": CODEC[codec]}
    within = ranks(4).run(history, noded(2, every, blocks, **changes), 2, "fixed")[0][1:]
    plain = BASE | changes | {"schedule": scheduled(blocks)}
    without = ranks(4).run(history, plain, 2, "fixed")[0][1:]
    size = len(within[0]["anchor"])
    for ours, theirs in zip(within, without, strict=True):
        # in each of two nodes, a ring of two ranks: 2 (W - 1) times the model, in all
        assert ours["wire"].pop("node") == (blocks - 1) * 2 * 2 * 4 * size
        for name in ("steps", "samples", "payload", "formed", "dense"):
            assert ours[name] == theirs[name]
        for kind in ("values", "votes", "buffers"):
            assert ours["wire"][kind] == theirs["wire"][kind]


@pytest.mark.parametrize("codec", ["fp32", "int8", "lowrank"])
def test_resuming_changes_no_bit(codec, tmp_path):
    tree = noded(2, 1, 3, codec=CODEC[codec], **KEPT)
    for result in ranks(4).run(checkpoint_jobs.restored, tree, str(tmp_path)):
        assert result["differing"] == []


def test_pipelines_average_as_single_ranks_do():
    tree = noded(2, 1, 3, clients=2)
    results = ranks(4).run(pipeline_jobs.trained, tree | {"parallel": {"pipeline": 2}}, 3)
    alone = ranks(2).run(pipeline_jobs.trained, tree, 3)[0]
    for name, values in alone["model"].items():
        assert np.array_equal(results[0]["model"][name], values)


@pytest.mark.parametrize(
    "changes,line",
    [
        ({"clients": 3}, "3 clients are no whole nodes; set it to 1"),
        ({"ranks": 2}, "each on a rank of its own; set ranks=4 and placement=fixed, or it to 1"),
        ({"placement": "dealt"}, "set ranks=4 and placement=fixed, or it to 1"),
        ({"participation": 0.5}, "waits for each of its clients, and participation is 0.5; set it"),
        ({"stragglers": {"slow": 0.5}}, "take the same steps; set stragglers.slow=0"),
        ({"sync": {"name": "gwpf"}}, "averages all values of its clients, and gwpf leaves values"),
        ({"algorithm": {"name": "fedsgd"}}, "averages between local steps, and fedsgd has none"),
        ({"algorithm": {"name": "scaffold"}}, "by its own steps; set it to 1, or algorithm.name="),
        ({"algorithm": {"name": "fedga"}}, "algorithm.name=fedavg or fedprox"),
        ({"codec": CODEC["sparse-ahead"]}, "codec.step_ahead starts each .*codec.step_ahead=false"),
    ],
)
def test_what_has_no_nodes_is_refused_in_a_line(changes, line):
    tree = noded(2, 1, 3) | {"ranks": 4} | changes
    if "clients" in changes:
        tree["ranks"] = changes["clients"]
    with pytest.raises(ConfigError, match=line) as error:
        load(tree)
    assert error.value.key == "schedule.nodes.clients"
    load(tree | {"schedule": scheduled(3)})
