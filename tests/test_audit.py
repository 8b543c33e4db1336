"""`make audit`: what pip-audit reports, and above all what it could not look up; and the floors of pyproject.toml."""

import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
import audit  # noqa: E402

CLEAN = {"name": "a", "version": "1", "vulns": []}
WRONG = {"name": "b", "version": "2", "vulns": [{"id": "CVE-1", "fix_versions": ["3"]}]}
UNKNOWN = {"name": "c", "skip_reason": "Dependency not found on PyPI and could not be audited: c (1)"}


@pytest.mark.parametrize(
    ("packages", "code", "line"),
    [
        ([CLEAN], 0, "0 known vulnerabilities in 1 of 1 pinned packages"),
        ([CLEAN, WRONG], 1, "b 2: CVE-1, fixed in 3"),
        ([CLEAN, UNKNOWN], 3, "NOT LOOKED UP, the database could not be reached for them: 1 packages (c)"),
        ([WRONG, UNKNOWN], 1, "NOT LOOKED UP, the database could not be reached for them: 1 packages (c)"),
    ],
)
def test_what_was_not_looked_up_does_not_pass(packages, code, line):
    found, lines = audit.summary({"dependencies": packages})
    assert found == code
    assert line in lines


def test_a_database_that_is_out_of_reach_is_said(monkeypatch, capsys):
    failed = subprocess.CompletedProcess([], 1, "", "Traceback ...\nConnectionError: Failed to resolve 'api.example'\n")
    monkeypatch.setattr(subprocess, "run", lambda *args, **kwargs: failed)
    assert audit.main() == 3
    assert "NOTHING WAS LOOKED UP, the database could not be reached: ConnectionError" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("package", "vulnerable"),
    [
        ("setuptools", "78.1.0"),
        ("filelock", "3.20.2"),
        ("tqdm", "4.66.2"),
        ("scikit-learn", "1.4.2"),
        ("torch", "2.9.1"),
        ("orjson", "3.11.5"),
        ("pytest", "9.0.2"),
    ],
)
def test_floors_leave_out_versions_with_published_vulnerabilities(package, vulnerable):
    project = pytest.importorskip("tomllib").loads((ROOT / "pyproject.toml").read_text())
    stated = [*project["project"]["dependencies"], *project["project"]["optional-dependencies"]["test"]]
    stated += project["build-system"]["requires"]
    ranges = [Requirement(text).specifier for text in stated if Requirement(text).name == package]
    assert ranges
    assert not any(vulnerable in each for each in ranges)
