"""The experiment: precedence, canonical form, and one clear line for each mistake."""

import json
import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedctl.chart.schema import Values
from fedctl.sweep.file import Sweep
from trainer.config.errors import ConfigError
from trainer.config.keys import settings
from trainer.config.learning import FedAvg
from trainer.config.load import load, parse_set
from trainer.config.optimizers import AdamW, ServerSGD, ServerYogi
from trainer.config.schema import Experiment


@pytest.fixture
def presets(tmp_path):
    folder = tmp_path / "presets"
    folder.mkdir()
    (folder / "base.yaml").write_text(
        "rounds: 7\noptimizer: {lr: 0.5}\nsync: {name: gwpf, threshold: 0.1}\n"
    )
    (folder / "child.yaml").write_text("extends: base\nrounds: 8\n")
    (folder / "loop.yaml").write_text("extends: loop\n")
    return folder


def test_one_of_a_kind_is_not_several():
    assert load({}, sets=["clients=1"])[0].sizes() == "1 client on 1 rank"
    assert load({}, sets=["clients=5", "ranks=2"])[0].sizes() == "5 clients on 2 ranks"


def test_precedence_is_defaults_then_preset_then_file_then_set(presets, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("extends: child\nclients: 5\n")
    experiment, origins = load(file, sets=["optimizer.lr=1e-3"], presets=presets)
    assert (experiment.rounds, experiment.clients) == (8, 5)
    assert experiment.optimizer.lr == 1e-3
    assert experiment.sync.threshold == 0.1
    assert origins["rounds"] == "preset child"
    assert origins["sync.threshold"] == "preset base"
    assert origins["clients"] == f"file {file}"
    assert origins["optimizer.lr"] == "--set"
    assert "seed" not in origins


def test_another_name_drops_the_settings_of_the_old_choice(presets):
    experiment, origins = load("base", sets=["sync.name=apf"], presets=presets)
    assert (
        experiment.sync.threshold
        == Experiment.model_validate({"sync": {"name": "apf"}}).sync.threshold
    )
    assert "sync.threshold" not in origins
    same, _ = load("base", sets=["sync.name=gwpf"], presets=presets)
    assert same.sync.threshold == 0.1


def test_items_of_a_list_are_set_by_number():
    experiment, _ = load({}, sets=["schedule.phases.0.steps=9"])
    assert experiment.schedule.phases[0].steps == 9


MISTAKES = [
    (["rouns=3"], "rouns: unknown key; did you mean rounds?"),
    (["lr=3"], "lr: unknown key; did you mean optimizer.lr?"),
    (["sync.name=gwpf", "sync.quorun=1"], "sync.quorun: unknown key; did you mean sync.quorum?"),
    (["sync.quorum=1"], "sync.quorum: unknown key; it belongs to sync.name=gwpf"),
    (["rounds=true"], "rounds: true: input should be a valid integer"),
    (["rounds=010"], "rounds: 010 is a number to some readers of YAML, and text to others"),
    (["rounds=1:30"], "rounds: 1:30 is a number to some readers of YAML"),
    (["rounds=2024-01-01"], "rounds: '2024-01-01': input should be a valid integer"),
    (["rounds={a: 1, a: 2}"], "rounds: a is given twice"),
    (["clients=1000000000000"], "clients: 1000000000000: input should be less than or equal to 1"),
    (["seed=18446744073709551616"], "seed: 18446744073709551616: input should be less than or"),
    (["rounds=1" + "0" * 5000], "rounds: has a number of 5001 digits; at most 30 are read"),
    (["name=" + "x" * 5000], "name: use lower-case letters"),
    (["rounds=" + "x" * 5000], "rounds: '" + "x" * 79 + "...: input should be a valid integer"),
    (["schedule.phases.²=1"], "schedule.phases: a map: write a list, phases: [A, B]"),
    (["data.std=[0]"], "data.std.0: 0: input should be greater than 0"),
    (["rounds=0"], "rounds: 0: input should be greater than or equal to 1"),
    (["participation=1.5"], "participation: 1.5: input should be less than or equal to 1"),
    (["rounds=abc"], "rounds: 'abc': input should be a valid integer"),
    (
        ["sync.name=magic"],
        "sync.name: 'magic' is not one of 'full', 'apf', 'gwpf', 'gwpf-released'",
    ),
    (["ranks=20"], "ranks: 20 is more than clients (10)"),
    (["data.name=npz"], "data: name npz needs path; set data.path"),
    (["name=Foo_bar"], "name: use lower-case letters"),
    (["schedule.phases.3.steps=1"], "schedule.phases.3.steps: schedule.phases has no item 3"),
    (["schedule.phases.0.epochs=1"], "schedule.phases.0: set either steps or epochs"),
    (
        ["schedule.phases.0.rounds=4", "schedule.phases.0.total_steps=9"],
        "schedule.phases.0: set either rounds or total_steps, and leave the other empty",
    ),
    (
        ["schedule.phases=[{epochs: 1, alpha: 0.1}]"],
        "schedule.phases.0: alpha and total_steps count local steps; set steps instead of epochs",
    ),
    (
        ["schedule.phases.0.decay=cosine"],
        "schedule.phases.0: a decay ends with its phase; set total_steps, or rounds",
    ),
    (
        ["schedule.phases=[{steps: 5, alpha: 0.1, rounds: 9, decay: linear}]"],
        "schedule.phases.0: with alpha and a decay, the phase's length is in total_steps; set it",
    ),
    (
        ["rounds=9", "schedule.phases.0.total_steps=12"],
        "rounds: 9 is more than the 3 after which the last phase of schedule.phases ends; set "
        "rounds to at most 3, or add a phase",
    ),
    (
        ["schedule.phases=[{steps: 5}, {steps: 1}]"],
        "schedule: phases: every phase but the last needs rounds or total_steps",
    ),
    (["optimizer.nesterov=true"], "optimizer: nesterov needs momentum"),
    (["optimizer.name=rmsprop"], "optimizer.name: 'rmsprop' is not one of 'sgd', 'adam', 'adamw'"),
    (["optimizer.beta1=0.8"], "optimizer.beta1: unknown key; it belongs to optimizer.name=adam or"),
    (["algorithm.server_lr=2"], "algorithm.server_lr: unknown key; did you mean algorithm.server."),
    (
        ["algorithm.server_momentum=0.9"],
        "algorithm.server_momentum: unknown key; did you mean algorithm.server.momentum?",
    ),
    (
        ["algorithm.server_nesterov=true"],
        "algorithm.server_nesterov: unknown key; did you mean algorithm.server.nesterov?",
    ),
    (
        ["algorithm.server.nesterov=true"],
        "algorithm.server: nesterov needs momentum; set algorithm.server.momentum above 0",
    ),
    (
        ["algorithm.server.name=sgdm"],
        "algorithm.server.name: 'sgdm' is not one of 'sgd', 'adam', 'yogi', 'adagrad'",
    ),
    (
        ["algorithm.server.tau=1"],
        "algorithm.server.tau: unknown key; it belongs to algorithm.server.name=adam or "
        "algorithm.server.name=yogi or algorithm.server.name=adagrad",
    ),
    (
        ["algorithm.name=fedsgd", "algorithm.server.lr=2"],
        "algorithm.server: unknown key; it belongs to algorithm.name=fedavg or ",
    ),
    (
        ["sync.name=gwpf-released", "stragglers.unreachable=0.5"],
        "sync.name: gwpf-released has no rule for clients that sit out a round, and "
        "stragglers.unreachable is 0.5; set sync.name=full or apf, or stragglers.unreachable=0",
    ),
    (
        ["sync.name=gwpf-released", "participation=0.5"],
        "sync.name: gwpf-released has no rule for clients that sit out a round, and "
        "participation is 0.5; set sync.name=full or apf, or participation=1",
    ),
    (
        ["model.precision=fp64", "sync.name=apf"],
        "sync.name: apf keeps its statistics in fp32, and model.precision is fp64; "
        "set sync.name=full or streaming, or model.precision=fp32",
    ),
    (
        ["model.precision=fp64", "codec.name=int8"],
        "codec.name: int8 codes fp32 values, and model.precision is fp64; set "
        "codec.name=fp32 or bf16, or model.precision=fp32",
    ),
    (
        ["algorithm.name=fedsgd", "sync.name=gwpf"],
        "sync.name: gwpf judges frozen parameters by their local training, and fedsgd has none; "
        "set sync.name=full or apf, or algorithm.name=fedavg or fedprox",
    ),
    (
        ["algorithm.name=fedsgd", "sync.name=gaia"],
        "sync.name: gaia keeps what a client does not send as a change of its parameters, and "
        "fedsgd's clients send gradients; set sync.name=full or apf, or algorithm.name=fedavg or "
        "fedprox",
    ),
    (["codec.error_feedback=true"], "codec.error_feedback: unknown key; it belongs to"),
    (["codec.name=int8", "codec.block=12"], "codec.block: 12: input should be a multiple of 8"),
    (["model.norm=group"], "model.norm: digits-cnn has no choice of normalisation"),
    (["codec=int8"], "codec: 'int8': write it as codec: {name: int8}"),
    (["data=mnist"], "data: 'mnist': write it as data: {name: mnist}"),
    (["metrics.mlflow=x"], "metrics.mlflow: 'x': write a section, mlflow: {SETTING: VALUE}"),
    (["schedule.phases=[5]"], "schedule.phases.0: 5: write a section, {SETTING: VALUE}"),
    (["data.mean=0.5"], "data.mean: 0.5: write a list, mean: [A, B]"),
    (["data.augment=2"], "data.augment: 2: write true or false"),
    (["description=5"], "description: 5: write text, in quotes"),
    (["rounds"], "rounds: write --set KEY=VALUE"),
    (["name=[a"], "name: '[a' is not a YAML value"),
]


@pytest.mark.parametrize("sets,line", MISTAKES, ids=[sets[-1][:40] for sets, _ in MISTAKES])
def test_a_mistake_is_one_line_with_the_users_key(sets, line):
    with pytest.raises(ConfigError) as error:
        load({}, sets=sets)
    assert str(error.value).startswith(line)
    assert "\n" not in str(error.value)


def test_another_optimizer_drops_the_settings_of_the_one_before(tmp_path):
    """At the clients and, in a section of a section, at the server."""
    (tmp_path / "base.yaml").write_text(
        "optimizer: {lr: 0.3, momentum: 0.9}\n"
        "algorithm: {weighting: uniform, server: {lr: 0.5, momentum: 0.9}}\n"
    )
    sets = ["optimizer.name=adamw", "optimizer.beta2=0.95", "algorithm.server.name=yogi"]
    experiment, origins = load(tmp_path / "base.yaml", sets=sets)
    assert experiment.optimizer == AdamW(beta2=0.95)
    assert experiment.algorithm == FedAvg(weighting="uniform", server=ServerYogi())
    assert origins["optimizer.beta2"] == "--set" and "algorithm.server.momentum" not in origins
    kept, _ = load(tmp_path / "base.yaml", sets=["algorithm.server.lr=0.7"])
    assert kept.algorithm.server == ServerSGD(lr=0.7, momentum=0.9)


def test_files_that_cannot_be_read(tmp_path, presets):
    broken = tmp_path / "broken.yaml"
    broken.write_text("a: [1\nb: 2\n")
    a_list = tmp_path / "list.yaml"
    a_list.write_text("- 1\n")
    for source, line in [
        (broken, f"{broken}: line 2: not YAML"),
        (a_list, f"{a_list}: an experiment is a mapping"),
        (tmp_path / "none.yaml", f"{tmp_path / 'none.yaml'}: no such file"),
        ("bsae", "bsae: neither a preset nor a file; did you mean base?"),
        ("loop", "extends: loop -> loop is a cycle; remove one `extends`"),
    ]:
        with pytest.raises(ConfigError) as error:
            load(str(source), presets=presets)
        assert str(error.value).startswith(line)


@given(
    st.builds(
        lambda lr, rounds, threshold: {
            "optimizer": {"lr": lr},
            "rounds": rounds,
            "sync": {"name": "gwpf", "threshold": threshold},
        },
        st.floats(1e-12, 1e3),
        st.integers(1, 10**9),
        st.floats(0, 1),
    )
)
def test_the_canonical_form_reads_back_equal(tree):
    experiment, _ = load(tree)
    again = Experiment.model_validate(json.loads(experiment.canonical()))
    assert again == experiment
    assert again.digest() == experiment.digest()


def test_the_digest_is_of_the_settings_not_of_their_spelling():
    a, _ = load({"optimizer": {"lr": 0.1}}, sets=["rounds=5"])
    b, _ = load({"rounds": 5, "optimizer": {"name": "sgd", "lr": 0.1}})
    c, _ = load({"rounds": 6})
    assert a.digest() == b.digest() != c.digest()


def test_every_setting_is_documented():
    for setting in settings():
        assert setting.help or setting.key.endswith(".name"), setting.key


def test_set_values_are_yaml():
    assert parse_set("a.b=[1, x]") == ("a.b", [1, "x"])
    assert parse_set("a=null") == ("a", None)
    assert parse_set("a=b=c") == ("a", "b=c")


def test_floor_zero_needs_no_torch():
    code = (
        "import sys, trainer.config.load, trainer.config.keys, trainer.metrics.catalog;"
        "assert not {'torch', 'numpy', 'prometheus_client'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_extends_is_relative_to_the_file_that_has_it(presets, tmp_path, monkeypatch):
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/base.yaml").write_text("extends: child\nseed: 3\n")
    (tmp_path / "a/b/mine.yaml").write_text("extends: ../base.yaml\nclients: 4\n")
    (tmp_path / "elsewhere").mkdir()
    for folder in (tmp_path, tmp_path / "elsewhere", tmp_path / "a/b"):
        monkeypatch.chdir(folder)
        experiment, origins = load(tmp_path / "a/b/mine.yaml", presets=presets)
        assert (experiment.seed, experiment.clients, experiment.rounds) == (3, 4, 8)
        assert origins["seed"] == f"file {tmp_path}/a/b/../base.yaml"


def test_files_that_extend_each_other(tmp_path):
    (tmp_path / "a.yaml").write_text("extends: ./b.yaml\n")
    (tmp_path / "b.yaml").write_text("extends: a.yaml\n")
    for name in range(30):
        (tmp_path / f"{name}.yaml").write_text(f"extends: {name + 1}.yaml\n")
    (tmp_path / "list.yaml").write_text("extends: [a, b]\n")
    (tmp_path / "twice.yaml").write_text("optimizer.lr: 1\noptimizer: {lr: 2}\n")
    for name, line in [
        ("a.yaml", f"extends: {tmp_path}/a.yaml -> ./b.yaml -> a.yaml is a cycle; remove one"),
        ("0.yaml", f"extends: {tmp_path}/20.yaml is extended over 20 steps; merge some"),
        (
            "list.yaml",
            f"{tmp_path}/list.yaml: extends: a list: write the name of a preset or a file",
        ),
        ("twice.yaml", f"{tmp_path}/twice.yaml: optimizer.lr is given twice; remove one of them"),
    ]:
        with pytest.raises(ConfigError) as error:
            load(tmp_path / name)
        assert str(error.value).startswith(line)


def test_a_json_file_is_read_as_json(tmp_path):
    (tmp_path / "mine.json").write_text('{\n\t"rounds": 3,\n\t"description": "\\ud83d\\ude00"}')
    experiment, _ = load(tmp_path / "mine.json")
    assert (experiment.rounds, experiment.description) == (3, "😀")


NUMBERS = [setting.key for setting in settings() if re.search(r"\b(int|float)\b", setting.type)]


@pytest.mark.parametrize("value", ["true", "'3'", "1.5e400", "3e30", "-3e30", "2024-01-01"])
def test_what_is_no_number_is_none_anywhere(value):
    """For every setting, a switch, text and numbers beyond all limits are refused by its key."""
    for setting in settings():
        if not setting.key.startswith("schedule.phases") and setting.key in NUMBERS:
            chosen = [setting.variant] if setting.variant and " or " not in setting.variant else []
            with pytest.raises(ConfigError) as error:
                load({}, sets=[*chosen, f"{setting.key}={value}"])
            assert error.value.key.startswith(setting.key), error.value
            assert "\n" not in str(error.value) and len(str(error.value)) < 200


def test_every_number_has_limits():
    for key, schema in [
        *number_schemas(Experiment),
        *number_schemas(Values),
        *number_schemas(Sweep),
    ]:
        assert {"maximum", "exclusiveMaximum"} & schema.keys(), key
        assert {"minimum", "exclusiveMinimum"} & schema.keys(), key


def number_schemas(model):
    """Every number in a model's JSON schema, with the path to it."""

    def walk(node, path):
        if isinstance(node, dict):
            if node.get("type") in ("integer", "number") and "enum" not in node:
                yield path, node
            for key, value in node.items():
                yield from walk(value, f"{path}/{key}")
        elif isinstance(node, list):
            for index, item in enumerate(node):
                yield from walk(item, f"{path}/{index}")

    found = [*walk(model.model_json_schema(), model.__name__)]
    assert found
    return found
