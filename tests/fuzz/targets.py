"""What is fuzzed: each place where fedctl or a rank reads what someone else wrote."""

import hashlib
import io
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from safetensors.torch import save

from fedctl import bundled
from fedctl.chart import values as chart
from fedctl.chart.schema import Values
from fedctl.cluster.transfer import packer
from fedctl.cluster.transfer.folder import arriving, unpack
from fedctl.report import groups, runs, summary, table
from fedctl.sweep import file as sweeps
from fedctl.sweep.variants import variants
from tests import prose
from tests.fuzz import inputs
from tests.fuzz.inputs import documents, json_values, mutated, trees
from trainer import manifest
from trainer.config.data import SentencePiece
from trainer.config.load import flatten, load
from trainer.config.models import MODELS
from trainer.data import arrays, npz, tokenizers
from trainer.data.text import Corpus
from trainer.engine import state_file
from trainer.models import weights
from trainer.tasks.tokens import Tokens


def experiment(content: bytes, folder: Path) -> None:
    for name in ("x.yaml", "x.json"):
        (folder / name).write_bytes(content)
        found, _ = load(folder / name, presets=bundled.PRESETS)
        assert found.digest()


def one_set(text: str, folder: Path) -> None:
    load("fedavg-digits", sets=[text], presets=bundled.PRESETS)[0].canonical()


def sweep(content: bytes, folder: Path) -> None:
    (folder / "x.yaml").write_bytes(content)
    variants(sweeps.read(str(folder / "x.yaml")), ["seed=1"])


def chart_values(content: bytes, folder: Path) -> None:
    (folder / "x.yaml").write_bytes(content)
    assert chart.release("fedavg-digits", files=[folder / "x.yaml"]).text()


def read_npz(content: bytes, folder: Path) -> None:
    (folder / "x.npz").write_bytes(content)
    found = npz.read(folder / "x.npz")
    arrays.check(found, classes=10, channels=None)


def read_text(content: bytes, folder: Path) -> None:
    (folder / "x.txt").write_bytes(content)
    tree = {"data.name": "text", "data.path": str(folder), "model.name": "transformer-tiny"}
    experiment, _ = load({}, sets=[f"{key}={value}" for key, value in tree.items()])
    Tokens(experiment, torch.device("cpu"), 0, 1, download=False).split()


def read_tokenizer(content: bytes, folder: Path) -> None:
    (folder / "x.model").write_bytes(content)
    chosen = SentencePiece(model=str(folder / "x.model"))
    found = tokenizers.tokenise(chosen, Corpus(["A text, and äöü 漢字\n"], [], ["another"]))
    for ids in found.train + found.test:
        assert len(ids) and ids.min() >= 0 and ids.max() < len(found.vocabulary)


def read_weights(case: tuple[str, bytes], folder: Path) -> None:
    name, content = case
    (folder / name).write_bytes(content)
    weights.load(_model(), folder / name)


@cache
def _model() -> torch.nn.Module:
    return MODELS["softmax"](classes=10, in_shape=(1, 8, 8))


def read_manifest(content: bytes, folder: Path) -> None:
    (folder / manifest.NAME).write_bytes(content)
    found = manifest.read(folder)
    assert found.round >= 0 and found.ranks > 0 and isinstance(found.experiment, dict)
    for seal in [*found.files.values(), *filter(None, [found.metrics])]:
        assert isinstance(seal.sha256, str) and seal.bytes >= 0
    assert isinstance(found.text(), str)


def read_state(content: bytes, folder: Path) -> None:
    (folder / "x.safetensors").write_bytes(content)
    state_file.read(folder / "x.safetensors", torch.device("cpu"))


def read_run(case: tuple[bytes, bytes, bytes], folder: Path) -> None:
    """All that a report reads, with its numbers; and the record of a rank."""
    settings, metrics, record = case
    (folder / runs.EXPERIMENT).write_bytes(settings)
    (folder / runs.METRICS).write_bytes(metrics)
    (folder / "logs").mkdir()
    (folder / "logs/rank-0.json").write_bytes(record)
    runs.ranks(folder), runs.Tail(folder / runs.METRICS).rows()
    found = groups.grouped([runs.read(folder)])
    shown = table.Table(found)
    assert shown.cells() and shown.csv() and shown.markdown()
    json.dumps([summary.summary(run) for group in found for run in group.runs])


def read_tar(content: bytes, folder: Path) -> None:
    chunks = (content[start : start + 700] for start in range(0, len(content), 700))
    with arriving(folder / "here") as into:
        unpack(chunks, into, lambda *_: None)
    outside = {path.name for path in folder.iterdir()} - {"here"}
    assert not outside, outside


RUN: dict[str, Callable[[Any, Path], Any]] = {
    "experiment": experiment,
    "set": one_set,
    "sweep": sweep,
    "values": chart_values,
    "npz": read_npz,
    "text": read_text,
    "tokenizer": read_tokenizer,
    "weights": read_weights,
    "manifest": read_manifest,
    "state": read_state,
    "run": read_run,
    "tar": read_tar,
}


# ---------------------------------------------------------------------------------------------
# good files, to be spoiled


def texts_in(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(folder.glob("*.yaml"))]


def sets() -> Any:
    value = st.one_of(inputs.texts, inputs.values.map(str), inputs.numbers.map(str))
    key = st.one_of(st.sampled_from(inputs.KEYS), inputs.texts)
    pair = st.tuples(key, st.sampled_from(["=", "", "==", " = "]), value).map("".join)
    return st.one_of(pair, st.text(max_size=20))


def good_npz() -> bytes:
    file = io.BytesIO()
    x, y = np.zeros((4, 8, 8), np.uint8), np.arange(4)
    np.savez(file, x_train=x, y_train=y, x_test=x, y_test=y)
    return file.getvalue()


@cache
def good_tokenizer() -> bytes:
    return tokenizers.trained([prose.prose()], 300).serialized_model_proto()


@st.composite
def odd_npz(draw: Any) -> bytes:
    """Arrays of odd types and shapes under the right names."""
    kinds = ["u1", "i8", "i1", "u8", "f4", "f8", "c8", "?", "U3", "S2", "M8[s]", ">i4", "V3"]
    odd: dict[str, Any] = {}
    for name in npz.NAMES:
        if draw(st.integers(0, 9)):
            shape = draw(st.lists(st.integers(0, 5), max_size=4))
            odd[name] = np.ones(shape, draw(st.sampled_from(kinds)))
    file = io.BytesIO()
    np.savez(file, **odd)
    return file.getvalue()


def good_weights() -> list[tuple[str, bytes]]:
    state = _model().state_dict()
    file, nested = io.BytesIO(), io.BytesIO()
    torch.save(state, file)
    torch.save({"state_dict": {f"module.{name}": held for name, held in state.items()}}, nested)
    return [("x.safetensors", save(state)), ("x.pt", file.getvalue()), ("y.pt", nested.getvalue())]


def spoiled(good: list[tuple[str, bytes]]) -> Any:
    each = [st.tuples(st.just(name), mutated(st.just(content))) for name, content in good]
    return st.one_of(*each, st.tuples(st.sampled_from(["x.pt", "x.safetensors"]), st.binary()))


MANIFEST = {
    "format": manifest.FORMAT,
    "round": 3,
    "ranks": 2,
    "experiment": {},
    "data": "abc",
    "metrics": {"bytes": 5, "sha256": "0"},
    "files": {"model.safetensors": {"bytes": 5, "sha256": "0"}},
    "versions": {"fedctl": "0"},
}


def signed(line: bytes) -> bytes:
    """A manifest whose own checksum is right, whatever it says."""
    return b"%b\n%b\n" % (line, hashlib.sha256(line).hexdigest().encode())


def manifests() -> Any:
    good = json.dumps(MANIFEST).encode()
    keys = st.sampled_from([key for key, _ in flatten(MANIFEST)] + [*MANIFEST])
    odd = trees(keys, json_values).map(lambda tree: inputs.as_json(MANIFEST | tree))
    lines = st.one_of(mutated(st.just(good)), odd, json_values.map(inputs.as_json))
    return st.one_of(mutated(st.just(signed(good))), lines.map(signed))


def states(folder: Path) -> Any:
    path = folder / "good.safetensors"
    state_file.write(path, {"a": torch.ones(3), 1: [1.5, "x", None, torch.tensor(2)]})
    good = path.read_bytes()
    texts = json_values.map(json.dumps)
    odd = texts.map(lambda text: save({"0": torch.ones(2)}, {state_file.KEY: text}))
    bare = st.sampled_from([save({"0": torch.ones(2)}), save({}, {"other": "x"})])
    return st.one_of(mutated(st.just(good)), odd, bare, st.binary(max_size=40))


EXPERIMENT = b'{"name":"x","rounds":2,"ranks":1,"seed":1,"sync":{"name":"full"}}'
RECORD = b'{"rank":0,"pid":1,"status":"failed","exit":1,"message":"m","round":1,"notices":["n"]}'
ROW = {
    "round": 1,
    "time_seconds": 0.5,
    "federated_time_seconds": 0.1,
    "messages_total": 20,
    "test_accuracy_ratio": 0.5,
    "test_loss": 1.0,
    "frozen_parameters_ratio": 0.1,
    "payload_bytes_total": {"values": 10, "votes": 1},
    "wire_bytes_total": {"values": 10},
    "dense_equivalent_bytes_total": 20,
}


def run_folders() -> Any:
    row = json.dumps(ROW).encode() + b"\n"
    good = b"".join(
        [row, row.replace(b'"round": 1', b'"round": 2'), row[:-2] + b',"final":true}\n']
    )
    value = st.one_of(inputs.numbers, json_values)
    odd = st.dictionaries(st.sampled_from([*ROW, "final"]), value, max_size=3)
    rows = odd.map(lambda tree: good + inputs.as_json(ROW | tree) + b"\n" + row)
    settings = trees(st.sampled_from(["name", "rounds", "seed", "sync.name"]), json_values)
    return st.tuples(
        st.one_of(st.just(EXPERIMENT), settings.map(inputs.as_json), mutated(st.just(EXPERIMENT))),
        st.one_of(mutated(st.just(good)), rows, st.binary(max_size=60)),
        st.one_of(mutated(st.just(RECORD)), json_values.map(inputs.as_json)),
    )


def sweep_files() -> Any:
    keys = [*sweeps.Sweep.model_fields, "report.x", "report.columns", "report.marks", "set.seed"]
    keys += [f"grid.{key}" for key in ("rounds", "optimizer", "seed", "algorithm", "base")]
    return documents(texts_in(bundled.SWEEPS), st.sampled_from(keys))


def chart_files() -> Any:
    keys = [key for key, _ in flatten(Values().model_dump(by_alias=True))]
    good = b"image:\n  tag: x\nresources:\n  gpus: 0\nstorage:\n  runs: {kind: claim, claim: c}\n"
    return documents([good], st.sampled_from(keys))


def tars(folder: Path) -> Any:
    (folder / "logs").mkdir(parents=True)
    (folder / "experiment.json").write_bytes(EXPERIMENT)
    (folder / "logs" / "rank-0.log").write_bytes(bytes(range(256)) * 4)
    stream = io.BytesIO()
    packer.pack(str(folder), ["."], stream)
    tokens = st.one_of(
        st.binary(max_size=4),
        st.sampled_from(
            [b"../x", b"/etc/x", b"7" * 11, b"\x80" + b"\xff" * 7, b"1 2 3", b"0" * 512]
        ),
        st.sampled_from([b"1", b"2", b"5", b"6", b"x", b"g", b"L", b"K", b"S"]),
    )
    return st.one_of(mutated(st.just(stream.getvalue()), tokens), st.binary(max_size=600))


def inputs_of(name: str, folder: Path) -> Any:
    """The inputs of a target; folder: a place for what is packed into a good stream."""
    keys = st.sampled_from(inputs.KEYS + inputs.SECTIONS)
    every: dict[str, Callable[[], Any]] = {
        "experiment": lambda: documents(texts_in(bundled.PRESETS), keys),
        "set": sets,
        "sweep": sweep_files,
        "values": chart_files,
        "npz": lambda: st.one_of(mutated(st.just(good_npz())), odd_npz()),
        "text": lambda: st.one_of(mutated(st.just(prose.prose(60).encode())), st.binary()),
        "tokenizer": lambda: st.one_of(mutated(st.just(good_tokenizer())), st.binary()),
        "weights": lambda: spoiled(good_weights()),
        "manifest": manifests,
        "state": lambda: states(folder),
        "run": run_folders,
        "tar": lambda: tars(folder / "packed"),
    }
    return every[name]()
