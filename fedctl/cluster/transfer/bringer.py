"""Script that runs in a helper pod for `fedctl fetch`: from a run's URL to the disk of the pod.

Its text is the argument of `python -c` there, where the trainer is, and the run's credentials are
in the environment. packer.py sends the files on.
"""

import os
import sys
from collections.abc import Iterable
from pathlib import Path

from trainer.config.errors import ConfigError, EnvironmentFault
from trainer.storage.objects import VARIABLE, Objects


def bring(url: str, folder: Path, wanted: Iterable[str]) -> None:
    """Copy the files at these names and below them; one at a time, as the pod has little memory."""
    kept = Objects(url)
    tops = {name.rstrip("/") for name in wanted}
    for name in kept.names():
        path = folder / name
        if "." in tops or any(name == top or name.startswith(f"{top}/") for top in tops):
            path.parent.mkdir(parents=True, exist_ok=True)
            kept.fetch(name, path)


if __name__ == "__main__":
    try:
        bring(os.environ[VARIABLE], Path(sys.argv[1]), sys.argv[2:])
    except (ConfigError, EnvironmentFault) as error:
        sys.exit(str(error))
