"""Will it fit? Calculates the peak memory of a training run from config.json."""

from finetune.plan.device import Device, this_device
from finetune.plan.memory import RowSizes
from finetune.plan.run import Plan, divide_to_fit, plan, require_fit

__all__ = ["Device", "Plan", "RowSizes", "divide_to_fit", "plan", "require_fit", "this_device"]
