"""The bundled domains: their recipes load, their prompts render, and their samples are as the READMEs describe them."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from itertools import combinations
from pathlib import Path

import pytest
from pydantic import ValidationError

from finetune.artifacts import Corpus
from finetune.corpus.store import read_split
from finetune.errors import ConfigError, InputError, UnknownNameError
from finetune.prepare import PrepareRequest, prepare
from finetune.prepare.licenses import LEVELS, is_noncommercial, strictest
from finetune.prepare.rows.prompts import Prompt, load_prompt
from finetune.prepare.sources.remote import URI
from finetune.recipe import (
    AdapterRecipe,
    Domain,
    SourceRecipe,
    TaskRecipe,
    domain_names,
    load_adapter_recipe,
    load_domain,
    recipes_folder,
)
from finetune.records import SPLITS, Example
from finetune.scoring.tasks import tasks_of

DOMAINS = domain_names()
WORDS = re.compile(r"\w+")
SHARED = 0.6  # of the five-word sequences of the shorter text


@pytest.fixture(scope="module", params=DOMAINS)
def domain(request: pytest.FixtureRequest) -> Domain:
    return load_domain(request.param)


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, list[Example]]]:
    """Domain -> split -> rows, through prepare."""
    folder = tmp_path_factory.mktemp("samples")
    rows: dict[str, dict[str, list[Example]]] = {}
    for name in DOMAINS:
        prepare(PrepareRequest(folder / name, domain=name, sample=True))
        corpus = Corpus.open(folder / name)
        rows[name] = {split: read_split(corpus, split) for split in SPLITS}
    return rows


def test_the_bundled_domains_are_found() -> None:
    assert set(DOMAINS) == {"customer-service", "finance", "health"}


def test_health_and_finance_have_at_least_five_data_sets_on_the_hub() -> None:
    for name in ("finance", "health"):
        recipe = load_domain(name).recipe
        sets = {source.uri.split(":")[1].split("@")[0] for source in recipe.sources if source.is_remote}
        assert len(sets) >= 5, name


def test_default_sources_are_free_for_any_use() -> None:
    """In the core tasks: a licence against commercial use needs consent, and an unknown one needs --include."""
    read = {name: [source.id for source in default_sources(load_domain(name))] for name in DOMAINS}
    assert read == {
        "customer-service": ["intents", "questions"],
        "finance": ["tfns"],
        "health": ["pubmedqa", "medquad"],
    }
    for name in DOMAINS:
        licenses = [source.license for source in default_sources(load_domain(name))]
        assert strictest(licenses) in ("mit", "apache-2.0", "cc-by-4.0")


def default_sources(domain: Domain) -> list[SourceRecipe]:
    tasks = {name for name, task in domain.recipe.tasks.items() if task.default}
    sources = [source for source in domain.recipe.sources if source.default and source.task in tasks]
    return [source for source in sources if not source.noncommercial]


def test_sources_have_unique_names(domain: Domain) -> None:
    for sources in (domain.recipe.sources, domain.recipe.sample):
        assert len({source.id for source in sources}) == len({source.uri for source in sources}) == len(sources)
    assert {source.task for source in domain.recipe.sources} >= {
        name for name, task in domain.recipe.tasks.items() if not task.default
    }


def test_addresses_on_the_hub_are_well_formed(domain: Domain) -> None:
    for source in domain.recipe.sources:
        assert not source.is_remote or URI.fullmatch(source.uri), source.id


def test_every_prompt_renders(domain: Domain) -> None:
    for task, recipe in domain.recipe.tasks.items():
        prompt = load_prompt(domain, task)
        columns = {name: f"<{name}>" for name in prompt.columns}
        rendered = prompt.render(columns, recipe.choices)
        assert all(value in rendered for value in columns.values())
        assert rendered == rendered.strip()


def test_a_classification_states_its_choices_to_the_model(domain: Domain) -> None:
    for task, recipe in domain.recipe.tasks.items():
        prompt = load_prompt(domain, task)
        rendered = prompt.render(dict.fromkeys(prompt.columns, "x"), recipe.choices)
        turns = f"{recipe.system or ''} {rendered}"
        assert all(choice in turns for choice in recipe.choices), task


def test_files_named_by_the_recipe_exist(domain: Domain) -> None:
    for source in (*domain.recipe.sources, *domain.recipe.sample):
        if not source.is_remote:
            assert list(domain.folder.glob(source.uri)), source.id
        if source.test_ids:
            ids = (domain.folder / source.test_ids).read_text("utf-8").split()
            assert len(ids) == len(set(ids)) == 500


def test_every_source_states_a_licence_and_noncommercial_ones_say_so(domain: Domain) -> None:
    known = {license for names in LEVELS.values() for license in names}
    for source in (*domain.recipe.sources, *domain.recipe.sample):
        assert source.license in known or (source.license == "unknown" and not source.default)
        assert source.noncommercial == is_noncommercial(source.license)
    assert {source.license for source in domain.recipe.sample} == {"apache-2.0"}


def test_labels_of_the_sources_are_choices(domain: Domain) -> None:
    for source in domain.recipe.sources:
        choices = domain.recipe.tasks[source.task].choices
        assert set(source.labels.values()) <= set(choices)


def test_prompts_and_templates_have_all_their_columns(domain: Domain) -> None:
    """Every mapped name is used: by the prompt, by the template of the answer, or by slmtune itself."""
    for source in domain.recipe.sources:
        read = {"id", "group", "label", "answer"} | load_prompt(domain, source.task).columns
        if source.answer_template:
            read |= Prompt(source.id, source.answer_template).columns
        assert set(source.map) <= read, source.id


def test_a_system_turn_names_the_choices_where_it_says_so() -> None:
    task = TaskRecipe.model_validate(
        {"task": "classification", "prompt": "p", "system": "One of {choices}?", "choices": ["a", "b c"]}
    )
    assert task.system == "One of a, b c?"
    for name in DOMAINS:
        assert not any("{choices}" in (task.system or "") for task in load_domain(name).recipe.tasks.values())


def test_a_domain_has_no_task_of_preferences() -> None:
    with pytest.raises(ValidationError, match="'classification', 'qa'"):
        TaskRecipe.model_validate({"task": "preference", "prompt": "ask.jinja"})


def test_metrics_are_for_generated_answers() -> None:
    fields = {"prompt": "p", "metrics": ["number_match", "token_f1"]}
    assert TaskRecipe.model_validate({"task": "qa", **fields}).metrics == ("number_match", "token_f1")
    with pytest.raises(ValidationError, match="metrics are for generated answers"):
        TaskRecipe.model_validate({"task": "classification", "choices": ["a", "b"], **fields})
    with pytest.raises(ValidationError, match="number_match"):
        TaskRecipe.model_validate({"task": "qa", "prompt": "p", "metrics": ["bleurt"]})


def test_a_list_of_labels_counts_from_zero() -> None:
    fields = {"id": "x", "uri": "x.csv", "license": "mit", "task": "t"}
    assert SourceRecipe.model_validate(fields | {"labels": ["low", "high"]}).labels == {"0": "low", "1": "high"}
    assert SourceRecipe.model_validate(fields | {"labels": {"5": "low"}}).labels == {"5": "low"}


def test_adapter_settings_load_and_differ_from_the_defaults(domain: Domain) -> None:
    import yaml

    file = recipes_folder() / "adapters" / f"{domain.name}.yaml"
    settings = (yaml.safe_load(file.read_text("utf-8")) if file.is_file() else None) or {}
    loaded, default = load_adapter_recipe(domain.name), AdapterRecipe()
    assert {key: getattr(loaded, key) for key in settings} == settings
    assert all(getattr(default, key) != value for key, value in settings.items())


def test_every_file_of_settings_belongs_to_a_domain() -> None:
    assert {path.stem for path in (recipes_folder() / "adapters").glob("*.yaml")} <= set(DOMAINS)


# --- samples ----------------------------------------------------------------------------------------------------------


def test_the_finance_sample_has_the_documented_size(samples: dict[str, dict[str, list[Example]]]) -> None:
    finance = samples["finance"]
    assert count(finance, "classification") == {"train": 450, "validation": 60, "test": 180}
    assert count(finance, "qa") == {"train": 90, "validation": 10, "test": 20}


def test_the_health_sample_has_the_documented_size(samples: dict[str, dict[str, list[Example]]]) -> None:
    health = samples["health"]
    assert count(health, "classification") == {"train": 120, "validation": 24, "test": 72}
    assert count(health, "qa") == {"train": 170, "validation": 20, "test": 30}


def test_the_customer_service_sample_has_the_documented_size(samples: dict[str, dict[str, list[Example]]]) -> None:
    service = samples["customer-service"]
    assert count(service, "classification") == {"train": 336, "validation": 48, "test": 96}
    assert count(service, "qa") == {"train": 60, "validation": 7, "test": 14}
    assert len({row.label for row in service["train"] if row.label}) == 24


def count(splits: dict[str, list[Example]], task: str) -> dict[str, int]:
    return {split: sum(row.task == task for row in rows) for split, rows in splits.items()}


@pytest.mark.parametrize("name", DOMAINS)
def test_labels_are_balanced_in_every_split_and_interleaved(
    name: str, samples: dict[str, dict[str, list[Example]]]
) -> None:
    """In every sequence of as many rows as there are choices, each choice occurs once."""
    for rows in samples[name].values():
        labels = [row.label for row in rows if row.task == "classification"]
        (choices,) = {row.choices for row in rows if row.task == "classification"}
        number = len(choices)
        assert len(labels) % number == 0
        assert all(set(labels[at : at + number]) == set(choices) for at in range(0, len(labels), number))


@pytest.mark.parametrize("name", DOMAINS)
def test_no_text_is_in_two_splits_or_twice(name: str, samples: dict[str, dict[str, list[Example]]]) -> None:
    questions = Counter(" ".join(WORDS.findall(row.prompt[-1].content.lower())) for row in everything(samples[name]))
    assert max(questions.values()) == 1


@pytest.mark.parametrize("name", DOMAINS)
def test_no_two_samples_share_most_of_their_word_sequences(name: str) -> None:
    """Compares all pairs of rows: near-duplicates would make test scores meaningless."""
    texts = [" ".join(str(value) for key, value in row.items() if key != "label") for row in raw_rows(name)]
    sequences = [five_words(text) for text in texts]
    where: defaultdict[tuple[str, ...], list[int]] = defaultdict(list)
    for number, row in enumerate(sequences):
        for sequence in row:
            where[sequence].append(number)
    common = Counter(pair for numbers in where.values() for pair in combinations(numbers, 2))
    too_like = [pair for pair, n in common.items() if n > SHARED * min(len(sequences[i]) for i in pair)]
    assert not too_like
    assert len(texts) > 400


def five_words(text: str) -> set[tuple[str, ...]]:
    words = WORDS.findall(text.lower())
    return {tuple(words[at : at + 5]) for at in range(len(words) - 4)}


def raw_rows(name: str) -> list[dict[str, str]]:
    files = sorted((load_domain(name).folder / "sample").glob("*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text("utf-8").splitlines()]


def everything(splits: dict[str, list[Example]]) -> list[Example]:
    return [row for rows in splits.values() for row in rows]


@pytest.mark.parametrize("name", DOMAINS)
def test_no_row_of_a_sample_is_dropped_or_scrubbed(name: str, tmp_path: Path) -> None:
    result = prepare(PrepareRequest(tmp_path / "out", domain=name, sample=True))
    assert result.dropped == {}
    assert result.scrubbed == {}
    assert sum(result.splits.values()) == len(raw_rows(name))


# --- a new domain -----------------------------------------------------------------------------------------------------

RECIPE = """
name: legal
title: Legal
description: The kind of clause.
caution: Not legal advice.
tasks:
  clauses:
    task: classification
    system: Is this clause a duty or a right?
    prompt: prompts/clauses.jinja
    choices: [duty, right]
sources:
  - id: full
    uri: data/*.csv
    license: cc-by-4.0
    task: clauses
    map: {clause: wording}
    labels: {"0": duty, "1": right}
sample:
  - {id: sample, uri: "sample/*.jsonl", license: apache-2.0, task: clauses}
"""


@pytest.fixture
def legal(tmp_path: Path) -> Path:
    """A domain written as datasets/README.md describes."""
    folder = tmp_path / "legal"
    for name in ("prompts", "data", "sample"):
        (folder / name).mkdir(parents=True)
    (folder / "recipe.yaml").write_text(RECIPE, "utf-8")
    (folder / "prompts" / "clauses.jinja").write_text("Clause: {{ clause }}\n", "utf-8")
    (folder / "data" / "train.csv").write_text("wording,label\nPay rent.,0\nUse the garden.,1\n", "utf-8")
    (folder / "sample" / "rows.jsonl").write_text('{"clause": "Sweep the stairs.", "label": "duty"}\n', "utf-8")
    return folder


def test_a_domain_is_a_folder(legal: Path, tmp_path: Path) -> None:
    result = prepare(PrepareRequest(tmp_path / "out", domain=str(legal)))
    rows = read_split(Corpus.open(result.corpus), "train")
    assert [(row.prompt[-1].content, row.answer) for row in rows] == [
        ("Clause: Pay rent.", "duty"),
        ("Clause: Use the garden.", "right"),
    ]
    manifest = Corpus.open(result.corpus).manifest
    assert manifest["domain"] == "legal"
    assert "Not legal advice." in (result.corpus / "README.md").read_text("utf-8")
    assert prepare(PrepareRequest(tmp_path / "small", domain=str(legal), sample=True)).by_task == {"classification": 1}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{{ clause", "prompts/clauses.jinja:1"),
        ("{{ clause.__class__.__mro__ }}", "cannot be rendered"),
        ("{{ clause.missing }}", "cannot be rendered"),
    ],
)
def test_a_broken_or_unsafe_prompt_is_an_error_of_the_recipe(legal: Path, tmp_path: Path, text: str, says: str) -> None:
    (legal / "prompts" / "clauses.jinja").write_text(text, "utf-8")
    with pytest.raises(ConfigError, match=re.escape(says)):
        prepare(PrepareRequest(tmp_path / "out", domain=str(legal)))
    assert not (tmp_path / "out").exists()


def test_a_missing_prompt_is_named(legal: Path, tmp_path: Path) -> None:
    (legal / "prompts" / "clauses.jinja").unlink()
    with pytest.raises(ConfigError, match=r"the prompt prompts/clauses\.jinja cannot be read"):
        prepare(PrepareRequest(tmp_path / "out", domain=str(legal)))


def test_an_unknown_label_of_a_source_is_refused_with_the_choices(legal: Path, tmp_path: Path) -> None:
    (legal / "data" / "train.csv").write_text("wording,label\nPay rent.,0\nUse the garden.,2\n", "utf-8")
    with pytest.raises(Exception, match=r"train\.csv:3: the label is not one of duty, right"):
        prepare(PrepareRequest(tmp_path / "out", domain=str(legal)))


def test_a_template_can_build_an_answer(legal: Path, tmp_path: Path) -> None:
    template = """{{ 'duty' if weight | float < 0 else 'right' if weight | float <= 1 else '' }}"""
    text = RECIPE.replace("map: {clause: wording}", f'map: {{clause: wording}}\n    answer_template: "{template}"')
    (legal / "recipe.yaml").write_text(text, "utf-8")
    rows = "wording,weight\nPay rent.,-0.5\nUse the garden.,1\nLeave the key.,2\n"
    (legal / "data" / "train.csv").write_text(rows, "utf-8")
    result = prepare(PrepareRequest(tmp_path / "out", domain=str(legal), on_error="skip"))
    assert [row.label for row in read_split(Corpus.open(result.corpus), "train")] == ["duty", "right"]
    assert sum(result.dropped.values()) == 1
    with pytest.raises(InputError, match=r"train\.csv:4: "):
        prepare(PrepareRequest(tmp_path / "again", domain=str(legal)))


def test_only_noncommercial_sources_need_consent(legal: Path, tmp_path: Path) -> None:
    text = RECIPE.replace("license: cc-by-4.0", "license: cc-by-nc-4.0\n    noncommercial: true")
    (legal / "recipe.yaml").write_text(text, "utf-8")
    with pytest.raises(Exception, match="--accept-noncommercial"):
        prepare(PrepareRequest(tmp_path / "out", domain=str(legal)))
    request = PrepareRequest(tmp_path / "out", domain=str(legal), accept_noncommercial=True)
    assert sum(prepare(request).splits.values()) == 2


def test_a_corpus_remembers_how_its_answers_are_scored(legal: Path, tmp_path: Path) -> None:
    text = RECIPE.replace("task: classification", "task: qa").replace(
        "choices: [duty, right]", "metrics: [exact_match, token_f1]"
    )
    text = text.replace('    labels: {"0": duty, "1": right}\n', "").replace(
        "map: {clause: wording}", "map: {clause: wording, answer: label}"
    )
    (legal / "recipe.yaml").write_text(text, "utf-8")
    corpus = Corpus.open(prepare(PrepareRequest(tmp_path / "out", domain=str(legal))).corpus)
    (task,) = tasks_of(corpus, "train")
    assert (task.metric, task.further) == ("exact_match", ("token_f1",))


def test_a_missing_domain_suggests_one() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'health'"):
        load_domain("helth")


@pytest.mark.parametrize(
    ("file", "flags", "expected"),
    [
        ("", {}, "nf4"),
        ("load_in_4bit: false", {}, "none"),
        ("load_in_4bit: true", {}, "nf4"),
        ("quantization: int8", {"load_in_4bit": False}, "none"),
        ("load_in_4bit: false", {"quantization": "fp4"}, "fp4"),
        ("quantization: fp4\nload_in_4bit: true", {}, "fp4"),
    ],
)
def test_both_names_of_the_quantisation_are_one_setting(
    file: str, flags: dict[str, object], expected: str, tmp_path: Path
) -> None:
    config = tmp_path / "mine.yaml"
    config.write_text(file, "utf-8")
    assert load_adapter_recipe(None, config, flags).quantization == expected


def test_contradicting_names_of_the_quantisation_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"load_in_4bit: true contradicts quantization: int8\. Set only one"):
        load_adapter_recipe(None, None, {"quantization": "int8", "load_in_4bit": True})


def test_patterns_are_mappings_in_yaml_and_pairs_in_flags(tmp_path: Path) -> None:
    config = tmp_path / "mine.yaml"
    config.write_text("rank_pattern: {q_proj: 8}\nmodules_to_save: [embed_tokens]", "utf-8")
    recipe = load_adapter_recipe(None, config, {"alpha_pattern": ("q_proj=16", "k_proj=4")})
    assert (recipe.rank_pattern, recipe.alpha_pattern) == ({"q_proj": 8}, {"q_proj": 16, "k_proj": 4})
    assert recipe.modules_to_save == ("embed_tokens",)
    assert load_adapter_recipe(None, None, {"modules_to_save": "a, b"}).modules_to_save == ("a", "b")
    for wrong in ("q_proj", "=4", "q_proj=", "q_proj=0"):
        with pytest.raises(ConfigError, match="rank_pattern"):
            load_adapter_recipe(None, None, {"rank_pattern": (wrong,)})
