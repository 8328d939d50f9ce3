"""The two kinds of engines: one writes text, the other labels it."""

from __future__ import annotations

from finetune.serve.engine.classifier import Classifier
from finetune.serve.engine.engine import Engine

AnyEngine = Engine | Classifier
