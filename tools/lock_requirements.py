"""Writes requirements.lock, requirements-server.lock and requirements-dev.lock: exact versions, and no index, host or path."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
QUIET = (
    "--quiet",
    "--no-emit-index-url",
    "--no-emit-find-links",
    "--no-emit-trusted-host",
    "--no-emit-options",
    "--no-header",
    "--strip-extras",
)


def lock(output: str, *extras: str) -> None:
    chosen = [f"--extra={extra}" for extra in extras]
    command = [sys.executable, "-m", "piptools", "compile", *QUIET, *chosen, f"--output-file={output}"]
    subprocess.run([*command, "pyproject.toml"], cwd=ROOT, check=True)


if __name__ == "__main__":
    lock("requirements.lock")
    lock("requirements-server.lock", "server")
    lock("requirements-dev.lock", "dev", "server")
