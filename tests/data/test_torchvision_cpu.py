"""torchvision imports beside a CPU-only torch; each case in a process of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# What a CPU-only torch looks like to torchvision's wheel: no CUDA, so its library can't be linked.
CPU_ONLY = """
import torch
torch.version.cuda = None
def unlinkable(path):
    raise OSError("libcudart.so: cannot open shared object file")
torch.ops.load_library = unlinkable
"""
CURED = """
from trainer.data import torchvision_cpu
vision = torchvision_cpu.torchvision()
"""
USED = """
from torchvision.transforms import v2
image = torch.arange(48, dtype=torch.uint8).reshape(3, 4, 4)
assert v2.functional.resize(image, [8, 8]).shape == (3, 8, 8)
assert v2.Compose([v2.RandomCrop(2), v2.ToDtype(torch.float32, scale=True)])(image).max() < 1
assert len(vision.datasets.FakeData(size=3)) == 3 and vision.datasets.MNIST
assert vision.models.resnet18(num_classes=10)(torch.zeros(1, 3, 64, 64)).shape == (1, 10)
"""


def run(code: str, *path: Path) -> subprocess.CompletedProcess[str]:
    prefix = f"import sys; sys.path[:0] = {[str(ROOT), *map(str, path)]!r}\n"
    return subprocess.run([sys.executable, "-c", prefix + code], capture_output=True, text=True)


def succeeds(code: str, *path: Path) -> str:
    result = run(code, *path)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.slow
def test_without_the_cure_the_import_fails() -> None:
    result = run(CPU_ONLY + "import torchvision")
    assert result.returncode != 0
    assert "operator torchvision::nms does not exist" in result.stderr


def test_with_the_cure_data_sets_transforms_and_models_work() -> None:
    succeeds(CPU_ONLY + CURED + USED + "assert len(torchvision_cpu._definitions) == 1")


@pytest.mark.slow
def test_the_cure_works_after_a_failed_import_and_twice() -> None:
    failed = "try:\n    import torchvision\nexcept RuntimeError:\n    pass\n"
    again = "assert torchvision_cpu.torchvision() is vision\n"
    once = "assert len(torchvision_cpu._definitions) == 1"
    succeeds(CPU_ONLY + failed + CURED + USED + again + once)


@pytest.mark.slow
def test_here_it_defines_something_exactly_if_the_operators_are_missing() -> None:
    """Holds with every build of torch: with its operators torchvision stays as it is."""
    said = succeeds(
        "import torch" + CURED + USED + "from torchvision.extension import _has_ops\n"
        "print(_has_ops(), len(torchvision_cpu._definitions))"
    )
    assert said.split() in (["True", "0"], ["False", "1"])


@pytest.mark.slow
def test_where_the_operators_are_present_it_defines_nothing(tmp_path: Path) -> None:
    """As beside a CPU-only torch with a torchvision built for it, here a stand-in of four lines."""
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(
        "import torch\n"
        "library = torch.library.Library('torchvision', 'FRAGMENT')\n"
        "library.define('nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')\n"
        "torch.library.register_fake('torchvision::nms')(lambda *args: args[0])\n"
    )
    succeeds(
        "import torch\ntorch.version.cuda = None"
        + CURED
        + "assert not torchvision_cpu._definitions"
        f"\nassert vision.__file__.startswith({str(tmp_path)!r})",
        tmp_path,
    )


@pytest.mark.slow
@pytest.mark.parametrize("cuda", ["13.0", "12.8"])
def test_a_mismatch_beside_a_cuda_torch_is_not_papered_over(cuda: str) -> None:
    result = run(CPU_ONLY + f"torch.version.cuda = {cuda!r}" + CURED)
    assert result.returncode != 0
    assert "operator torchvision::nms does not exist" in result.stderr
