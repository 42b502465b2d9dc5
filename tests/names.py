"""The choices that a section offers, by name: what products of tests run over."""

from trainer.config.keys import sections, tag
from trainer.config.schema import Experiment


def names(section: str) -> tuple[str, ...]:
    """As they stand in the schema."""
    return tuple(tag(kind) for kind in sections(Experiment.model_fields[section].annotation))


ALGORITHMS, POLICIES, CODECS = names("algorithm"), names("sync"), names("codec")
