"""The layers that get LoRA matrices: whether a name of `--target-modules` means a layer, and which layers there are."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

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


def match_pattern(pattern: Mapping[str, int], path: str, default: int) -> int:
    """The number that PEFT takes for a layer: that of the first name which ends its path, else the default."""
    return next((number for name, number in pattern.items() if re.match(rf"(.*\.)?({name})$", path)), default)


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
    raise InputError(
        f"--target-modules: no layer of the model is called {', '.join(missing)}.{nearest_names(missing, layers)}; "
        f"{ALL} takes all but the output head"
    )


def nearest_names(missing: Sequence[str], paths: Iterable[str]) -> str:
    """The names that come nearest to the missing ones, and all names at the end of `paths`, as sentences without a stop."""
    known = list(dict.fromkeys(name for path in paths if not (name := path.rpartition(".")[2]).isdecimal()))
    near = [difflib.get_close_matches(name.rpartition(".")[2], known, n=1, cutoff=0.5) for name in missing]
    nearest = ", ".join(dict.fromkeys(name for names in near for name in names))
    hint = f" Did you mean {nearest}?" if nearest else ""
    return f"{hint} Its layers are {', '.join(known)}"


def build_empty(folder: Path, head: Head | None = None) -> Any | None:
    """The model of a folder without weights, from config.json alone; None if transformers cannot build it."""
    from finetune.models.heads import build_skeleton  # here: `slmtune plan` imports this module

    try:
        return build_skeleton(folder, head)
    except (OSError, ValueError, ImportError):
        return None


def list_layers(model: Any) -> list[str]:
    """The paths of the layers of a model that can get LoRA matrices."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    return [name for name, module in model.named_modules() if isinstance(module, (nn.Linear, nn.Embedding, Conv1D))]
