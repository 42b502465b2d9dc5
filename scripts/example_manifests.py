"""Owns manifests/examples, what a submit would send: `python -m scripts.example_manifests DIR`.

Every preset as a PyTorchJob, and a few of them as they are for the other backends and queues.
"""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from fedctl import bundled
from fedctl.chart import helm, values
from trainer.config.load import load

RANKS = 4  # of a preset that leaves them open
NAMESPACE = "team-a"
KUEUE = {"queue.kind": "kueue", "queue.name": "gpus"}
RACK = {
    "scheduling.topology.key": "topology.example.com/rack",
    "scheduling.topology.required": True,
}
EXAMPLES = [
    *((f"pytorchjob/{name}", name, {}) for name in bundled.presets()),
    ("pytorchjob-kueue/gwpf-digits", "gwpf-digits", KUEUE),
    *(
        (
            f"{backend}-kueue/pipelines-digits",
            "pipelines-digits",
            {"backend": backend} | KUEUE | RACK,
        )
        for backend in ("pytorchjob", "trainjob", "job")
    ),
    ("trainjob/gwpf-digits", "gwpf-digits", {"backend": "trainjob"}),
    ("trainjob-kueue/gwpf-digits", "gwpf-digits", {"backend": "trainjob"} | KUEUE),
    ("job/gwpf-digits", "gwpf-digits", {"backend": "job"}),
    (
        "job-infiniband/local-sgd-imagenet",
        "local-sgd-imagenet",
        {"backend": "job", "network.profile": "infiniband", "podSecurity": "privileged"},
    ),
]


def sets(preset: str) -> list[str]:
    """Return the settings of a preset's examples."""
    experiment, _ = load(preset, presets=bundled.PRESETS)
    open_ = experiment.ranks == 1 and experiment.clients >= RANKS
    return [f"ranks={RANKS}"] if open_ else []


def main(folder: Path) -> None:
    def write(example: tuple[str, str, dict[str, Any]]) -> None:
        path, preset, options = example
        release = values.release(preset, sets(preset), namespace=NAMESPACE, options=options)
        file = folder / f"{path}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(helm.template(release), "utf-8")

    with ThreadPoolExecutor(4) as pool:  # Helm is a process each
        list(pool.map(write, EXAMPLES))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
