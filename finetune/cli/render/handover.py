"""Renders what vLLM needs as commands of a shell."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from finetune.serve import Handover

# Of lines `KEY` or `NAME KEY`, as `read_keys` takes them.
FIRST_KEY = "tr , '\\n' | awk '!/^ *#/ && NF {print $NF; exit}'"


def vllm_commands(handover: Handover, key_source: str | None) -> dict[str, Any]:
    """The commands of the exports that are missing, and that of vLLM, which takes the first key that `key_source` prints."""
    from finetune.serve.vllm_process import KEY_VARIABLE

    key = f'{KEY_VARIABLE}="$({key_source} | {FIRST_KEY})" ' if key_source is not None else ""
    return {
        "exports": [export.command for export in handover.exports],
        "vllm": key + shlex.join(handover.command),
    }
