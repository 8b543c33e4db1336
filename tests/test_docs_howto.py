"""The how-tos: their files are written and their commands are run as they stand on the pages."""

from __future__ import annotations

import csv
import random
import re
import shlex
from pathlib import Path

import pytest
import yaml

from recbole_hnlm.cli import main
from recbole_hnlm.config.settings import HNLMSettings
from recbole_hnlm.testing import ModelConformance, SamplerConformance
from recbole_hnlm.utils import registry

DOCS = Path(__file__).parent.parent / "docs"
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
QUICK = ("--epochs=1", "--use_gpu=False", "--show_progress=False", "--state=ERROR")


def blocks(page, language):
    return [text for kind, text in _BLOCK.findall((DOCS / page).read_text(encoding="utf-8")) if kind == language]


def commands(page):
    """The page's commands as lists of words, those of one command over several lines joined."""
    lines = "".join(blocks(page, "bash")).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True) for line in lines]


def arguments(command):
    """Arguments of a ``recbole-hnlm`` command, without variables in front."""
    return command[command.index("recbole-hnlm") + 1 :]


# --- your own models and samplers --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def my_package(tmp_path_factory):
    """The files of docs/howto-extend.md, each named in its first line, on the path."""
    folder = tmp_path_factory.mktemp("extend")
    for text in blocks("howto-extend.md", "python") + blocks("howto-extend.md", "yaml"):
        file = folder / text.splitlines()[0].removeprefix("# ")
        file.parent.mkdir(exist_ok=True)
        file.write_text(text, encoding="utf-8")
    assert {file.name for file in (folder / "my_package").iterdir()} == {
        *("my_module.py", "MyModel.yaml", "nearest.py", "nearest.yaml")
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        registry._entry_points.cache_clear()
        yield folder
    registry._entry_points.cache_clear()


def test_the_commands_that_extend_run_and_their_keys_count(my_package, workdir, capsys):
    model, sampler = [command for command in commands("howto-extend.md") if "recbole-hnlm" in command]
    losses = {}
    for name, command in {"model": model, "without": model, "sampler": sampler}.items():
        words = ["--pull_weight=0" if name == "without" and word.startswith("--pull_weight") else word for word in command]
        assert main([*arguments(words), *QUICK]) == 0, capsys.readouterr().err
        (file,) = (workdir / "results").glob("*.json")
        losses[name] = yaml.safe_load(file.read_text())["train_loss"][0]
        file.unlink()
    assert losses["model"] > losses["without"]
    assert losses["sampler"] != losses["without"]
    assert main([*arguments(sampler), "--left_ou=2"]) == 2
    assert "unknown key left_ou; the nearest valid one is left_out" in capsys.readouterr().err


def test_the_sampler_passes_over_the_nearest_candidates(my_package):
    import torch  # noqa: PLC0415 - keeps collection fast
    from my_package.nearest import choose  # noqa: PLC0415

    class Inputs:
        item_all = torch.tensor([[0.0], [1.0], [2.0], [3.0], [4.0]])
        positives = torch.tensor([1, 2])
        candidates = torch.tensor([[4, 2, 3], [1, 3, 4]])

        class settings:  # noqa: N801 - an attribute
            sampler_keys = {"left_out": 1}  # noqa: RUF012

    assert choose(Inputs).items.tolist() == [3, 3]


@pytest.mark.usefixtures("my_package")
class TestMyModel(ModelConformance):
    model = "my_package.my_module:MyModel"


@pytest.mark.usefixtures("my_package")
class TestNearest(SamplerConformance):
    sampler = "my_package.nearest:SAMPLER"


# --- your own dataset --------------------------------------------------------------------------------------------------------


def _write_tables(folder):
    draw = random.Random(3)
    with (folder / "interactions.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["user", "item", "rating", "time"])
        for user in range(40):
            for step, item in enumerate(draw.sample(range(25), 14)):
                table.writerow([f"{user:03d}", f"B-{item}", 5 if step % 7 else 2, f"2024-{1 + step % 12:02d}-{1 + step:02d}"])
    with (folder / "items.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["item", "title", "genres"])
        table.writerows([f"B-{item}", f"Film\t{item}\nof <b>Years</b>", "Drama, War"] for item in range(25))


def test_two_csv_files_become_a_dataset_a_model_and_recommendations(workdir, capsys):
    _write_tables(workdir)
    exec(compile(blocks("howto-own-dataset.md", "python")[0], "convert.py", "exec"), {})
    assert capsys.readouterr().out == "560 interactions, 25 items, 0 interacted items without a row in items.csv\n"
    lines = (workdir / "dataset" / "my-films" / "my-films.item").read_text().splitlines()
    assert lines[:2] == ["item_id:token\ttitle:token_seq\tcategories:token_seq", "B-0\tFilm 0 of Years\tDrama, War"]
    (workdir / "my-films.yaml").write_text(blocks("howto-own-dataset.md", "yaml")[0], encoding="utf-8")
    coverage, dry, plain, _, recommend, _ = map(arguments, commands("howto-own-dataset.md"))
    assert main([*coverage, "--use_gpu=False"]) == 0
    assert re.search(r"title +25 of 25 \(100.0%\)", capsys.readouterr().out)
    assert main([*dry, "--use_gpu=False"]) == 0
    assert "40 users, 25 items" in capsys.readouterr().out
    assert main([*plain, *QUICK]) == 0
    (record,) = (workdir / "results").glob("*.json")
    checkpoint = yaml.safe_load(record.read_text())["checkpoint"]
    recommend = [f"--checkpoint={checkpoint}" if "<run_id>" in word else word for word in recommend]
    assert main([*recommend, "--use_gpu=False", "--show_progress=False"]) == 0
    with (workdir / "recommendations.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 40 * 10
    assert {row["user_id"] for row in rows} == {f"{user:03d}" for user in range(40)}
    assert rows[0]["title"].startswith("Film ")


# --- a real LLM --------------------------------------------------------------------------------------------------------------


def test_the_keys_for_a_server_are_valid_and_its_dry_run_bills(workdir, capsys):
    text = blocks("howto-real-llm.md", "yaml")[0]
    (workdir / "llm.yaml").write_text(text, encoding="utf-8")
    HNLMSettings(**yaml.safe_load(text))
    dry = next(command for command in commands("howto-real-llm.md") if "--dry_run" in command)
    assert main([*arguments(dry), "--use_gpu=False"]) == 0
    printed = capsys.readouterr().out
    assert "LLM Qwen/Qwen2.5-7B-Instruct (openai)" in printed
    assert "to be billed, where the server bills" in printed
    assert "at 3,200 tokens/s (assumed, not measured: 50 tokens/s in each of llm_concurrency requests)" in printed


@pytest.mark.parametrize("page", sorted(file.name for file in DOCS.glob("howto-*.md")))
def test_every_key_of_a_command_exists(page):
    """Keys are spelled as the settings or RecBole spell them, so that no command of a page fails on its first line."""

    known = set(HNLMSettings.model_fields)
    for command in commands(page):
        if "recbole-hnlm" not in command:
            continue
        for word in arguments(command)[1:]:
            name = word.removeprefix("--").split("=")[0]
            if name.startswith(("llm_", "profile_", "negative_r", "semantic_", "alignment_", "text_")):
                assert name in known, (page, name)
