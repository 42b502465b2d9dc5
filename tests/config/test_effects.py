"""Settings without effect: refused where they were asked for, carried where a preset has them."""

import pytest

from trainer.config import documents
from trainer.config.errors import ConfigError
from trainer.config.keys import sections
from trainer.config.load import load
from trainer.config.schema import Experiment

INEFFECTIVE = [
    ("data.path=/none", "data.path: has no effect while data.name is digits; drop it, or set "
     "data.name=npz"),
    ("data.threads=2", "data.threads: has no effect while data.name is digits; drop it, or set "
     "data.name=imagenet"),
    ("optimizer.state=keep", "optimizer.state: has no effect while optimizer.momentum is 0.0"),
    ("optimizer.warmup_lr=0.1", "optimizer.warmup_lr: has no effect while optimizer.warmup_rounds"),
    ("stragglers.least=0.5", "stragglers.least: has no effect while stragglers.slow is 0.0"),
    ("metrics.wandb.project=x", "metrics.wandb.project: has no effect while metrics.wandb.mode is "
     "disabled; drop it, or set metrics.wandb.mode=offline or online"),
    ("metrics.mlflow.uri=http://x", "metrics.mlflow.uri: has no effect while metrics.mlflow.enabled"
     " is false; drop it, or set metrics.mlflow.enabled=true"),
    ("schedule.phases=[{steps: 5, lr_end: 0.1}]", "schedule.phases.0.lr_end: has no effect while "
     "schedule.phases.0.decay is null; drop it, or set schedule.phases.0.decay=cosine or linear"),
    ("model.groups=4", "model.groups: has no effect while model.norm is null; drop it"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "line"), INEFFECTIVE, ids=[text for text, _ in INEFFECTIVE])
def test_a_setting_without_effect_is_refused_where_it_was_asked_for(tmp_path, text, line):
    key, _, value = text.partition("=")
    (tmp_path / "base.yaml").write_text(f"{key}: {value}\n")
    (tmp_path / "mine.yaml").write_text("extends: base.yaml\n")
    for source, sets in (({}, [text]), (tmp_path / "base.yaml", [])):
        with pytest.raises(ConfigError) as error:
            load(source, sets=sets)
        assert str(error.value).startswith(line)
    carried, _ = load(tmp_path / "mine.yaml")
    (tmp_path / "whole.json").write_text(carried.canonical())
    assert load(tmp_path / "whole.json")[0] == carried  # as resume reads it


def test_what_can_be_ineffective_names_settings_that_exist():
    def sections_below(section):
        yield section
        for field in section.model_fields.values():
            for below in sections(field.annotation):
                yield from sections_below(below)

    declared = 0
    for section in sections_below(Experiment):
        for name, only in section.effects.items():
            declared += 1
            assert name in section.model_fields and only.key in section.model_fields
            valid = [*only.values] or [*documents.parse(f"[{only.remedy}]", "remedy")]
            assert valid and all(map(only.holds, valid))
    assert declared > 15
