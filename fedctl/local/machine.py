"""CPUs and GPUs of this machine that a run may use, found without torch."""

import os
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUP = Path("/proc/self/cgroup")
DEVICES = Path("/dev")


def cpus() -> int:
    """Return the CPUs that this process may use: its affinity, or a container's lower quota."""
    try:
        allowed = len(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        allowed = os.cpu_count() or 1
    return max(1, min([allowed, *(int(quota) for quota in _quotas())]))


def _quotas() -> list[float]:
    """Return the CPUs that the control groups above this process grant, in either version."""
    found = []
    try:
        lines = OWN_CGROUP.read_text().splitlines()
    except OSError:
        return []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        roots = [CGROUPS / controllers, CGROUPS / "cpu"] if controllers else [CGROUPS]
        place = Path(path.lstrip("/"))
        for folder in {root / part for root in roots for part in (place, *place.parents)}:
            try:
                if controllers:
                    quota = (folder / "cpu.cfs_quota_us").read_text()
                    period = (folder / "cpu.cfs_period_us").read_text()
                else:
                    quota, period = (folder / "cpu.max").read_text().split()
                if quota.strip() != "max" and int(quota) > 0:
                    found.append(int(quota) / int(period))
            except (OSError, ValueError):
                continue
    return found


def gpus() -> list[str]:
    """Return the NVIDIA GPUs that a process started here sees, as in CUDA_VISIBLE_DEVICES."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [device for device in visible.split(",") if device and device != "-1"]
    count = sum(path.name.removeprefix("nvidia").isdigit() for path in DEVICES.glob("nvidia*"))
    return [str(index) for index in range(count)]
