"""Checks of what is typed, before anything is made: the folder of --out, and --ranks with --set."""

from collections.abc import Sequence
from pathlib import Path
from stat import S_ISDIR

from fedctl.errors import UserError
from trainer.config.errors import ConfigError, cut
from trainer.config.load import parse_set

LONGEST_PATH = 300  # characters of a folder in a message


def refuse_no_folder(folder: Path) -> None:
    """Raise unless --out names a folder, or one that can be made in the folders above it."""
    shown = cut(str(folder), LONGEST_PATH)
    for path in (folder, *folder.parents):
        try:
            mode = path.stat().st_mode
        except (FileNotFoundError, NotADirectoryError):
            if path.is_symlink():
                raise UserError(f"--out {shown}: {path} is a link to nothing; remove it") from None
            continue  # the folder above it says more
        except (OSError, ValueError) as error:  # a name that is too long, or links in a loop
            problem = getattr(error, "strerror", None) or str(error)
            raise UserError(f"--out {shown}: {problem.lower()}; name another folder") from None
        if not S_ISDIR(mode):
            what = "is a file" if path == folder else f"{path} is a file"
            raise UserError(
                f"--out {shown}: {what}; name a folder that is empty or does not exist yet"
            )
        return


def with_ranks(sets: Sequence[str], ranks: int | None) -> list[str]:
    """Return the settings of --set with that of --ranks; raise if both give it another value."""
    if ranks is None:
        return [*sets]
    for key, value in map(parse_set, sets):
        if key == "ranks" and value != ranks:
            raise ConfigError("ranks", f"--ranks {ranks} and --set ranks={value}; drop one of them")
    return [*sets, f"ranks={ranks}"]
