"""What takes long in every new process, done once in the server from which commands are forked."""

from __future__ import annotations

import io

from finetune.machine import importing_libraries

from .quicker import compare_less, probe_less

with importing_libraries():
    import transformers.models.llama.modeling_llama  # noqa: F401
    from matplotlib.figure import Figure
    from transformers.conversion_mapping import get_checkpoint_conversion_mapping

    import finetune.cli.commands
    import finetune.evaluate.run
    import finetune.merge.run
    import finetune.prepare.run
    import finetune.serve.run
    import finetune.train.fit
    import finetune.train.trainer  # noqa: F401
    from finetune.evaluate.forgetting import probe

    get_checkpoint_conversion_mapping("llama")  # compiles a thousand expressions
    Figure().savefig(io.BytesIO())  # looks for fonts

compare_less()
probe_less(probe)
