"""The private names of other libraries that training uses, each with its reason."""

from __future__ import annotations

# Private names of other libraries. A release that drops one fails tests/train/test_private_names.py, which also refuses
# any that finetune/train uses without giving a reason here.
PRIVATE_NAMES = {
    "transformers.Trainer._clip_grad_norm": "called before the optimizer, where non-finite gradients are refused",
    "transformers.Trainer._evaluate": "an evaluation between steps, which a signal may stop",
    "transformers.Trainer._get_train_sampler": "which rows an epoch contains, if sources have shares",
    "transformers.Trainer._save_checkpoint": "called when a checkpoint is due; the original writes in place, without counters",
    "transformers.Trainer._save_optimizer_and_scheduler": "two files of a checkpoint",
    "transformers.Trainer._save_rng_state": "a file of a checkpoint",
    "transformers.Trainer._load_from_checkpoint": "the original ignores missing weights",
    "transformers.Trainer._tr_loss": "loss since the last logged step, which a resumed run must restore",
    "transformers.Trainer._total_loss_scalar": "loss before that, needed for the mean over a resumed run",
    "transformers.Trainer._globalstep_last_logged": "the step from which _tr_loss counts",
    "transformers.Trainer._initial_global_step": "set to 0 so that the mean loss covers the whole run",
    "transformers.PreTrainedModel._supports_attention_backend": "whether a model can use packed attention",
    "transformers.PreTrainedModel._is_stateful": "whether packed rows would see each other's state",
    "transformers.PreTrainedConfig._attn_implementation": "the attention of padded batches, to return to it",
    "transformers.TrainingArguments._n_gpu": "the number of GPUs, of which a run uses one",
    "peft.LoraConfig._register_custom_module": "replaces PEFT's layer with FusedLinear",
}
