"""docs/papers: every option of each work has a row; what the pages name exists and would run."""

import re
import shlex
from functools import cache
from pathlib import Path

import pytest

from fedctl import bundled
from fedctl.cli import main
from fedctl.sweep import file
from fedctl.sweep.variants import variants
from trainer.config.errors import ConfigError
from trainer.config.keys import settings
from trainer.config.load import load
from trainer.metrics.catalog import CATALOG

PAPERS = Path(__file__).parent.parent / "docs" / "papers"
PAGES = {path.stem: path.read_text("utf-8") for path in sorted(PAPERS.glob("*.md"))}
WORKS = [name for name in PAGES if name != "README"]

# By page, its tables of options and exercises: the names of the rows, in their order.
OPTIONS = {
    "fedga": [
        """
        nsubsets; nprocesses; batch_size; nsteps; nrounds; nlogging_steps; learning_rate;
        task; model; gradient_clipping; clipping_norm; target_acc; wandb; wandb_exp_name;
        load_seed; scheduler; lr_decay; port; gpu_ids; percentage_iid; weight_decay;
        server_momentum; momentum; server_learning_rate; server_nesterov; batchnorm; beta;
        fg_batch_size; plot_grad_alignment; fedavg; grad_align; scaffold; largeBatchSGD
        """,
    ],
    "local-sgd": [
        """
        data-pth; log-pth; model; resume; resume-pth; batch-size; total-batch-size;
        steps-per-epoch; debug; warm-up; warmup-epochs; start-lr; max-lr; wd; momentum;
        nesterov; bn; bn-batches; group-weight; n-groups; decay1; decay2; gamma; step1;
        step2; step3; eval-freq1; eval-freq2; eval-freq3; save-freq1; save-freq2;
        save-freq3; eval-on-start; replacement; aug; label-noise; noise-p; wandb; wandb-save
        """,
        """
        dist-url; nw; device; seed; epochs
        """,
        """
        lr; total-batch-size; epochs; steps-per-epoch; decay1; decay2; decay3; save-freq;
        group-weight; train-pth; val-pth; nw; model; bn, label-noise, replacement, aug
        """,
    ],
    "fedavg-mnist": [
        """
        num_clients; num_rounds; num_epochs; batch_size; iid; balance; client_fraction;
        expected_maximum; learning_rate; save_path
        """,
    ],
    "fedsgd-homework": [
        """
        N; lr; C; E; B; rounds; iid; seed
        """,
        """
        A1; A2; A3; B1; B2
        """,
    ],
    "gwpf": [
        """
        dataset_model; synchronisation; world size; sync_frequency; EMA factor; threshold;
        tighten ratio; vote threshold; votes that thaw; longest frozen period; data seed;
        cudnn deterministic; batch size; max_epoch; broadcast of parameters; learning rate;
        weight decay; learning rate schedule; Dirichlet alpha; IID flag; order of samples;
        evaluation; Gaia's significance; CMFL's relevance; WikiText columns, bptt, eval
        columns; gradient norm; freezing_check_frequency; enable_random_freezing;
        interlayer_type
        """,
        """
        F_s; F_c; alpha; T_s; share that halves T_s; first freezing period; additive step,
        factor; random freezing; probability; growth of the probability; growth of the
        length
        """,
    ],
    "streaming-diloco": [
        """
        inner optimizer; outer optimizer; fragments; pattern; bits of an outer gradient;
        steps that hide an exchange, tau; mixing, alpha
        """,
    ],
}

NEEDED = (
    "model.name=fedga-resnet",
    "model.name=cifar-resnet56",
    "data.path=folder",
    "schedule.phases=[{epochs: 2}]",
    "data.name=python-topics & model.name=llama-tiny",
)
METRICS = {metric.name for metric in CATALOG}
VARIANTS: dict[str, list[str]] = {}  # of each key, the choices that it belongs to
for found in settings():
    VARIANTS.setdefault(found.key, []).append(found.variant)

Rows = list[dict[str, str]]


def tables(page: str) -> list[Rows]:
    """Every table of a page, as rows of cells by heading."""
    blocks = re.findall(r"(?:^\|.*\|\n)+", PAGES[page], re.MULTILINE)
    found = []
    for block in blocks:
        heading, rule, *rows = [
            [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
            for line in block.splitlines()
        ]
        assert all(re.fullmatch("-+:?", cell) for cell in rule), f"{page}: {heading}"
        found.append([dict(zip(heading, row, strict=True)) for row in rows])
    return found


def tables_with_ours(page: str) -> list[Rows]:
    return [rows for rows in tables(page) if "ours" in rows[0]]


def option_tables(page: str) -> list[Rows]:
    return [rows for rows in tables_with_ours(page) if "symbol" not in rows[0]]


def code(text: str) -> list[str]:
    """What stands in backticks within a line."""
    return re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))


def commands(page: str) -> list[str]:
    """The lines of the page's code blocks that start with fedctl."""
    return re.findall(r"^fedctl .+$", PAGES[page], re.MULTILINE)


def is_setting(text: str) -> bool:
    """A key, or key=value with a value that the key takes; any item of a list will do."""
    key = re.sub(r"\.\d+\.", ".0.", text.partition("=")[0])
    if key not in VARIANTS:
        return False
    return "=" not in text or any(takes(variant, text) for variant in VARIANTS[key])


def takes(variant: str, text: str) -> bool:
    """Whether an experiment with this choice takes the setting, beside what some values need."""
    for needs in ("", *NEEDED):
        try:
            before = filter(None, [variant, *needs.split(" & ")])
            load({}, sets=[*before, text], ineffective_allowed=True)
            return True
        except ConfigError:
            continue
    return False


def is_command(text: str) -> bool:
    program, *words = shlex.split(text)
    if program != "fedctl" or not words or words[0] not in main.commands:
        return False
    options = {name for param in main.commands[words[0]].params for name in param.opts}
    return all(word in options or is_name(word) for word in words[1:])


def is_name(word: str) -> bool:
    return word in bundled.presets() or word in bundled.sweeps() or word.isupper()


@cache
def in_commands() -> set[str]:
    """Presets that some page tries out with two rounds."""
    lines = [line for page in WORKS for line in commands(page)]
    return {line.split()[2] for line in lines if "--set rounds=2" in line}


@pytest.mark.parametrize("page", WORKS)
def test_every_option_of_the_work_has_its_row(page: str) -> None:
    rows = [
        [row.get("option") or row["exercise"] for row in table] for table in option_tables(page)
    ]
    assert rows == [" ".join(names.split()).split("; ") for names in OPTIONS[page]]


def test_fedgas_options_are_numbered() -> None:
    (rows,) = option_tables("fedga")
    assert [row["#"] for row in rows] == [str(number) for number in range(1, 34)]


@pytest.mark.parametrize("page", WORKS)
def test_no_cell_is_empty_but_a_note(page: str) -> None:
    for row in (row for rows in tables_with_ours(page) for row in rows):
        assert all(text for heading, text in row.items() if heading != "note"), row


@pytest.mark.parametrize("page", WORKS)
def test_the_column_ours_names_what_exists_or_says_why_there_is_nothing(page: str) -> None:
    for row in (row for rows in tables_with_ours(page) for row in rows):
        ours = row["ours"]
        assert code(ours) or re.match("not needed: .", ours), row
        for text in code(ours):
            assert is_setting(text) or is_command(text) or text in METRICS, (text, row)


@pytest.mark.parametrize("page", PAGES)
def test_settings_in_the_text_exist(page: str) -> None:
    sections = {key.split(".")[0] for key in VARIANTS if "." in key}
    for text in code(PAGES[page]):
        if re.fullmatch(r"\w+(\.\w+)+(=.+)?", text) and text.split(".")[0] in sections:
            assert is_setting(text), text
        elif text.startswith("fedctl "):
            assert is_command(text), text


@pytest.mark.parametrize("page", WORKS)
def test_commands_would_start(page: str) -> None:
    assert commands(page)
    for line in commands(page):
        program, command, name, *rest = shlex.split(line)
        if command == "sweep":
            continue
        assert (program, command, set(rest[::2])) == ("fedctl", "run", {"--set"}), line
        experiment, _ = load(name, sets=rest[1::2], presets=bundled.PRESETS)
        assert experiment.name == name


def test_the_homeworks_sweeps_are_its_exercises() -> None:
    counts = {name: len(variants(file.read(name), [])) for name in bundled.sweeps()}
    homework = {name: n for name, n in counts.items() if name.startswith("homework-")}
    assert list(homework.values()) == [4, 10, 4, 4, 4, 6]  # A1's pairs, A2's tables, A3's plots, B
    assert set(homework) <= {words[-1] for words in map(str.split, swept())}


def swept() -> list[str]:
    """The command lines on the pages that sweep."""
    return [line for text in PAGES.values() for line in re.findall(r"^fedctl sweep .*", text, re.M)]


@pytest.mark.parametrize("name", bundled.presets())
def test_every_preset_of_a_work_is_on_a_page(name: str) -> None:
    experiment, _ = load(name, presets=bundled.PRESETS)
    if experiment.data.name in ("digits", "python-topics"):
        return  # the demos: no work has them
    assert any(name in code(text) for text in PAGES.values()) or name in in_commands()
    if experiment.sync.name == "full":
        assert name in in_commands(), "no page shows how to try it out"


@pytest.mark.parametrize("page", PAGES)
def test_presets_on_the_pages_exist(page: str) -> None:
    part = PAGES[page].partition("## Presets")[2] or "".join(
        row["presets to begin with"] for row in tables("README")[0]
    )
    names = [text for text in code(part) if re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)+", text)]
    assert sorted(set(names) - set(bundled.presets())) == []


def test_the_index_has_every_page_and_is_linked() -> None:
    assert sorted(re.findall(r"\]\(([\w-]+)\.md\)", PAGES["README"])) == sorted(WORKS)
    assert "(docs/papers/README.md)" in (PAPERS.parents[1] / "README.md").read_text("utf-8")


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", PAGES[page]):
        assert (PAPERS / target).exists(), target


def test_tests_on_the_pages_exist() -> None:
    tests = "".join(path.read_text("utf-8") for path in Path(__file__).parent.rglob("test_*.py"))
    there = re.findall(r"^def (test_\w+)", tests, re.MULTILINE)
    named = {text for page in PAGES.values() for text in code(page) if text.startswith("test_")}
    assert named - METRICS and named - METRICS <= set(there)
