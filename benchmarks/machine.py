"""What the figures were measured on."""

import os
import platform
from collections.abc import Mapping
from pathlib import Path


def describe_machine(settings: Mapping[str, str]) -> dict[str, str]:
    memory_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1024**3
    return {
        "cores": str(os.cpu_count()),
        "memory": f"{memory_gb:.0f} GB",
        "processor": _processor(),
        "kernel": f"{platform.system()} {platform.release()}",
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "PostgreSQL": f"{settings['server_version']}, embedded, by unix socket",
        "settings": ", ".join(f"{name} = {value}" for name, value in settings.items() if name != "server_version"),
    }


def describe_load() -> str:
    """How busy others kept the machine: the load average before the first figure."""
    return ", ".join(f"{load:.1f}" for load in os.getloadavg())


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except FileNotFoundError:
        return platform.processor() or platform.machine()
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.machine()
