"""The layers that get LoRA matrices: whether a name of `--target-modules` means a layer, and which layers there are."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.errors import InputError

if TYPE_CHECKING:
    from finetune.models.heads import Head

ALL = "all-linear"


def is_target(targets: str | tuple[str, ...], path: str) -> bool:
    """Whether PEFT adds LoRA matrices to a linear layer: `targets` is all-linear, a regular expression, or path suffixes."""
    if targets == ALL:
        return True
    if isinstance(targets, str):
        return re.fullmatch(targets, path) is not None
    return any(path == target or path.endswith(f".{target}") for target in targets)


def require_targets(targets: str | tuple[str, ...], layers: Sequence[str]) -> None:
    """Refuse targets that no layer has.

    Args:
        layers: the paths of the layers that can get LoRA matrices.

    Raises:
        InputError: lists the names without a layer, the nearest ones and all that exist.
    """
    single = (targets,) if isinstance(targets, str) else targets
    wanted = {name: (targets if isinstance(targets, str) else (name,)) for name in single}
    missing = [name for name, target in wanted.items() if not any(is_target(target, path) for path in layers)]
    if not missing:
        return
    known = list(dict.fromkeys(path.rpartition(".")[2] for path in layers))
    near = [difflib.get_close_matches(name.rpartition(".")[2], known, n=1, cutoff=0.5) for name in missing]
    nearest = ", ".join(dict.fromkeys(name for names in near for name in names))
    hint = f" Did you mean {nearest}?" if nearest else ""
    raise InputError(
        f"--target-modules: no layer of the model is called {', '.join(missing)}.{hint} Its layers are {', '.join(known)}; "
        f"{ALL} takes all but the output head"
    )


def list_layers(folder: Path, head: Head | None = None) -> list[str]:
    """The paths of the layers that can get LoRA matrices, from config.json alone; empty if transformers cannot build it."""
    from torch import nn  # here: `slmtune plan` imports this module
    from transformers.pytorch_utils import Conv1D

    from finetune.models.heads import build_skeleton

    try:
        model = build_skeleton(folder, head)
    except (OSError, ValueError, ImportError):
        return []  # loading the model reports it
    return [name for name, module in model.named_modules() if isinstance(module, (nn.Linear, nn.Embedding, Conv1D))]
