"""Build the wheel, install it into an empty environment's folder and run it from elsewhere, as a wheel user would.

Checks that every YAML and search space of ``properties/`` is inside, that the settings resolve from the installed copy, and
that the console script's entry point answers ``--help``. Dependencies are taken from the environment that runs this script.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROBE = """
import pathlib, sys
sys.path.insert(0, sys.argv[1])
import recbole_hnlm
from recbole_hnlm.utils.paths import properties_dir
installed = pathlib.Path(sys.argv[1]).resolve()
assert installed in pathlib.Path(recbole_hnlm.__file__).resolve().parents, recbole_hnlm.__file__
assert installed in pathlib.Path(properties_dir()).resolve().parents, properties_dir()
from recbole_hnlm.cli import main
try:
    main(["--help"])
except SystemExit as stop:
    assert not stop.code, stop.code
"""


def run(*command: str, cwd: Path) -> None:
    """Run a command and fail with its output if it fails."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    result = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)  # noqa: S603
    if result.returncode:
        sys.exit(f"failed: {' '.join(command)}\n{result.stdout}\n{result.stderr}")


def main() -> None:
    """Build, inspect, install and probe the wheel."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        python = sys.executable
        run(python, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT), cwd=out)
        (wheel,) = out.glob("*.whl")
        inside = set(zipfile.ZipFile(wheel).namelist())
        expected = {
            f"recbole_hnlm/{path.relative_to(ROOT).as_posix()}"
            for path in (ROOT / "properties").rglob("*")
            if path.suffix in {".yaml", ".test"}
        }
        missing = sorted(expected - inside)
        if missing or not expected:
            sys.exit(f"the wheel lacks {missing or 'every file of properties'}")
        target = out / "site"
        run(python, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target), str(wheel), cwd=out)
        run(python, "-c", PROBE, str(target), cwd=out)
        print(f"{wheel.name}: {len(inside)} files, {len(expected)} of them from properties, runs from an empty folder")  # noqa: T201


if __name__ == "__main__":
    main()
