"""Tasks of lm-evaluation-harness: base and adapter answer them with its prompts, and its own scorers score the answers.

It is imported only when such a task is asked for, because that takes seconds. Its prompts, rows and metrics are its own: the
first rows of the task in its order, labels compared without the end of the turn, generated texts cut where the task says.
"""

from __future__ import annotations

import contextlib
import difflib
import itertools
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lm_eval import evaluator
from lm_eval.api.metrics import mean
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from pydantic import TypeAdapter

from finetune.artifacts import Adapter
from finetune.cards.scored_rows import Answer, ScoredRow
from finetune.errors import InputError, OfflineError, SlmtuneError, UnknownNameError
from finetune.evaluate.contestants.contestant import ADAPTER, BASE
from finetune.evaluate.details import ModelDetails
from finetune.evaluate.request import HARNESS, EvalRequest, TaskScore
from finetune.evaluate.score import count_differences, hash_rows
from finetune.evaluate.significance import compare, interval, means_scorer, resample
from finetune.evaluate.store import AnswerStore
from finetune.hub.settings import is_offline
from finetune.models.load import LoadedModel, load_adapter

SEED = 1234  # of the examples in a prompt, as the harness's own command sets it
# The harness logs at every step, and some of its warnings repeat a row.
logging.getLogger("lm_eval").setLevel(logging.ERROR)


@dataclass(frozen=True)
class HarnessAnswers:
    """What one model answered to a task; each list is over the rows, and `values` are the scores by metric."""

    ids: list[str]
    prompts: list[str]
    targets: list[str]
    texts: list[str]
    values: dict[str, list[float]]


ANSWERS = TypeAdapter(HarnessAnswers)


@dataclass(frozen=True)
class HarnessScore:
    """The figures of a task and its rows."""

    score: TaskScore
    rows: list[ScoredRow]


def open_tasks(specs: Sequence[str]) -> dict[str, Any]:
    """The harness's tasks of these names or YAML files, with their rows; no model is needed.

    Raises:
        UnknownNameError: neither a task, nor a group or tag of tasks, nor a file.
        OfflineError: the rows are not on this machine, and the Hub may not be used or cannot be reached.
        InputError: a task cannot be loaded, runs code that a model wrote, or has no score that is a mean over its rows.
    """
    files = [spec for spec in specs if Path(spec).expanduser().is_file()]
    manager = TaskManager(include_defaults=len(files) < len(specs))
    tasks: dict[str, Any] = {}
    for spec in specs:
        if spec not in files and spec not in manager.all_tasks:
            near = difflib.get_close_matches(spec, manager.all_tasks)
            hint = "Give the name of a task of lm-evaluation-harness, or a YAML file that defines one."
            raise UnknownNameError("task of lm-evaluation-harness", spec, near, hint)
        with _explained(spec):
            tasks |= manager.load(spec)["tasks"]
    for name, task in tasks.items():
        if getattr(task, "UNSAFE_CODE", False):
            raise InputError(
                f"The task {name} of lm-evaluation-harness runs code that a model wrote. Choose another task"
            )
        if not _mean_metrics(task):
            raise InputError(
                f"The task {name} of lm-evaluation-harness has no score that is a mean over rows and better when higher, so "
                "base and adapter cannot be compared row by row. Choose another task"
            )
        if task.get_config("num_fewshot") is None:
            task.set_config("num_fewshot", 0)
        task.set_fewshot_seed(SEED)
    return tasks


def score_tasks(
    tasks: Mapping[str, Any],
    request: EvalRequest,
    adapter: Adapter,
    store: AnswerStore,
    on_stage: Callable[[str], None] | None = None,
) -> dict[str, HarnessScore]:
    """Base and adapter on the tasks, by the name of the task in the report; answers in the store are taken over.

    Raises:
        InputError: the harness cannot ask or score a task.
    """
    loaded: LoadedModel | None = None
    answers: dict[str, dict[str, HarnessAnswers]] = {name: {} for name in tasks}
    for who, (name, task) in itertools.product((BASE, ADAPTER), tasks.items()):
        with _explained(name):
            place = store.place(_facts(task, name, who, request))
            given = store.load(place, ANSWERS, who, HARNESS + name)
            if given is None:
                if on_stage:
                    on_stage(f"Asking {who} the task {name} of lm-evaluation-harness")
                loaded = loaded or load_adapter(adapter, request.model)
                with loaded.model.disable_adapter() if who == BASE else contextlib.nullcontext():
                    given = ask(loaded, name, task, request)
                store.save(place, ANSWERS, given)
        answers[name][who] = given
    return {
        HARNESS + name: _score(task, answers[name], with_template=request.lm_eval_chat_template)
        for name, task in tasks.items()
    }


def _facts(task: Any, name: str, who: str, request: EvalRequest) -> dict[str, object]:
    """What decides the answers: the task's configuration and rows, and how many of them are asked, and how."""
    rows = list(itertools.islice(task.eval_docs, request.limit))
    return {
        "harness": version("lm_eval"),
        "task": HARNESS + name,
        "config": json.dumps(task.dump_config(), sort_keys=True, default=str),
        "rows": json.dumps(rows, sort_keys=True, default=str),
        "template": request.lm_eval_chat_template,
        "name": who,
    }


def ask(loaded: LoadedModel, name: str, task: Any, request: EvalRequest) -> HarnessAnswers:
    """The answers of a loaded model, as it is, greedy unless the task says otherwise."""
    with warnings.catch_warnings(action="ignore"):
        model = HFLM(pretrained=loaded.model, tokenizer=loaded.tokenizer, batch_size=request.batch_size)
        results = evaluator.evaluate(
            model,
            {"tasks": {name: task}, "groups": {}, "group_map": {}},
            limit=request.limit,
            bootstrap_iters=0,
            apply_chat_template=request.lm_eval_chat_template,
            fewshot_as_multiturn=request.lm_eval_chat_template,
        )
    assert results is not None  # only on further machines of a distributed evaluation
    samples: list[dict[str, Any]] = results["samples"][name]  # one per row and filter
    values = _values(task, samples)
    rows = samples[: len(next(iter(values.values())))]
    return HarnessAnswers(
        ids=[str(row["doc_id"]) for row in rows],
        prompts=[str(row["arguments"][0][0]) for row in rows],
        targets=[_target(task, row) for row in rows],
        texts=[_answer(task, row) for row in rows],
        values=values,
    )


def _score(task: Any, sides: Mapping[str, HarnessAnswers], *, with_template: bool) -> HarnessScore:
    """The figures of a task; the first of its metrics, and of its filters, is the headline."""
    tuned = sides[ADAPTER]
    headline = next(iter(tuned.values))
    rows = [
        ScoredRow(
            *(tuned.ids[number], "", tuned.prompts[number], tuned.targets[number]),
            {who: Answer(each.texts[number], each.values[headline][number]) for who, each in sides.items()},
        )
        for number in range(len(tuned.ids))
    ]
    per_row = [each.values[headline] for each in sides.values()]
    scorer = means_scorer(per_row)
    resampled = resample(scorer, 2, len(rows))
    figures = compare(scorer, resampled, len(rows), 0, 1)
    is_binary = set(per_row[0] + per_row[1]) <= {0.0, 1.0}
    means = {who: {name: sum(one) / len(one) for name, one in each.values.items()} for who, each in sides.items()}
    template = "with" if with_template else "without"
    score = TaskScore(
        n=len(rows),
        metric=headline,
        majority=None,
        majority_label=None,
        base=means[BASE],
        adapter=means[ADAPTER],
        delta=figures.delta,
        ci95=figures.ci95,
        p_value=figures.p_value,
        comparisons={BASE: count_differences(figures, rows, BASE, is_binary=is_binary)},
        details={who: ModelDetails(interval(one)) for who, one in zip(sides, resampled, strict=True)},
        scorer=f"lm-evaluation-harness {version('lm_eval')}, version {task.VERSION} of the task, {template} the chat template",
        rows_hash=hash_rows(rows),
    )
    return HarnessScore(score, rows)


def _values(task: Any, samples: list[dict[str, Any]]) -> dict[str, list[float]]:
    """The score of each row by metric, and by filter if there are several: ways to find the answer in a generated text."""
    filters = list(dict.fromkeys(sample["filter"] for sample in samples))
    return {
        metric if len(filters) == 1 else f"{metric} ({name})": [
            float(sample[metric]) for sample in samples if sample["filter"] == name
        ]
        for name in filters
        for metric in _mean_metrics(task)
        if metric in samples[0]
    }


def _mean_metrics(task: Any) -> list[str]:
    """The metrics of a task that are a mean over rows, and better when higher."""
    better = task.higher_is_better()
    return [name for name, how in task.aggregation().items() if how is mean and better.get(name, True)]


def _answer(task: Any, sample: Mapping[str, Any]) -> str:
    """What a model answered: the likeliest choice, or the text that the filter took from the generated one."""
    responses = sample["filtered_resps"]
    if task.OUTPUT_TYPE != "multiple_choice":
        return str(responses[0])
    choices = task.doc_to_choice(sample["doc"])
    return str(choices[max(range(len(choices)), key=lambda number: float(responses[number][0]))])


def _target(task: Any, sample: Mapping[str, Any]) -> str:
    target = sample["target"]
    if task.OUTPUT_TYPE == "multiple_choice" and isinstance(target, int):
        return str(task.doc_to_choice(sample["doc"])[target])
    return str(target)


@contextlib.contextmanager
def _explained(what: str) -> Iterator[None]:
    """Report what the harness, or the library that reads its rows, cannot do, without the text of a row."""
    try:
        yield
    except SlmtuneError:
        raise
    except ConnectionError:
        reason = "and --offline forbids the network" if is_offline() else "and the Hub cannot be reached"
        raise OfflineError(
            f"The rows of the task {what} of lm-evaluation-harness are not on this machine, {reason}. Run it once with a "
            "connection, or give a YAML file that names local files"
        ) from None
    except (KeyError, ValueError, TypeError, AssertionError, OSError, ImportError, LookupError) as error:
        raise InputError(
            f"lm-evaluation-harness cannot run the task {what} ({type(error).__name__}). Check its file, or try it with the "
            "command lm_eval, which says more; --debug shows the cause"
        ) from error
