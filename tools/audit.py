"""Look up the pinned packages in the database of published vulnerabilities with pip-audit, and say what could not be looked up.

pip-audit passes over a package that its service does not answer for, and ends with success; without a network that would be
every one of them. Here that is a failure of its own.

Exit code: 0 no vulnerability is known, 1 some are, 3 the database could not be reached for all packages.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
FOUND, UNREACHED = 1, 3


def summary(report: dict[str, Any]) -> tuple[int, list[str]]:
    """Turn pip-audit's JSON report into an exit code and lines.

    Args:
        report: with ``dependencies``, each of which has ``vulns``, or a ``skip_reason`` where it was not looked up.
    """
    packages = report["dependencies"]
    skipped = [package["name"] for package in packages if "skip_reason" in package]
    lines, known = [], 0
    for package in packages:
        for found in package.get("vulns", ()):
            known += 1
            fixed = ", ".join(found.get("fix_versions", ())) or "no version yet"
            lines.append(f"{package['name']} {package['version']}: {found['id']}, fixed in {fixed}")
    lines.append(f"{known} known vulnerabilities in {len(packages) - len(skipped)} of {len(packages)} pinned packages")
    if skipped:
        named = ", ".join(skipped[:5]) + (", ..." if len(skipped) > 5 else "")
        lines.append(f"NOT LOOKED UP, the database could not be reached for them: {len(skipped)} packages ({named})")
    return FOUND if known else UNREACHED if skipped else 0, lines


def main() -> int:
    """Run pip-audit over constraints.txt, without asking pip to resolve anything."""
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(ROOT / "constraints.txt")]
    command += ["--no-deps", "--disable-pip", "--format=json", "--progress-spinner=off"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - the command is ours
    try:
        code, lines = summary(json.loads(done.stdout))
    except (json.JSONDecodeError, KeyError):
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        code, lines = UNREACHED, [f"NOTHING WAS LOOKED UP, the database could not be reached: {last[:300]}"]
    sys.stdout.write("".join(f"audit: {line}\n" for line in lines))
    return code


if __name__ == "__main__":
    sys.exit(main())
