"""What `examples/deploy` starts is a server that answers; its files are those that systemd and Compose understand."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
import urllib.request
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from compose_spec import PyCompose

from finetune.serve import ServeTarget, hand_over

from . import system_calls
from .command import ROOT, SLMTUNE, fresh_environment

DEPLOY = ROOT / "examples/deploy"
UNIT = (DEPLOY / "slmtune.service").read_text("utf-8")
COMPOSE = (DEPLOY / "compose.yaml").read_text("utf-8")
VLLM_COMPOSE = (DEPLOY / "vllm/compose.yaml").read_text("utf-8")
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE)["services"]
QUERIES = (DEPLOY / "README.md").read_text("utf-8").partition("PromQL")[2].partition("##")[0]
KEYS = {"people": "a-long-random-string", "prometheus": "another-long-random-string"}
MOST_EXPOSED = 1.5  # of 10, as systemd rates services; those without any protection get 9.6

has_systemd = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd on this machine")


def setting(name: str) -> str:
    """The value of a setting that occurs once in the unit."""
    [value] = re.findall(rf"^{name}=(.*)$", UNIT, re.M)
    return str(value)


def unit_command() -> list[str]:
    program, *words = shlex.split(setting("ExecStart"))
    assert program == "/opt/slmtune/bin/slmtune"
    return words


def read_prometheus() -> dict[str, Any]:
    jobs: list[dict[str, Any]] = yaml.safe_load((DEPLOY / "prometheus.yml").read_text("utf-8"))["scrape_configs"]
    assert len(jobs) == 1
    return jobs[0]


def adapt(words: list[str], adapter: Path, keys: Path) -> list[str]:
    """The command for this machine: another adapter and key file, a free port, and no other machine's business."""
    changes = {"--host": "127.0.0.1", "--port": "0", "--api-key-file": str(keys)}
    assert set(changes) < set(words)
    pairs = zip(["", *words], words, strict=False)
    return [changes.get(before, re.sub("^news=.*", f"news={adapter}", word)) for before, word in pairs]


def ask(url: str, key: str, body: object = None) -> str:
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    data = json.dumps(body).encode() if body else None
    with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=30) as answer:
        text: str = answer.read().decode()
        return text


def filtered() -> list[str]:
    """The beginning of a command that may use only the system calls of the unit, if this machine can check that."""
    filters = re.findall(r"^SystemCallFilter=(.*)$", UNIT, re.M)
    assert filters
    return [sys.executable, system_calls.__file__, *filters, "--"] if system_calls.AVAILABLE else []


@pytest.mark.parametrize(
    ("words", "before"),
    [(unit_command(), filtered()), (SERVICES["slmtune"]["command"], [])],
    ids=["systemd", "compose"],
)
def test_command_starts_a_server_that_ends_as_expected(
    words: list[str], before: list[str], tiny_adapter: Path, tmp_path: Path
) -> None:
    keys = tmp_path / "keys"
    keys.write_text("".join(f"{name} {key}\n" for name, key in KEYS.items()), "utf-8")
    command = [*before, *SLMTUNE, *adapt(words, tiny_adapter, keys)]
    with subprocess.Popen(command, cwd=tmp_path, env=fresh_environment(), stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().rpartition(" at ")[2].strip().removesuffix("/v1")
            is_healthy = SERVICES["slmtune"]["healthcheck"]["test"][1:]
            check = [sys.executable, *(word.replace("http://127.0.0.1:8000", url) for word in is_healthy[1:])]
            assert subprocess.run(check, timeout=30, check=False).returncode == 0
            models = json.loads(ask(f"{url}/v1/models", KEYS["people"]))["data"]
            assert "news" in [model["id"] for model in models]
            body = {"model": "news", "prompt": "The bank", "max_tokens": 4}
            assert json.loads(ask(f"{url}/v1/completions", KEYS["people"], body))["choices"]
            figures = ask(url + read_prometheus()["metrics_path"], KEYS["prometheus"])
            assert "slmtune_up 1.0" in figures
            families = set(re.findall(r"^# TYPE (\w+) ", figures, re.M))
            queried = set(re.findall(r"slmtune_[a-z_]+?(?=_bucket|\W)", QUERIES))
            assert queried
            assert queried <= families
        finally:
            process.send_signal(signal.SIGTERM)
    assert process.returncode == int(setting("SuccessExitStatus"))


@pytest.mark.skipif(not system_calls.AVAILABLE, reason="no systemd or no libseccomp on this machine")
def test_filter_of_system_calls_refuses_the_others() -> None:
    program = [sys.executable, "-c", "import socket; socket.socket()"]
    for filters, code in ((["@system-service"], 0), (["@system-service", "~@network-io"], 1)):
        words = [sys.executable, system_calls.__file__, *filters, "--", *program]
        assert subprocess.run(words, capture_output=True, check=False).returncode == code


@has_systemd
def test_systemd_accepts_the_unit_and_finds_little_exposed(tmp_path: Path) -> None:
    unit = tmp_path / "slmtune.service"
    unit.write_text(UNIT.replace("/opt/slmtune/bin/slmtune", "/bin/true"), "utf-8")  # which must exist
    checked = subprocess.run(["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True)
    assert (checked.returncode, checked.stderr) == (0, "")
    rate = ["systemd-analyze", "security", "--offline=yes", "--no-pager", str(unit)]
    rated = subprocess.run(rate, capture_output=True, text=True, check=True)
    [exposure] = re.findall(r"exposure level for slmtune.service: ([\d.]+)", rated.stdout)
    assert float(exposure) <= MOST_EXPOSED


def test_compose_file_keeps_to_the_specification() -> None:
    assert PyCompose.from_yaml(COMPOSE).service_names() == ["slmtune", "prometheus"]
    with pytest.raises(ValueError, match="cap_dorp"):
        PyCompose.from_yaml(COMPOSE.replace("cap_drop", "cap_dorp"))


@pytest.mark.parametrize("name", SERVICES)
def test_containers_are_closed_and_what_they_mount_is_there(name: str) -> None:
    service = SERVICES[name]
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    files = [volume.partition(":")[0] for volume in service["volumes"] if volume.startswith("./")]
    assert all((DEPLOY / file).exists() for file in files if Path(file).suffix)
    known = yaml.safe_load(COMPOSE)
    assert set(service["secrets"]) <= known["secrets"].keys()
    volumes = {volume.partition(":")[0] for volume in service["volumes"] if not volume.startswith("./")}
    assert volumes <= known["volumes"].keys()


@pytest.mark.parametrize("kind", ["compose", "kubernetes"])
def test_replicas_run_the_command_that_slmtune_prints(
    kind: str, tiny_adapter: Path, tiny_model: Path, tmp_path: Path
) -> None:
    adapter = Path(shutil.copytree(tiny_adapter, tmp_path / "news"))
    printed = hand_over([ServeTarget("news", adapter)]).command
    changed = {
        str(tiny_model): "HuggingFaceTB/SmolLM2-135M",
        str(tmp_path): "/adapters",
        tiny_model.name: "smollm2-135m",
    }
    wanted = re.sub("|".join(map(re.escape, changed)), lambda match: changed[match[0]], "\0".join(printed)).split("\0")
    options = re.sub(r"\0(?!--)", "=", "\0".join(wanted[3:])).split("\0")
    if kind == "compose":
        merged = yaml.safe_load(VLLM_COMPOSE)  # Compose knows the merge key of YAML, PyCompose does not
        PyCompose.from_yaml(yaml.safe_dump(merged))
        services = merged["services"]
        replicas = [services["vllm-0"], services["vllm-1"]]
        commands = [[*replica["entrypoint"], *replica["command"]] for replica in replicas]
        assert "ports" not in {**replicas[0], **replicas[1]}  # only the proxy can be reached
        devices = [one["deploy"]["resources"]["reservations"]["devices"][0]["device_ids"] for one in replicas]
        assert devices == [["0"], ["1"]]
        # Its containers are reached by their names, at the image's own address.
        options = [option for option in options if not option.startswith(("--host=", "--port="))]
    else:
        documents = {
            one["kind"]: one for one in yaml.safe_load_all((DEPLOY / "vllm/kubernetes.yaml").read_text("utf-8"))
        }
        [container] = documents["Deployment"]["spec"]["template"]["spec"]["containers"]
        commands = [[*container["command"], *container["args"]]]
        assert documents["Service"]["spec"]["selector"] == documents["Deployment"]["metadata"]["labels"]
        [rule] = documents["Ingress"]["spec"]["rules"]
        assert [path["path"] for path in rule["http"]["paths"]] == ["/v1"]
        options = [option.replace("127.0.0.1", "0.0.0.0") for option in options]
    for command in commands:
        assert command[:3] == wanted[:3]
        assert sorted(command[3:]) == sorted(options)


def test_prometheus_asks_the_server_with_its_key() -> None:
    job = read_prometheus()
    command = SERVICES["slmtune"]["command"]
    assert job["static_configs"] == [{"targets": [f"slmtune:{command[command.index('--port') + 1]}"]}]
    secret = Path(job["authorization"]["credentials_file"])
    assert (secret.parent, secret.name) == (Path("/run/secrets"), SERVICES["prometheus"]["secrets"][0])
    [keys] = SERVICES["slmtune"]["secrets"]
    assert command[command.index("--api-key-file") + 1] == f"/run/secrets/{keys}"


def test_image_is_built_from_what_is_sent_and_contains_the_page(tmp_path: Path) -> None:
    dockerfile = (DEPLOY / "Dockerfile").read_text("utf-8")
    copied = [word for line in re.findall(r"^COPY ([^-].*) \S+$", dockerfile, re.M) for word in line.split()]
    sent = re.findall(r"^!(.*)$", (DEPLOY / "Dockerfile.dockerignore").read_text("utf-8"), re.M)
    assert sorted(copied) == sorted(sent)
    for name in copied:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, tmp_path)
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path / "dist"), "."]
    done = subprocess.run(build, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    [wheel] = (tmp_path / "dist").glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "finetune/serve/api/page.html" in names
    assert "finetune/_recipes/datasets/finance/recipe.yaml" in names


def test_readme_names_every_file_and_every_secret() -> None:
    readme = (DEPLOY / "README.md").read_text("utf-8")
    for secret in yaml.safe_load(COMPOSE)["secrets"].values():
        assert secret["file"].removeprefix("./") in readme
    assert setting("LoadCredential").partition(":")[2] in readme
    for name in ("slmtune.service", "compose.yaml", "vllm/", "kubernetes.yaml"):
        assert name in readme
