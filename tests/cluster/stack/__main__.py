"""Owns `scripts/cluster`: a cluster on this machine until Ctrl-C."""

import signal
import sys
from pathlib import Path

from tests.cluster.stack import leftovers, parts
from tests.cluster.stack.cluster import FOLDER, Cluster
from tests.cluster.stack.processes import Failed


def main(words: list[str]) -> None:
    verb, *archives = words
    if verb == "build":
        parts.ensure()
    elif verb == "down":
        leftovers.remove(FOLDER)
    else:
        _up([Path(archive) for archive in archives])


def _up(archives: list[Path]) -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    cluster = Cluster()
    try:
        cluster.up()
        for archive in archives:
            cluster.load(archive)
        print(f"up: export KUBECONFIG={cluster.kubeconfig()}", flush=True)
        signal.pause()
    except KeyboardInterrupt:
        pass
    finally:
        cluster.down()


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except Failed as error:
        sys.exit(f"cluster: {error}")
