"""Process-wide settings of the libraries that slmtune uses; they must be made before those are imported."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

HUB_DOMAINS = ("huggingface.co", "hf.co")


def configure_libraries(*, offline: bool = False) -> None:
    """Turn off telemetry and the output of libraries, and forbid the network if `offline`.

    Only documented environment variables are set, and none that the user has set is changed, except that `offline`
    always takes precedence.
    """
    defaults = {
        "HF_HUB_DISABLE_TELEMETRY": "1",  # otherwise trl sends a ping per trainer
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TQDM_DISABLE": "1",  # slmtune shows its own progress bars
        "HF_HUB_VERBOSITY": "error",  # slmtune reports its own retries
        "TOKENIZERS_PARALLELISM": "false",
        "TRANSFORMERS_VERBOSITY": "error",
        "DATASETS_VERBOSITY": "error",
        "BITSANDBYTES_NOWELCOME": "1",
        "WANDB_SILENT": "true",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        # Compiled products in bfloat16 on a CPU, one for each shape. A step needs about 30, and batches have many shapes:
        # the default of 1,024 took 6 MiB more with every batch, and 128 are as fast.
        "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "128",
        # Pages of 2 MiB for large tensors where the system grants them (https://github.com/pytorch/pytorch/pull/107697)
        "THP_MEM_ALLOC_ENABLE": "1",
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    # It has no variable for this, and on CPUs with AVX512-BF16 its import warns if an optional kernel is missing.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    for name in (
        "torchao",
        "torch.utils._pytree",
    ):  # torchao, which comes with ExecuTorch, warns of kernels and old calls
        logging.getLogger(name).setLevel(logging.ERROR)
    if not is_real_hub(os.environ.get("HF_ENDPOINT", "")):
        os.environ.setdefault("HF_HUB_DISABLE_XET", "1")  # only the real Hub has xet, and hf_xet does not fall back
    if offline:
        os.environ["HF_HUB_OFFLINE"] = "1"
        if os.environ.get("WANDB_MODE", "online") == "online":
            os.environ["WANDB_MODE"] = "offline"


def is_real_hub(endpoint: str) -> bool:
    """Whether `HF_ENDPOINT` (empty: the default) is the public Hub rather than a mirror."""
    host = urlsplit(endpoint).hostname or ""
    return not endpoint or any(host == domain or host.endswith(f".{domain}") for domain in HUB_DOMAINS)


def is_offline() -> bool:
    """Whether the Hub must not be used."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}


@contextmanager
def importing_trainer() -> Iterator[None]:
    """Keep wandb out of what is imported in the block; only `finetune.trackers` uses it.

    Transformers and TRL import it wherever it is installed, which takes half a second, and Transformers prints a line if
    `WANDB_MODE` is "offline".
    """
    mode = os.environ.pop("WANDB_MODE", None)
    modules: dict[str, Any] = sys.modules
    hidden = "wandb" not in modules
    if hidden:
        modules["wandb"] = None  # how Python blocks an import
    try:
        yield
    finally:
        if hidden:
            del modules["wandb"]
        if mode is not None:
            os.environ["WANDB_MODE"] = mode
