"""What is installed on each Python: one pin a package, within the stated ranges, and all that RecBole reads."""

import re
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
# RecBole imports these for what nothing here calls (ray, tabulate) or for its own HyperTuning's pictures (plotly).
UNREAD = {"ray", "tabulate", "plotly"}


def holds(requirement, python, extra=""):
    environment = {"python_version": python, "python_full_version": f"{python}.1", "extra": extra}
    return requirement.marker is None or requirement.marker.evaluate(environment)


def pins(python):
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    stated = [pin for pin in map(Requirement, lines) if holds(pin, python)]
    found = {canonicalize_name(pin.name): str(pin.specifier).removeprefix("==") for pin in stated}
    assert len(found) == len(stated), "two pins of one package"
    return found


def requirements(python, extra=""):
    tomllib = pytest.importorskip("tomllib")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = project["dependencies"] + (project["optional-dependencies"][extra] if extra else [])
    return [each for each in map(Requirement, lines) if holds(each, python)]


@pytest.mark.parametrize("python", PYTHONS)
def test_pins_satisfy_what_is_required(python):
    pinned = pins(python)
    own = requirements(python) + [
        each for extra in ("ncl", "parquet", "storage", "hyperopt", "test") for each in requirements(python, extra)
    ]
    for requirement in own:
        if requirement.name != "recbole-hnlm":
            assert requirement.specifier.contains(pinned[canonicalize_name(requirement.name)]), requirement
    assert pinned["numpy"].split(".")[0] == ("1" if python < "3.12" else "2")


def test_without_its_metadata_recbole_finds_what_it_reads():
    asked = {canonicalize_name(Requirement(line).name) for line in metadata.requires("recbole") if "extra ==" not in line}
    ours = {canonicalize_name(each.name) for each in requirements("3.13")}
    assert "ray" in asked
    assert "recbole" not in ours
    assert asked - UNREAD <= ours


def test_every_python_is_stated_alike():
    readme, makefile, workflow = ((ROOT / name).read_text() for name in ("README.md", "Makefile", ".github/workflows/ci.yml"))
    project = (ROOT / "pyproject.toml").read_text()
    assert 'requires-python = ">=3.10,<3.14"' in project
    assert "(3, 10) <= v <= (3, 13)" in makefile
    assert "Python 3.10 to 3.13" in readme
    matrix = re.search(r"python: \[(.+)\]", workflow)[1]
    assert tuple(re.findall(r"[\d.]+", matrix)) == PYTHONS
