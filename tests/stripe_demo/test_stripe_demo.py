"""What `make stripe-demo` prints is what the guide shows."""

import os
import re
import subprocess
import sys
from pathlib import Path

SHOWN = re.compile(r"```text\n\$ make stripe-demo\n(.*?)```", re.DOTALL)
TIMEOUT_S = 120


def test_the_command_prints_what_the_guide_shows(root: Path) -> None:
    """Every step, invoice and figure, from an embedded ledger of its own; it fails if charges and paid invoices, or `verify`, differ."""
    environment = os.environ | {"PYTHONUTF8": "1"}
    command = [sys.executable, "-m", "tests.stripe_demo"]
    done = subprocess.run(
        command, cwd=root, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    (shown,) = SHOWN.findall((root / "docs" / "guides" / "billing-cycle.md").read_text())
    assert done.stdout.strip() == shown.strip()


def test_make_runs_it(root: Path) -> None:
    """`make stripe-demo` is this command."""
    assert "stripe-demo: $(STAMP)\n\t$(BIN)/python -m tests.stripe_demo\n" in (root / "Makefile").read_text()
