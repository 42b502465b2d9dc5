"""A rank's memory: how much it holds, and that it keeps what it frees, by the kernel's pages."""

import platform
import subprocess
import sys

import psutil
import pytest
import torch

from trainer.engine.allocator import held_bytes

FAULTS = """
import resource, sys
import torch
from trainer.engine.allocator import keep_freed_memory

assert sys.argv[1] == "plain" or keep_freed_memory()

def step():
    taken = [torch.zeros(16 * 2**20) for _ in range(2)]  # 128 MiB, freed at the end

for _ in range(10):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be asked for it")
def test_steps_after_the_first_take_hardly_a_page_from_the_kernel():
    plain, kept = (
        int(subprocess.run([sys.executable, "-c", FAULTS, mode], capture_output=True, check=True,
                           text=True).stdout)
        for mode in ("plain", "kept")
    )  # fmt: skip
    assert kept < plain / 4  # the heap takes some steps to find its form


MIB = 2**20


def test_a_rank_on_a_cpu_holds_what_it_has_written_to():
    before = held_bytes(torch.device("cpu"))
    written = torch.ones(64 * MIB, dtype=torch.uint8)
    after = held_bytes(torch.device("cpu"))
    assert 56 * MIB < after - before < 96 * MIB
    assert len(written) < after  # held until here


def test_if_the_system_does_not_tell_there_is_no_number(monkeypatch):
    def denied():
        raise psutil.AccessDenied()

    monkeypatch.setattr(psutil, "Process", denied)
    assert held_bytes(torch.device("cpu")) is None


def test_of_a_gpu_it_is_what_pytorch_has_reserved_on_this_ranks(monkeypatch):
    reserved = {torch.device("cuda", 0): 7, torch.device("cuda", 1): 2**30}
    monkeypatch.setattr(torch.cuda, "memory_reserved", reserved.__getitem__)
    assert held_bytes(torch.device("cuda", 1)) == 2**30


@pytest.mark.gpu
def test_a_rank_on_a_gpu_holds_what_it_has_taken_and_is_told_without_waiting():
    device = torch.device("cuda", 0)
    before = held_bytes(device)
    torch.cuda.set_sync_debug_mode("error")
    try:
        taken = torch.empty(64 * MIB, dtype=torch.uint8, device=device)
        after = held_bytes(device)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert after >= taken.numel() and after >= before
