"""Rejection of images whose size a network cannot take.

Each network knows its own limits; only the messages are here. Layer 1.
"""

from trainer.config.errors import ConfigError

KEY = "model.name"


def at_least(name: str, in_shape: tuple[int, int, int], side: int, *, otherwise: str = "") -> None:
    """Reject images with a side below `side` pixels; `otherwise` is a second remedy."""
    _, height, width = in_shape
    if min(height, width) < side:
        raise ConfigError(
            KEY,
            f"{name} needs images of {side}x{side} or more, not {height}x{width}; "
            f"set data.resize to at least {side}{otherwise}",
        )


def exactly(name: str, in_shape: tuple[int, int, int], side: int) -> None:
    """Reject images that are not `side` pixels high and wide."""
    _, height, width = in_shape
    if (height, width) != (side, side):
        raise ConfigError(
            KEY,
            f"{name} needs images of {side}x{side}, not {height}x{width}; set data.resize={side}",
        )
