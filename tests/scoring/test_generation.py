"""Generated answers are those of the model, independent of batches."""

from __future__ import annotations

from finetune.models.load import LoadedModel
from finetune.scoring.generation import generate, trim_answer

from .test_labels import examples


def test_generated_answers_do_not_depend_on_the_batch(loaded: LoadedModel) -> None:
    alone = [generate(loaded, [example], batch_size=1, max_new_tokens=8)[0] for example in examples()]
    assert generate(loaded, examples(), batch_size=3, max_new_tokens=8) == alone
    assert any(alone)


def test_code_keeps_the_indentation_of_its_first_line() -> None:
    assert trim_answer("\n    return a\n", "code") == "    return a"
    assert trim_answer("\n    yes \n", "qa") == "yes"
