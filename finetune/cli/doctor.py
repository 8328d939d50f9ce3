"""Is this machine ready? Every check says what it found and, if it fails, how to fix the problem.

Versions are read from installed metadata: importing proves nothing, since `import datasets` succeeds next to a folder of
that name even if the library is missing. Only the checks that try the hardware import torch.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from queue import Empty, SimpleQueue

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from finetune.errors import OfflineError
from finetune.machine import cache_folder, device_name, format_bytes, free_memory, total_memory
from finetune.models import pypi_wheel
from finetune.plan import plan
from finetune.recipe import DEFAULT_MODEL, AdapterRecipe

DISTRIBUTION = "slmtune"
MIN_DISK = 2 * 2**30  # the default base model in two precisions, a merged model, and room for a corpus
HUB_TIMEOUT = 3.0  # seconds
NF4_TOLERANCE = 0.2  # of the largest weight; half of the widest gap between NF4 levels is 0.152 (QLoRA, appendix E)
CUDA_HELP = "https://pytorch.org/get-started/locally"


@dataclass(frozen=True)
class Check:
    """One finding. If a check that is not `required` fails, slmtune can do less, but it works."""

    name: str
    ok: bool
    detail: str
    fix: str | None = None
    required: bool = True


@dataclass(frozen=True)
class DoctorReport:
    """All findings; `ok` is true if every required check passed."""

    ok: bool
    checks: tuple[Check, ...]


def run_checks(*, workspace: Path, offline: bool) -> DoctorReport:
    """Check Python, libraries, hardware, disk, Hub and cache in under ten seconds, without changing anything.

    Args:
        workspace: the folder for runs; it need not exist.
        offline: do not contact the Hub.
    """
    checks = (
        _guarded("python", _check_python),
        _guarded("libraries", _check_libraries),
        _guarded("memory", _check_memory),  # before torch is imported, which itself takes memory
        _guarded("torch", _check_torch),
        _guarded("cuda", _check_cuda),
        _guarded("bitsandbytes", _check_bitsandbytes),
        _guarded("disk", lambda: _check_disk(workspace)),
        _guarded("workspace", lambda: _check_workspace(workspace)),
        _guarded("cache", _check_cache),
        _guarded("base-model", lambda: _check_base_model(offline=offline)),
        _guarded("hub", lambda: _check_hub(offline=offline)),
    )
    return DoctorReport(all(check.ok or not check.required for check in checks), checks)


def _guarded(name: str, check: Callable[[], Check]) -> Check:
    """Run a check; a missing or broken library is a finding, not a crash."""
    try:
        return check()
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        culprit = (error.name if isinstance(error, ImportError) else None) or name
        return Check(name, False, f"cannot be checked: {reason}", _install(_requirements(culprit), "--force-reinstall"))


def _check_python() -> Check:
    version = platform.python_version()
    slmtune = _distribution()
    required = slmtune.metadata["Requires-Python"] if slmtune else ""
    ok = SpecifierSet(required).contains(version, prereleases=True)
    fix = None if ok else f"Make an environment with Python {required}"
    return Check("python", ok, f"{version}, required {required or 'unknown'}", fix)


def _check_libraries() -> Check:
    """Compare what is installed with the ranges that slmtune's own metadata declares."""
    required = _requirements()
    if not required:
        detail = "slmtune is not installed in this Python, so its needs are unknown"
        return Check("libraries", False, detail, _install([]))
    problems = [(one, problem) for one in required if (problem := _problem(one)) is not None]
    if problems:
        fix = _install([requirement for requirement, _ in problems])
        return Check("libraries", False, "; ".join(problem for _, problem in problems), fix)
    return Check("libraries", True, f"{len(required)} libraries, each in its tested range")


def _problem(requirement: Requirement) -> str | None:
    try:
        version = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        return f"{requirement.name} is missing"
    fits = requirement.specifier.contains(version, prereleases=True)
    return None if fits else f"{requirement.name} {version} is not {requirement.specifier}"


def _check_torch() -> Check:
    import torch

    return Check("torch", True, f"{torch.__version__}, {torch.get_num_threads()} threads")


def _check_cuda() -> Check:
    """No GPU is fine; a GPU that torch cannot use is not."""
    import torch

    if torch.cuda.is_available():
        gpu = torch.cuda.get_device_properties(0)
        return Check("cuda", True, f"{gpu.name}, {format_bytes(gpu.total_memory)}, CUDA {torch.version.cuda}")
    if os.environ.get("CUDA_VISIBLE_DEVICES") in {"", "-1"}:
        return Check("cuda", True, "hidden by CUDA_VISIBLE_DEVICES: training runs on the CPU")
    if not any(Path("/dev").glob("nvidia[0-9]*")):
        return Check("cuda", True, "no GPU: training runs on the CPU")
    if torch.version.cuda is None:
        detail = f"there is a GPU, but torch {torch.__version__} is built for the CPU only"
        return Check("cuda", False, detail, f"Install a CUDA build of torch: {CUDA_HELP}")
    detail = f"there is a GPU, but torch {torch.__version__} (CUDA {torch.version.cuda}) cannot use it"
    fix = f"Update the driver (see nvidia-smi), or install torch for its CUDA: {CUDA_HELP}"
    return Check("cuda", False, detail, fix)


def _check_bitsandbytes() -> Check:
    """Quantise to NF4 and back on the device that training would use: importing alone does not load the kernels."""
    import torch
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    device = device_name()
    weights = torch.linspace(-1, 1, 64, device=device).repeat(64, 1)  # 64: one block, with one scale
    packed, state = quantize_4bit(weights, compress_statistics=True, quant_type="nf4")
    error = (dequantize_4bit(packed, state, quant_type="nf4") - weights).abs().max().item()
    detail = (
        f"{metadata.version('bitsandbytes')} quantises on {device} (largest error {error:.2f} of the largest weight)"
    )
    if error <= NF4_TOLERANCE:
        return Check("bitsandbytes", True, detail)
    fix = _install(_requirements("bitsandbytes"), "--force-reinstall") + ", or train with --quantization none"
    return Check("bitsandbytes", False, detail, fix)


def _check_memory() -> Check:
    """Compare the free memory with what training with the default settings takes, as `slmtune plan` calculates it."""
    planned = plan(AdapterRecipe())
    detail = f"{format_bytes(free_memory())} of {format_bytes(total_memory())} are free"
    if planned.device == "gpu":
        detail += f", and {format_bytes(planned.free_bytes)} on the GPU"
    rows = f"{planned.batch_size} rows of {planned.max_length} tokens"
    detail += f"; training {planned.model} on {rows} at a time takes {format_bytes(planned.peak_bytes)}"
    if planned.fits:
        return Check("memory", True, detail, required=False)
    instead = f"train with {planned.suggestion.options}" if planned.suggestion else "use a larger machine"
    return Check("memory", False, detail, f"Close other programs, or {instead}", required=False)


def _check_disk(workspace: Path) -> Check:
    free = {folder: shutil.disk_usage(_existing(folder)).free for folder in (workspace, *_caches())}
    detail = "; ".join(f"{folder}: {format_bytes(amount)} free" for folder, amount in free.items())
    if min(free.values()) >= MIN_DISK:
        return Check("disk", True, detail)
    fix = f"Free {format_bytes(MIN_DISK)}, or move: --run-dir for the workspace, HF_HOME and XDG_CACHE_HOME for the caches"
    return Check("disk", False, detail, fix)


def _check_workspace(workspace: Path) -> Check:
    reason = _why_not_writable(workspace)
    if reason is None:
        return Check("workspace", True, f"{workspace} can be written")
    return Check("workspace", False, f"{workspace} cannot be written ({reason})", "Choose another with --run-dir")


def _check_cache() -> Check:
    for folder in _caches():
        if reason := _why_not_writable(folder):
            fix = "Point XDG_CACHE_HOME (slmtune) and HF_HOME (Hugging Face) at folders that you can write"
            return Check("cache", False, f"{folder} cannot be written ({reason})", fix)
    return Check("cache", True, " and ".join(map(str, _caches())) + " can be written")


def _check_base_model(*, offline: bool) -> Check:
    from finetune.models.find import find_base

    with suppress(OfflineError):
        return Check("base-model", True, f"{DEFAULT_MODEL} is cached in {find_base(DEFAULT_MODEL, fetch=False).folder}")
    if not offline:
        return Check("base-model", True, f"{DEFAULT_MODEL} is not cached: the first training fetches it")
    fix = "Run once without --offline (and without HF_HUB_OFFLINE), or give --model a local folder"
    return Check("base-model", False, f"{DEFAULT_MODEL} is not cached, and the network is forbidden", fix)


def _check_hub(*, offline: bool) -> Check:
    """Any status below 500 will do: the question is whether the Hub answers, not whether it has the model."""
    if offline:
        return Check("hub", True, "not asked: offline", required=False)
    from huggingface_hub.constants import ENDPOINT

    answers: SimpleQueue[str | int] = SimpleQueue()
    # In a thread, because resolving a host name has no timeout.
    threading.Thread(
        target=_ask, args=(f"{ENDPOINT}/api/models/{pypi_wheel.SMOLLM2.hub_id}", answers), daemon=True
    ).start()
    try:
        answer = answers.get(timeout=HUB_TIMEOUT)
    except Empty:
        answer = f"no answer in {HUB_TIMEOUT:.0f} s"
    if isinstance(answer, int) and answer < 500:
        return Check("hub", True, f"{ENDPOINT} answers", required=False)
    problem = f"answers {answer}" if isinstance(answer, int) else f"cannot be reached ({answer})"
    fix = (
        "Check the connection, proxy and HF_ENDPOINT, or work with --offline. Without the Hub: cached models, local "
        f"folders and bundled samples work, and {DEFAULT_MODEL} and minilm-l6 come from the Python package index"
    )
    return Check("hub", False, f"{ENDPOINT} {problem}", fix, required=False)


def _ask(url: str, answers: SimpleQueue[str | int]) -> None:
    import httpx2

    try:
        answers.put(httpx2.get(url, timeout=HUB_TIMEOUT, follow_redirects=False).status_code)
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError, ValueError) as error:
        answers.put(str(error) or type(error).__name__)


def _caches() -> tuple[Path, Path]:
    from huggingface_hub.constants import HF_HUB_CACHE

    return cache_folder(), Path(HF_HUB_CACHE)


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    folder = folder.expanduser().absolute()
    return next(path for path in (folder, *folder.parents) if path.exists())


def _why_not_writable(folder: Path) -> str | None:
    """Why nothing can be written where the folder is or would be created, or None; leaves nothing behind."""
    try:
        with tempfile.TemporaryFile(dir=_existing(folder)):
            return None
    except OSError as error:
        return error.strerror or type(error).__name__


def _distribution() -> metadata.Distribution | None:
    return next(iter(metadata.distributions(name=DISTRIBUTION)), None)


def _requirements(name: str | None = None) -> list[Requirement]:
    """The libraries that slmtune requires on this machine, without extras; with `name`, only that one."""
    slmtune = _distribution()
    declared = [Requirement(line) for line in (slmtune.requires if slmtune else None) or []]
    needed = [one for one in declared if one.marker is None or one.marker.evaluate({"extra": ""})]
    return [one for one in needed if name is None or canonicalize_name(one.name) == canonicalize_name(name)]


def _install(requirements: list[Requirement], options: str = "") -> str:
    """The pip command that installs these requirements, or slmtune itself if there are none."""
    packages = " ".join(f'"{one.name}{one.specifier}"' for one in requirements) or DISTRIBUTION
    return " ".join(filter(None, (sys.executable, "-m pip install", options, packages)))
