"""The YAML files are found in a wheel, an editable install and the source tree."""

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from recbole_hnlm.utils import paths
from recbole_hnlm.utils.errors import ConfigError

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel built from a copy, so that nothing is left in the source tree."""
    source = tmp_path_factory.mktemp("source")
    for name in ("recbole_hnlm", "properties"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    (source / "README.md").write_text("readme")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(source / "dist"), str(source)]
    built = subprocess.run(command, check=False, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr[-2000:]
    return next((source / "dist").glob("*.whl"))


def _located(site, cwd):
    """Ask a fresh interpreter, outside the source tree, where the YAML files are."""
    code = (
        "import sys, json; sys.path.insert(0, sys.argv[1])\n"
        "sys.meta_path = [f for f in sys.meta_path if 'editable' not in str(f)]\n"
        "import recbole_hnlm, recbole_hnlm.utils.paths as p\n"
        "print(json.dumps([recbole_hnlm.__file__, str(p.properties_dir())]))"
    )
    shown = subprocess.run([sys.executable, "-I", "-c", code, str(site)], check=True, capture_output=True, text=True, cwd=cwd)
    return [Path(path) for path in json.loads(shown.stdout)]


def test_every_yaml_is_in_the_wheel_and_found(wheel, tmp_path):
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    package, folder = _located(site, tmp_path)
    assert package.is_relative_to(site)
    assert folder == site / "recbole_hnlm" / "properties"
    shipped = {path.relative_to(folder) for path in folder.rglob("*.yaml")}
    assert shipped == {path.relative_to(ROOT / "properties") for path in (ROOT / "properties").rglob("*.yaml")}
    assert Path("overall.yaml") in shipped


def test_the_source_tree_uses_its_own_files(tmp_path):
    package, folder = _located(ROOT, tmp_path)
    assert (package.parent.parent, folder) == (ROOT, ROOT / "properties")


def test_another_checkouts_files_do_not_win(tmp_path, monkeypatch):
    for name in ("mine", "other"):
        (tmp_path / name / "properties").mkdir(parents=True)
        (tmp_path / name / "properties" / "overall.yaml").write_text("")
    (tmp_path / "mine" / "pyproject.toml").write_text("")
    monkeypatch.setattr(paths, "_packaged", lambda: tmp_path / "other" / "properties")
    assert paths.properties_dir(tmp_path / "mine") == tmp_path / "mine" / "properties"
    (tmp_path / "mine" / "pyproject.toml").unlink()
    assert paths.properties_dir(tmp_path / "mine") == tmp_path / "other" / "properties"


def test_an_incomplete_package_falls_back_to_the_sibling(tmp_path, monkeypatch):
    (tmp_path / "properties").mkdir()
    (tmp_path / "properties" / "overall.yaml").write_text("")
    monkeypatch.setattr(paths, "_packaged", lambda: tmp_path / "empty")
    assert paths.properties_dir(tmp_path) == tmp_path / "properties"


def test_nothing_found_names_both_places(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "_packaged", lambda: None)
    with pytest.raises(ConfigError, match=r"recbole_hnlm\.properties \(not installed\) nor in .*properties"):
        paths.properties_dir(tmp_path)
