"""The runs whose bits `bench.goldens` keeps: algorithms x policies, each setting once, presets.

All are on the embedded digits, and a few rounds long. The settings are copied from the laws in
tests/, so that a test can change without making the record useless.
"""

from collections.abc import Mapping
from typing import Any

from bench.harness import ROOT
from trainer.config.load import load

PRESETS = ROOT / "fedctl" / "presets"
PRESET_ROUNDS = 4

BASE = {
    "seed": 4,
    "clients": 6,
    "rounds": 7,
    "data": {"partition": {"name": "dirichlet", "alpha": 1.0}},
    "schedule": {"batch_size": 32, "phases": [{"steps": 3}]},
}
HERE = {"metrics": {"port": None}, "cluster": {"backend": "gloo", "threads": 1, "timeout": 60}}

FREEZE = "sync.threshold=0.3 sync.ema=0.5"
POLICIES = {
    "full": "",
    "apf": f"sync.name=apf {FREEZE}",
    "gwpf": f"sync.name=gwpf {FREEZE}",
    "gwpf-released": "sync.name=gwpf-released sync.aliased=false sync.ema=0.5",
    "gaia": "sync.name=gaia sync.significance=0.05",
    "cmfl": "sync.name=cmfl sync.relevance=0.6",  # at the laws' 0.5 hardly anybody skips
}
ALGORITHMS = {
    "fedavg": "",
    "fedprox": "algorithm.name=fedprox algorithm.prox=0.1",
    "fedga": "algorithm.name=fedga",
    "scaffold-fresh": "algorithm.name=scaffold algorithm.controls=fresh",
    "scaffold-1": "algorithm.name=scaffold algorithm.controls=option-1",
    "scaffold-2": "algorithm.name=scaffold algorithm.controls=option-2",
    "fedsgd": "algorithm.name=fedsgd",
}
APF, GWPF, GAIA = POLICIES["apf"], POLICIES["gwpf"], POLICIES["gaia"]
FEDGA, SCAFFOLD, FEDSGD = (ALGORITHMS[name] for name in ("fedga", "scaffold-2", "fedsgd"))

HALF = "participation=0.5"
SERVER = "algorithm.server.momentum=0.9 algorithm.server.lr=0.5"
ADAPTIVE = ("adam", "yogi", "adagrad")
ADAM, ADAMW = (f"optimizer.name={name} optimizer.state" for name in ("adam", "adamw"))
DILOCO = f"{ADAMW}=keep algorithm.server.lr=0.7 algorithm.server.momentum=0.9"
MOMENTUM = "optimizer.momentum=0.9 optimizer.state"
DECAY = "optimizer.weight_decay=0.05 optimizer.decay_norm_and_bias"
WARMUP = (
    "optimizer.warmup_rounds=3 rounds=7 schedule.phases="
    '[{"rounds":2,"steps":2},{"rounds":2,"epochs":1,"lr_scale":0.5},{"steps":1,"lr_scale":0.1}]'
)
STRAGGLERS = "stragglers.unreachable=0.4 stragglers.slow=0.5"
NORM = (
    "model.name=cifar-resnet20 rounds=3 schedule.batch_size=16 "
    'schedule.phases=[{"steps":2}] evaluation.every=3'
)
RANDOM = f"{APF} rounds=8 sync.random_probability_ramp=10 sync.random"
RESUMED = "checkpoint.every=4"

OTHERS = {
    "half.fedavg": HALF,
    "half.fedga": f"{HALF} {FEDGA}",
    "half.scaffold-1": f"{HALF} {ALGORITHMS['scaffold-1']}",
    "half.scaffold-2": f"{HALF} {SCAFFOLD}",
    **{f"half.{name}": f"{HALF} {POLICIES[name]}" for name in ("apf", "gwpf", "gaia", "cmfl")},
    "server.momentum": SERVER,
    "server.nesterov": f"{SERVER} algorithm.server.nesterov=true",
    **{f"server.{name}": f"{SERVER} {POLICIES[name]}" for name in ("apf", "gwpf", "gaia")},
    "server.scaffold-2": f"{SCAFFOLD} {SERVER}",
    **{f"server.{name}": f"algorithm.server.name={name}" for name in ADAPTIVE},
    "server.adam-apf": f"algorithm.server.name=adam {APF}",
    "weighting.uniform": "algorithm.weighting=uniform",
    "weighting.uniform-fedsgd": f"{FEDSGD} algorithm.weighting=uniform",
    "momentum.keep": f"{MOMENTUM}=keep",
    "momentum.reset": f"{MOMENTUM}=reset",
    "momentum.nesterov": f"{MOMENTUM}=keep optimizer.nesterov=true",
    "momentum.keep-half-gwpf": f"{MOMENTUM}=keep {HALF} {GWPF}",
    "momentum.keep-apf": f"{MOMENTUM}=keep {APF}",
    "momentum.fedsgd": f"{FEDSGD} {MOMENTUM}=keep",
    "adam.reset": f"{ADAM}=reset",
    "adam.keep-half-gwpf": f"{ADAM}=keep {HALF} {GWPF}",
    "adam.scaffold-2": f"{SCAFFOLD} {ADAM}=keep",
    "adam.fedsgd": f"{FEDSGD} optimizer.name=adam",
    "adamw.weights": f"{ADAMW}=keep optimizer.decay_norm_and_bias=false",
    "adamw.diloco": f"{DILOCO} algorithm.server.nesterov=true",
    "decay.all": f"{DECAY}=true",
    "decay.weights": f"{DECAY}=false",
    "decay.weights-fedsgd": f"{FEDSGD} {DECAY}=false",
    "clip.fedavg": "optimizer.clip_norm=0.5",
    "clip.fedsgd": f"{FEDSGD} optimizer.clip_norm=0.5",
    "clip.scaffold-2": f"{SCAFFOLD} optimizer.clip_norm=0.5",
    "phases.fedavg": WARMUP,
    "phases.fedga": f"{FEDGA} {WARMUP}",
    "phases.scaffold-2": f"{SCAFFOLD} {WARMUP}",
    "batch.whole": 'schedule.batch_size=null schedule.phases=[{"steps":2}]',
    "stragglers.unreachable": "stragglers.unreachable=0.4",
    "stragglers.slow": "stragglers.slow=0.5",
    "stragglers.scaffold-2": f"{STRAGGLERS} {SCAFFOLD}",
    "stragglers.gwpf": f"{STRAGGLERS} {GWPF}",
    "stragglers.gaia": f"{STRAGGLERS} {GAIA}",
    "norm.mean": NORM,
    "norm.local": f"{NORM} model.buffers=local",
    "norm.estimated": f"{NORM} evaluation.bn_batches=4",
    "norm.local-half-apf": f"{NORM} model.buffers=local {HALF} {APF}",
    "norm.gwpf-decay": f"{NORM} {GWPF} {DECAY}=false",
    "norm.scaffold-fresh": f"{NORM} {ALGORITHMS['scaffold-fresh']}",
    "norm.group": f"{NORM} model.norm=group",
    "model.softmax": "model.name=softmax",
    "model.dropout": "model.name=dropout-cnn",
    "model.dropout-fedga": f"model.name=dropout-cnn {FEDGA}",
    "model.bf16": "model.precision=bf16",
    "data.label-noise": "data.label_noise=0.3",
    "data.label-noise-fedga": f"data.label_noise=0.3 {FEDGA}",
    "data.augment": "data.augment=true",
    "data.augment-scaffold-fresh": f"data.augment=true {ALGORITHMS['scaffold-fresh']}",
    "data.replacement": "data.sampling=replacement",
    "data.fixed": "data.sampling=fixed",
    "data.restart": "data.restart=true",
    "data.holdout": "data.holdout=0.3",
    "data.shared": "data.partition.name=shared",
    "data.shared-scaffold-2": f"data.partition.name=shared {SCAFFOLD}",
    "data.shards": "data.partition.name=shards",
    "data.sorted": "data.partition.name=percentage-iid data.partition.share=0.2",
    "data.everything": "data.partition.name=percentage-iid data.partition.share=-1",
    "data.classes": "data.partition.over=classes",
    **{
        f"fp64.{name}": f"model.precision=fp64 codec.name=fp64 {ALGORITHMS[name]}"
        for name in ("fedavg", "fedga", "scaffold-2", "fedsgd")
    },
    "fp64.codec-alone": "codec.name=fp64",
    **{f"bf16.{name}": f"codec.name=bf16 {policy}" for name, policy in POLICIES.items()},
    "bf16.scaffold-2": f"codec.name=bf16 {SCAFFOLD}",
    "bf16.fedga-apf": f"codec.name=bf16 {FEDGA} {APF}",
    "bf16.fedsgd": f"codec.name=bf16 {FEDSGD}",
    "random.sharp": f"{APF} rounds=8 sync.random=sharp",
    "random.plus": f"{RANDOM}=plus sync.random_length_ramp=2",
    "random.aggressive": f"{RANDOM}=aggressive",
    "evaluation.alignment": "evaluation.alignment=true",
    "evaluation.alignment-fedga": f"evaluation.alignment=true {FEDGA}",
    "evaluation.alignment-apf": f"evaluation.alignment=true evaluation.every=2 {APF}",
    "evaluation.agreed-gwpf": f"evaluation.model=agreed evaluation.at_start=true {GWPF}",
    "evaluation.agreed-gaia": f"evaluation.model=agreed {GAIA}",
    "evaluation.target": "evaluation.target=0.2",
    "samples.fedga": f"{FEDGA} algorithm.gradient_samples=40",
    "samples.scaffold-1": f"{ALGORITHMS['scaffold-1']} algorithm.gradient_samples=40",
    "long.gwpf": f"rounds=15 {GWPF} sync.max_frozen_rounds=3",
    "long.gwpf-half": f"rounds=15 {GWPF} {HALF} sync.quorum=0.7",
    "long.apf": f"rounds=15 {APF}",
    **{f"resumed.{name}": f"{RESUMED} {policy}" for name, policy in POLICIES.items()},
    "resumed.scaffold-2": f"{RESUMED} {SCAFFOLD} {HALF} {MOMENTUM}=keep",
    "resumed.server": f"{RESUMED} {SERVER} data.label_noise=0.3",
    "resumed.diloco": f"{RESUMED} {DILOCO} {HALF}",
    "resumed.yogi": f"{RESUMED} algorithm.server.name=yogi",
    "resumed.fedsgd": f"{RESUMED} {FEDSGD} {MOMENTUM}=keep",
    "resumed.random": f"{RESUMED} {RANDOM}=plus",
    "resumed.norm": f"{NORM} model.buffers=local checkpoint.every=2",
}

Case = tuple[Mapping[str, Any], tuple[str, ...]]  # an experiment, and what is set beside it


def cases() -> dict[str, Case]:
    """All cases, under names that a file can have."""
    product = {
        f"{algorithm}.{policy}": f"{one} {other}"
        for algorithm, one in ALGORITHMS.items()
        for policy, other in POLICIES.items()
    }
    own = {name: (BASE | HERE, tuple(text.split())) for name, text in (product | OTHERS).items()}
    return own | {f"preset.{name}": (tree, ()) for name, tree in _presets().items()}


def _presets() -> dict[str, dict[str, Any]]:
    """Those on the embedded digits, shortened; of the phases too, so that each is entered."""
    trees = {}
    for path in sorted(PRESETS.glob("*.yaml")):
        experiment, _ = load(path.stem, presets=PRESETS)
        if experiment.data.name == "digits" and experiment.parallel.pipeline == 1:
            tree = experiment.model_dump(mode="json") | HERE
            tree["rounds"] = min(tree["rounds"], PRESET_ROUNDS)
            for phase in tree["schedule"]["phases"][:-1]:
                phase["rounds"] = min(phase["rounds"], PRESET_ROUNDS // 2)
            trees[path.stem] = tree
    return trees
