"""The choices that a section offers, by name: what products of tests run over."""

from trainer.config.base import Section
from trainer.config.keys import sections, tag
from trainer.config.learning import FedAvg
from trainer.config.schema import Experiment


def names(section: str, of: type[Section] = Experiment) -> tuple[str, ...]:
    """As they stand in the schema."""
    return tuple(tag(kind) for kind in sections(of.model_fields[section].annotation))


ALGORITHMS, POLICIES, CODECS = names("algorithm"), names("sync"), names("codec")
OPTIMIZERS, SERVERS = names("optimizer"), names("server", FedAvg)
