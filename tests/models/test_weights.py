"""Weights to start from: every form reads back equal; each file that does not fit is a line."""

import pickle

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from tests import jobs
from trainer.config.errors import ConfigError
from trainer.config.models import MODELS
from trainer.models import weights
from trainer.models.cnn import DigitsCNN, LeNet

CIFAR = (3, 32, 32)


def resnet(seed, **choice):
    torch.manual_seed(seed)
    model = MODELS["cifar-resnet20"](classes=10, in_shape=CIFAR, **choice)
    for name, buffer in model.named_buffers():
        buffer.fill_(seed + len(name))  # running statistics that differ from where they start
    return model


def renamed(state):
    """The names of code that never was, in the same order."""
    return {f"net.part{i:04}.{name.split('.')[-1]}": t for i, (name, t) in enumerate(state.items())}


def assert_equal(model, other):
    own, others = model.state_dict(), other.state_dict()
    assert own.keys() == others.keys()
    assert all(torch.equal(own[name], others[name]) for name in own)


FORMS = {
    "plain": lambda state: state,
    "under state_dict": lambda state: {"epoch": 3, "state_dict": state},
    "under model": lambda state: {"model": state, "optimizer": {"lr": 0.1}, "best": None},
    "by DataParallel": lambda state: {f"module.{name}": t for name, t in state.items()},
    "nested and by DataParallel": lambda state: {
        "state_dict": {f"module.{name}": t for name, t in state.items()}
    },
    "under other names": renamed,
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("choice", [{}, {"norm": "group"}], ids=["batch", "group"])
def test_every_form_of_a_state_dict_is_loaded(form, choice, tmp_path):
    saved = resnet(1, **choice)
    torch.save(form(saved.state_dict()), tmp_path / "saved.pt")
    model = resnet(2, **choice)
    weights.load(model, tmp_path / "saved.pt")
    assert_equal(model, saved)


def test_safetensors_are_loaded_by_name(tmp_path):
    saved, model = resnet(1), resnet(2)
    save_file(saved.state_dict(), tmp_path / "saved.safetensors")
    weights.load(model, tmp_path / "saved.safetensors")
    assert_equal(model, saved)
    assert weights.read(tmp_path / "saved.safetensors").keys() == saved.state_dict().keys()


def test_the_file_format_of_old_torch_is_read(tmp_path):
    saved, model = resnet(1), resnet(2)
    torch.save(saved.state_dict(), tmp_path / "saved.pt", _use_new_zipfile_serialization=False)
    weights.load(model, tmp_path / "saved.pt")
    assert_equal(model, saved)


def test_half_precision_becomes_the_models_own(tmp_path):
    saved = DigitsCNN().bfloat16()
    save_file(saved.state_dict(), tmp_path / "half.safetensors")
    model = DigitsCNN()
    weights.load(model, tmp_path / "half.safetensors")
    assert_equal(model, saved.float())


def test_the_order_counts_only_among_tensors_that_could_change_places(tmp_path):
    """As in Local SGD's files, where both norms of a block come before its second convolution."""
    saved, model = LeNet(), LeNet()
    state = renamed(saved.state_dict())
    torch.save(dict(reversed(state.items())), tmp_path / "reversed.pt")  # no two have one shape
    weights.load(model, tmp_path / "reversed.pt")
    assert_equal(model, saved)


def test_a_weight_is_never_taken_for_a_bias(tmp_path):
    """A norm's weight and bias have one shape: only the name tells which is which."""
    saved = resnet(1, norm="group")
    for name, parameter in saved.named_parameters():
        parameter.data.fill_(len(name.split(".")) + name.endswith("bias"))
    state = sorted(renamed(saved.state_dict()).items(), key=lambda item: item[0].endswith("weight"))
    torch.save(dict(state), tmp_path / "biases-first.pt")
    model = resnet(2, norm="group")
    weights.load(model, tmp_path / "biases-first.pt")
    assert_equal(model, saved)


# ---------------------------------------------------------------------------------------------
# files that do not fit


def refused(model, path):
    before = {name: t.clone() for name, t in model.state_dict().items()}
    with pytest.raises(ConfigError) as caught:
        weights.load(model, path)
    assert caught.value.key == "model.weights"
    assert str(path) in caught.value.problem
    assert "\n" not in str(caught.value)
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    return caught.value.problem


def test_a_file_that_is_not_there(tmp_path):
    assert "is not a file; give the path" in refused(DigitsCNN(), tmp_path / "none.pt")
    assert "is not a file; give the path" in refused(DigitsCNN(), tmp_path)
    assert "cannot be a path (no home folder" in refused(DigitsCNN(), "~nosuchuser/x.pt")


@pytest.mark.parametrize("name", ["cut.pt", "cut.safetensors"])
@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.99])
def test_a_file_that_is_cut_off(name, share, tmp_path):
    path, state = tmp_path / name, DigitsCNN().state_dict()
    if path.suffix == ".pt":
        torch.save(state, path)
    else:
        save_file(state, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    assert "is damaged, or holds more than tensors; save the weights" in refused(DigitsCNN(), path)


class Hostile:
    """Whoever unpickles this runs code."""

    def __reduce__(self):
        return print, ("code of the file was run",)


@pytest.mark.parametrize("content", [nn.Linear(2, 2), Hostile()], ids=["a module", "code"])
def test_a_file_that_would_run_code(content, tmp_path, capsys):
    torch.save(content, tmp_path / "whole.pt")
    (tmp_path / "pickle.pt").write_bytes(pickle.dumps(content))
    for name in ("whole.pt", "pickle.pt"):
        assert "torch.save(model.state_dict(), path)" in refused(DigitsCNN(), tmp_path / name)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "content",
    [{}, [torch.zeros(2)], torch.zeros(2), {"lr": 0.1}, {1: torch.zeros(2)}, {"model": {}}],
    ids=str,
)
def test_a_file_without_a_state_dict(content, tmp_path):
    torch.save(content, tmp_path / "other.pt")
    assert "is not a state dict, which holds names with their tensors" in refused(
        DigitsCNN(), tmp_path / "other.pt"
    )


def test_another_number_of_classes(tmp_path):
    torch.save(LeNet(classes=47).state_dict(), tmp_path / "letters.pt")
    problem = refused(LeNet(classes=10), tmp_path / "letters.pt")
    assert problem.endswith(
        "letters.pt does not fit the model: 11.weight is 47x84 in it, 10x84 in the model, the "
        "first of 2 that differ among 10 tensors; choose model.name, model.norm and data as in the "
        "run that saved it"
    )


def test_another_number_of_classes_under_other_names(tmp_path):
    torch.save(renamed(LeNet(classes=47).state_dict()), tmp_path / "letters.pt")
    problem = refused(LeNet(classes=10), tmp_path / "letters.pt")
    assert "it has no 11.weight (10x84), the first of 2 that differ among 10 tensors" in problem


def test_tensors_too_many_and_too_few(tmp_path):
    state = DigitsCNN().state_dict()
    torch.save(state | {"head.weight": torch.zeros(3, 5)}, tmp_path / "more.pt")
    assert "the model has no head.weight (3x5), the first of 1 too many" in refused(
        DigitsCNN(), tmp_path / "more.pt"
    )
    del state["7.bias"]
    torch.save(state, tmp_path / "fewer.pt")
    assert "it has no 7.bias (10), the first of 1 that differ among 6 tensors" in refused(
        DigitsCNN(), tmp_path / "fewer.pt"
    )


def test_another_norm_has_no_statistics(tmp_path):
    torch.save(resnet(1, norm="group").state_dict(), tmp_path / "group.pt")
    problem = refused(resnet(2), tmp_path / "group.pt")
    assert "it has no 1.running_mean (16), the first of 57 that differ among 116 tensors" in problem


def test_safetensors_under_other_names_are_refused_as_their_order_says_nothing(tmp_path):
    save_file(renamed(resnet(1).state_dict()), tmp_path / "other.safetensors")
    problem = refused(resnet(2), tmp_path / "other.safetensors")
    assert "it has no 0.weight (16x3x3x3), the first of 116 that differ" in problem


# ---------------------------------------------------------------------------------------------
# in a run


def test_a_run_starts_from_the_file(tmp_path):
    torch.manual_seed(77)
    saved = DigitsCNN()
    save_file(saved.state_dict(), tmp_path / "start.safetensors")
    rank = jobs.experiment_run({"model": {"weights": str(tmp_path / "start.safetensors")}})
    start = torch.cat([p.detach().reshape(-1) for p in saved.parameters()])
    assert torch.equal(rank.server.anchor, start)
    assert not torch.equal(jobs.experiment_run({}).server.anchor, start)


STRANGE = {
    "nan": (lambda t: t.fill_(float("nan")), "has values that are not finite in float32"),
    "one infinity": (lambda t: t.index_fill_(0, torch.tensor(0), float("inf")), "not finite"),
    "too large for fp32": (lambda t: t.double() * 1e300, "not finite in float32; take weights"),
    "sparse": (lambda t: t.to_sparse(), "is sparse_coo; save dense floating-point tensors"),
    "compressed": (
        lambda t: t.to_sparse_csr(),
        "is sparse_csr; save dense",
    ),
    "complex": (lambda t: t.to(torch.complex64), "is complex; save dense"),
    "meta": (lambda t: t.to("meta"), "has no values (device meta); save dense"),
    "quantised": (
        lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8),
        "is quantised; save dense",
    ),
    "integers": (lambda t: t.to(torch.int8), "is int8, but the model's is float32; convert it"),
}


@pytest.mark.filterwarnings("ignore")  # PyTorch warns of sparse and quantised tensors
@pytest.mark.parametrize(("change", "problem"), STRANGE.values(), ids=STRANGE)
def test_a_tensor_that_is_no_plain_array_of_numbers_is_named(change, problem, tmp_path):
    state = DigitsCNN(classes=10, in_shape=(1, 8, 8)).state_dict()
    name = next(name for name, tensor in state.items() if tensor.dim() == 2)
    state[name] = change(state[name].clone() + 1)
    torch.save(state, tmp_path / "w.pt")
    model = DigitsCNN(classes=10, in_shape=(1, 8, 8))
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    with pytest.raises(ConfigError) as error:
        weights.load(model, tmp_path / "w.pt")
    assert f"{tmp_path}/w.pt: {name} " in str(error.value) and problem in str(error.value)
    assert "\n" not in str(error.value)
    assert all(torch.equal(before[key], t) for key, t in model.state_dict().items())


def test_a_tensor_that_repeats_one_value_costs_no_memory_before_it_is_refused(tmp_path):
    """Four bytes in the file that stand for four terabytes."""
    torch.save({"fc.weight": torch.zeros(1).expand(10**6, 10**6)}, tmp_path / "w.pt")
    with pytest.raises(ConfigError, match=r"does not fit the model"):
        weights.load(DigitsCNN(classes=10, in_shape=(1, 8, 8)), tmp_path / "w.pt")
