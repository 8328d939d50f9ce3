"""The data sets of the recipes in small: the files, columns, types and codes that they have on the Hub, invented rows.

Each shape says what the corpus must make of every row, by hand and not by the recipe.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from finetune.recipe import recipes_folder

Rows = list[dict[str, Any]]
OPEN = ("train", "validation")  # where the rows of a divided split may be, if the test split is named
ANY = ("train", "validation", "test")
CONVERTED = "refs/convert/parquet"


@dataclass(frozen=True)
class Wanted:
    """A row of the corpus: the splits it may be in, its question, its answer."""

    splits: Sequence[str]
    question: str
    answer: str


@dataclass(frozen=True)
class HubShape:
    """A data set: its files in the form of the Hub, the metadata of its card, and what becomes of its rows."""

    domain: str
    source: str
    files: Mapping[str, Rows]
    wanted: Sequence[Wanted]
    card: str = ""
    names: Mapping[str, Sequence[str]] = field(default_factory=dict)  # class labels, as `datasets` stores them
    dropped: Mapping[str, int] = field(default_factory=dict)
    ref: str | None = None

    def write(self, folder: Path) -> None:
        """Write the files as the Hub has them."""
        folder.mkdir(parents=True)
        if self.ref is None:
            (folder / "README.md").write_text(f"---\n{self.card}\n---\n# A data set\n", "utf-8")
        for name, rows in self.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            WRITERS[path.suffix](path, rows, self.names)


def _write_lines(path: Path, rows: Rows, names: object) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def _write_csv(path: Path, rows: Rows, names: object) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _write_parquet(path: Path, rows: Rows, names: Mapping[str, Sequence[str]]) -> None:
    table = pa.Table.from_pylist(rows)
    features = {name: {"names": list(known), "_type": "ClassLabel"} for name, known in names.items()}
    if features:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    parquet.write_table(table, path)


WRITERS = {".jsonl": _write_lines, ".json": _write_lines, ".csv": _write_csv, ".parquet": _write_parquet}


def card(*files: str, config: str = "default") -> str:
    """The `configs` of a card: `split=pattern` each."""
    listed = "".join(f"  - split: {file.split('=')[0]}\n    path: {file.split('=')[1]}\n" for file in files)
    return f"configs:\n- config_name: {config}\n  data_files:\n{listed}"


PARQUET_SPLITS = card("train=data/train-*", "test=data/test-*")

# --- health -----------------------------------------------------------------------------------------------------------


def _pubmedqa() -> HubShape:
    official = (recipes_folder() / "datasets" / "health" / "pubmedqa-test-pmids.txt").read_text("utf-8").split()
    answers = {int(number): ("yes", "no", "maybe")[place % 3] for place, number in enumerate([*official, "7", "8"])}
    rows = [
        {
            "pubid": number,
            "question": f"Does treatment {number} help?",
            "context": {
                "contexts": [f"Group {number} was seen twice.", "The other was not."],
                "labels": ["METHODS", "RESULTS"],
                "meshes": ["Humans"],
                "reasoning_required_pred": list("yes"),
                "reasoning_free_pred": list("no"),
            },
            "long_answer": "It may.",
            "final_decision": answer,
        }
        for number, answer in answers.items()
    ]
    wanted = [
        Wanted(
            ("test",) if str(number) in official else OPEN,
            f"Group {number} was seen twice.\nThe other was not.\n\nDoes treatment {number} help?",
            answer,
        )
        for number, answer in answers.items()
    ]
    files = {"pqa_labeled/train-00000-of-00001.parquet": rows}
    return HubShape("health", "pubmedqa", files, wanted, card("train=pqa_labeled/train-*", config="pqa_labeled"))


def _medquad_row(number: int, page: int, question: str, answer: str | None) -> dict[str, Any]:
    return {
        "document_id": f"{page:07}",
        "document_source": "GHR",
        "document_url": f"pages/{page}",
        "category": None,
        "umls_cui": "C0000001",
        "question_id": f"{page:07}-{number}",
        "question_focus": "cold feet",
        "question_type": "information",
        "question": question,
        "answer": answer,
    }


MEDQUAD = HubShape(
    "health",
    "medquad",
    {
        "data/train-00000-of-00001.parquet": [
            _medquad_row(1, 1, "What are cold feet ?", "Feet that feel cool to the touch."),
            _medquad_row(2, 1, "What causes cold feet ?", "Narrow vessels, or a cold floor."),
            _medquad_row(1, 2, "What are the treatments for hiccups ?", None),
        ]
    },
    [
        Wanted(ANY, "What are cold feet ?", "Feet that feel cool to the touch."),
        Wanted(ANY, "What causes cold feet ?", "Narrow vessels, or a cold floor."),
    ],
    card("train=data/train-*"),
    dropped={"no_answer": 1},
)


def _medmcqa_row(number: int, question: str, cop: int) -> dict[str, Any]:
    return {
        "id": f"0000-{number}",
        "question": question,
        "opa": "Heart",
        "opb": "Liver",
        "opc": "Spleen",
        "opd": "Lung",
        "cop": cop,
        "choice_type": "single",
        "exp": "See the textbook.",
        "subject_name": "Anatomy",
        "topic_name": None,
    }


ORGANS = "\n\nA. Heart\nB. Liver\nC. Spleen\nD. Lung"
MEDMCQA = HubShape(
    "health",
    "medmcqa",
    {
        "data/train-00000-of-00001.parquet": [
            _medmcqa_row(1, "Which organ pumps blood?", 0),
            _medmcqa_row(2, "Which organ takes up oxygen?", 3),
        ],
        "data/validation-00000-of-00001.parquet": [_medmcqa_row(3, "Which organ makes bile?", 1)],
        "data/test-00000-of-00001.parquet": [_medmcqa_row(4, "Which organ is hidden?", -1)],
    },
    [
        Wanted(OPEN, f"Which organ pumps blood?{ORGANS}", "A"),
        Wanted(OPEN, f"Which organ takes up oxygen?{ORGANS}", "D"),
        Wanted(("test",), f"Which organ makes bile?{ORGANS}", "B"),
    ],
    "license:\n- apache-2.0\n" + card("train=data/train-*", "test=data/test-*", "validation=data/validation-*"),
    {"cop": ["a", "b", "c", "d"]},
)


def _medqa_row(split: str, number: int, question: str, label: int) -> dict[str, Any]:
    endings = {f"ending{n}": ending for n, ending in enumerate(("Rest", "Fluids", "Surgery", "Vitamin C"))}
    return {"id": f"{split}-{number:05}", "sent1": question, "sent2": "", **endings, "label": label}


STEPS = "\n\nA. Rest\nB. Fluids\nC. Surgery\nD. Vitamin C"
MEDQA = HubShape(
    "health",
    "medqa",
    {
        "train.json": [_medqa_row("train", 0, "A hiker of 30 is thirsty and dizzy. What is the next step?", 1)],
        "dev.json": [_medqa_row("dev", 0, "A boy of 9 has a burst appendix. What is the next step?", 2)],
        "test.json": [_medqa_row("test", 0, "A clerk of 41 has sprained an ankle. What is the next step?", 0)],
    },
    [
        Wanted(("train",), f"A hiker of 30 is thirsty and dizzy. What is the next step?{STEPS}", "B"),
        Wanted(("validation",), f"A boy of 9 has a burst appendix. What is the next step?{STEPS}", "C"),
        Wanted(("test",), f"A clerk of 41 has sprained an ankle. What is the next step?{STEPS}", "A"),
    ],
    "license: cc-by-sa-4.0",
)

MMLU_SUBJECTS = (
    *("anatomy", "clinical_knowledge", "college_biology"),
    *("college_medicine", "medical_genetics", "professional_medicine"),
)
MMLU_SPLITS: Mapping[str, str] = {"dev": "train", "validation": "validation", "test": "test"}


def _mmlu_question(subject: str, split: str) -> str:
    return f"Which of these is asked in the {split} part of {subject.replace('_', ' ')}?"


MMLU_FILES: Mapping[str, Rows] = {
    f"{subject}/{split}-00000-of-00001.parquet": [
        {
            "question": _mmlu_question(subject, split),
            "subject": subject,
            "choices": ["Rest", "Fluids", "Surgery", "Vitamin C"],
            "answer": place,
        }
    ]
    for subject in MMLU_SUBJECTS
    for place, split in enumerate(MMLU_SPLITS, 1)
}
MMLU_CARD = "license:\n- mit\nconfigs:\n" + "".join(
    card(*(f"{split}={subject}/{split}-*" for split in MMLU_SPLITS), config=subject).removeprefix("configs:\n")
    for subject in MMLU_SUBJECTS
)
MMLU = tuple(
    HubShape(
        "health",
        f"mmlu-{subject.replace('_', '-')}",
        MMLU_FILES,
        [
            Wanted((becomes,), f"{_mmlu_question(subject, split)}{STEPS}", answer)
            for (split, becomes), answer in zip(MMLU_SPLITS.items(), "BCD", strict=True)
        ],
        MMLU_CARD,
        {"answer": ["A", "B", "C", "D"]},
    )
    for subject in MMLU_SUBJECTS
)

SYMPTOMS = HubShape(
    "health",
    "symptoms",
    {
        "train.jsonl": [
            {"output_text": "drug reaction", "input_text": "Since the new tablets I itch all over."},
            {"output_text": "common cold", "input_text": "My nose runs and I sneeze the whole day."},
        ],
        "test.jsonl": [{"output_text": "migraine", "input_text": "Half of my head throbs and light hurts."}],
    },
    [
        Wanted(OPEN, "Since the new tablets I itch all over.", "drug reaction"),
        Wanted(OPEN, "My nose runs and I sneeze the whole day.", "common cold"),
        Wanted(("test",), "Half of my head throbs and light hurts.", "migraine"),
    ],
    "license: apache-2.0",
)

MEDICAL_ABSTRACTS = HubShape(
    "health",
    "medical-abstracts",
    {
        "data/train-00000-of-00001.parquet": [
            {"condition_label": 1, "medical_abstract": "A tumour of the knee in twelve goats."},
            {"condition_label": 5, "medical_abstract": "Fatigue after long voyages by sea."},
        ],
        "data/test-00000-of-00001.parquet": [
            {"condition_label": 3, "medical_abstract": "Tremor in watchmakers: a survey of one town."}
        ],
        "labels/train-00000-of-00001.parquet": [{"condition_label": 1, "condition_name": "neoplasms"}],
    },
    [
        Wanted(OPEN, "A tumour of the knee in twelve goats.", "neoplasms"),
        Wanted(OPEN, "Fatigue after long voyages by sea.", "general pathological conditions"),
        Wanted(("test",), "Tremor in watchmakers: a survey of one town.", "nervous system diseases"),
    ],
    PARQUET_SPLITS + "- config_name: labels\n  data_files:\n  - split: train\n    path: labels/train-*\n",
)


def _mts_row(number: int, dialogue: str, note: str) -> dict[str, Any]:
    return {"ID": number, "section_header": "GENHX", "section_text": note, "dialogue": dialogue}


MTS_DIALOG = HubShape(
    "health",
    "mts-dialog",
    {
        "MTS-Dialog-TrainingSet (SDHP).csv": [
            _mts_row(
                0, "Doctor: What brings you here?\nPatient: My knee, since Sunday.", "Symptoms: knee pain\nPlan: N/A"
            ),
            _mts_row(1, "Doctor: Any allergies?\nPatient: Only to nuts.", "Symptoms: N/A\nHistory: allergic to nuts"),
        ],
        "MTS-Dialog-Validation Set (SDHP).csv": [
            _mts_row(0, "Doctor: Do you smoke?\nPatient: I gave up in spring.", "History: former smoker")
        ],
    },
    [
        Wanted(ANY, "Doctor: What brings you here?\nPatient: My knee, since Sunday.", "Symptoms: knee pain\nPlan: N/A"),
        Wanted(ANY, "Doctor: Any allergies?\nPatient: Only to nuts.", "Symptoms: N/A\nHistory: allergic to nuts"),
        Wanted(ANY, "Doctor: Do you smoke?\nPatient: I gave up in spring.", "History: former smoker"),
    ],
    "license: mit",
)

# --- finance ----------------------------------------------------------------------------------------------------------

TFNS = HubShape(
    "finance",
    "tfns",
    {
        "sent_train.csv": [
            {"text": "$ACME sinks after a weak quarter", "label": 0},
            {"text": "$BOLT jumps on a record order", "label": 1},
        ],
        "sent_valid.csv": [{"text": "Cargo rates unchanged on the week", "label": 2}],
    },
    [
        Wanted(OPEN, "$ACME sinks after a weak quarter", "bearish"),
        Wanted(OPEN, "$BOLT jumps on a record order", "bullish"),
        Wanted(("test",), "Cargo rates unchanged on the week", "neutral"),
    ],
    "license: mit\n" + card("train=sent_train.csv", "validation=sent_valid.csv"),
)

PHRASEBANK = HubShape(
    "finance",
    "phrasebank",
    {
        "sentences_50agree/train/0000.parquet": [
            {"sentence": "Sales of the mill fell by a third .", "label": 0},
            {"sentence": "The mill lies in the north .", "label": 1},
            {"sentence": "The mill doubled its profit .", "label": 2},
        ],
        "sentences_allagree/train/0000.parquet": [{"sentence": "Nobody asked for this one .", "label": 1}],
    },
    [
        Wanted(ANY, "Sales of the mill fell by a third .", "bearish"),
        Wanted(ANY, "The mill lies in the north .", "neutral"),
        Wanted(ANY, "The mill doubled its profit .", "bullish"),
    ],
    names={"label": ["negative", "neutral", "positive"]},
    ref=CONVERTED,
)


def _fiqa_row(sentence: str, score: float) -> dict[str, Any]:
    return {"sentence": sentence, "sentiment_score": score, "format": "post"}


FIQA = HubShape(
    "finance",
    "fiqa",
    {
        "train.csv": [
            _fiqa_row("$ZED broke its long slide upwards, loading more", 0.467),
            _fiqa_row("Brewer's shares drift ahead of the meeting", -0.1),
            _fiqa_row("Retailer opens a shop as planned", 0.0999),
        ],
        "validation.csv": [_fiqa_row("Grocer warns on profit for a second time", -0.101)],
        "test.csv": [_fiqa_row("Insurer to return cash to holders", 0.1)],
    },
    [
        Wanted(("train",), "$ZED broke its long slide upwards, loading more", "bullish"),
        Wanted(("train",), "Brewer's shares drift ahead of the meeting", "neutral"),
        Wanted(("train",), "Retailer opens a shop as planned", "neutral"),
        Wanted(("validation",), "Grocer warns on profit for a second time", "bearish"),
        Wanted(("test",), "Insurer to return cash to holders", "bullish"),
    ],
)

TFN_TOPICS = HubShape(
    "finance",
    "tfn-topics",
    {
        "topic_train.csv": [
            {"text": "Broker lifts its target for $FOO to 31", "label": 0},
            {"text": "Bar maker's chief steps down after ten years", "label": 17},
        ],
        "topic_valid.csv": [{"text": "$QUX drops eleven percent before the bell", "label": 19}],
    },
    [
        Wanted(OPEN, "Broker lifts its target for $FOO to 31", "analyst update"),
        Wanted(OPEN, "Bar maker's chief steps down after ten years", "personnel change"),
        Wanted(("test",), "$QUX drops eleven percent before the bell", "stock movement"),
    ],
    "license: mit",
)

FOMC = HubShape(
    "finance",
    "fomc",
    {
        "train.csv": [
            {"sentence": "Members saw room for lower rates.", "year": 2010, "label": 0},
            {"sentence": "Members agreed to tighten soon.", "year": 2005, "label": 1},
        ],
        "test.csv": [{"sentence": "The staff presented two charts.", "year": 2016, "label": 2}],
    },
    [
        Wanted(OPEN, "Members saw room for lower rates.", "dovish"),
        Wanted(OPEN, "Members agreed to tighten soon.", "hawkish"),
        Wanted(("test",), "The staff presented two charts.", "neutral"),
    ],
    "license: cc-by-nc-4.0",
)


def _headline_row(number: int, query: str, answer: str) -> dict[str, Any]:
    gold = ["No", "Yes"].index(answer)
    row = {"id": f"headlines{number}", "query": query, "answer": answer, "choices": ["No", "Yes"]}
    return row | {"gold": gold, "label_type": "price_up"}


GOLD_HEADLINES = HubShape(
    "finance",
    "gold-headlines",
    {
        "data/train-00000-of-00001-b4185af3fde5de2a.parquet": [
            _headline_row(0, "Does the headline say that gold rose?\nText: gold climbs to 1,290\nAnswer:", "Yes")
        ],
        "data/valid-00000-of-00001-eaa51bb586dd9ed5.parquet": [
            _headline_row(1, "Does the headline say that gold rose?\nText: bullion slips at noon\nAnswer:", "No")
        ],
        "data/test-00000-of-00001-2a1cddfd1b6bd5cb.parquet": [
            _headline_row(2, "Is silver compared with gold?\nText: silver outshines its dearer sister\nAnswer:", "Yes")
        ],
    },
    [
        Wanted(("train",), "Does the headline say that gold rose?\nText: gold climbs to 1,290\nAnswer:", "Yes"),
        Wanted(("validation",), "Does the headline say that gold rose?\nText: bullion slips at noon\nAnswer:", "No"),
        Wanted(("test",), "Is silver compared with gold?\nText: silver outshines its dearer sister\nAnswer:", "Yes"),
    ],
)

FILINGS = HubShape(
    "finance",
    "filings",
    {
        "data/train-00000-of-00001.parquet": [
            {
                "question": "How many kilns did Acme run?",
                "answer": "Acme ran four kilns.",
                "context": "At year end we ran four kilns in two towns.",
                "ticker": "ACME",
                "filing": "2023_10K",
            }
        ],
        "data/0.1-00000-of-00001.parquet": [{"question": "Left over", "answer": "from an upload"}],
    },
    [
        Wanted(
            ANY,
            "At year end we ran four kilns in two towns.\n\nHow many kilns did Acme run?",
            "Acme ran four kilns.",
        )
    ],
    card("train=data/train-*"),
)

PAGE = "Context:\nThe fleet grew.\n\nTable:\n| | 2019 | 2018 |\n| ships | 12 | 10 |"


def _finqa_row(page: int, question: str, result: str) -> dict[str, Any]:
    return {
        "id": f"ACME/2019/page_{page}.pdf-1",
        "query": question,
        "context": f"{PAGE}\n\nPage {page}",
        "output": result,
        "exe_ans": result,
        "program": "subtract(12, 10), divide(#0, 10)",
        "pre_text": "The fleet grew.",
        "post_text": "",
        "table": "[]",
    }


FINQA = HubShape(
    "finance",
    "finqa",
    {
        "data/train-00000-of-00001.parquet": [_finqa_row(1, "how many ships were added?", "2.0")],
        "data/test-00000-of-00001.parquet": [
            _finqa_row(2, "by what share did the fleet grow?", "0.2"),
            _finqa_row(3, "did the fleet grow?", "yes"),
        ],
    },
    [
        Wanted(OPEN, f"{PAGE}\n\nPage 1\n\nhow many ships were added?", "2.0"),
        Wanted(("test",), f"{PAGE}\n\nPage 2\n\nby what share did the fleet grow?", "0.2"),
        Wanted(("test",), f"{PAGE}\n\nPage 3\n\ndid the fleet grow?", "yes"),
    ],
    PARQUET_SPLITS,
)

CONVERSATIONS = {
    "train": "Two ferries joined the fleet, which now serves five islands.",
    "valid": "The bakery closed both shops in the harbour during the winter.",
    "test": "Rents for warehouses rose, while two tenants left in spring.",
}
CONVFINQA = HubShape(
    "finance",
    "convfinqa",
    {
        f"data/{split}-00000-of-00001-ab12.parquet": [
            {"id": f"{split}0", "query": f"{page}\nQuestion: how many?", "answer": "2", "turn": 0}
        ]
        for split, page in CONVERSATIONS.items()
    },
    [
        Wanted((becomes,), f"{CONVERSATIONS[split]}\nQuestion: how many?", "2")
        for split, becomes in (("train", "train"), ("valid", "validation"), ("test", "test"))
    ],
    card("train=data/train-*", "valid=data/valid-*", "test=data/test-*"),
)

TATQA = HubShape(
    "finance",
    "tatqa",
    {
        "data/test-00000-of-00001-ab12.parquet": [
            {"id": "0", "query": f"{PAGE}\nQuestion: what grew?", "answer": "the fleet", "text": "what grew?"}
        ]
    },
    [Wanted(("test",), f"{PAGE}\nQuestion: what grew?", "the fleet")],
    card("test=data/test-*"),
)

# --- customer service -------------------------------------------------------------------------------------------------

BANKING77 = HubShape(
    "customer-service",
    "banking77",
    {
        "data/train-00000-of-00001.parquet": [
            {"text": "The plastic came, how do I switch it on?", "label": 0},
            {"text": "Has my payment come back again?", "label": 53},
        ],
        "data/test-00000-of-00001.parquet": [{"text": "The machine abroad gave me a bad rate", "label": 76}],
    },
    [
        Wanted(OPEN, "The plastic came, how do I switch it on?", "activate_my_card"),
        Wanted(OPEN, "Has my payment come back again?", "reverted_card_payment?"),
        Wanted(("test",), "The machine abroad gave me a bad rate", "wrong_exchange_rate_for_cash_withdrawal"),
    ],
    "license:\n- cc-by-4.0\n" + PARQUET_SPLITS,
)

BITEXT = HubShape(
    "customer-service",
    "bitext-banking",
    {
        "default/train/0000.parquet": [
            {
                "tags": "BCIP",
                "instruction": "i wanna know how to block a card",
                "category": "CARD",
                "intent": "block_card",
                "response": "Open {{Company Website URL}} and choose the card.\n\nThen tap on Block.",
            }
        ]
    },
    [
        Wanted(
            ANY,
            "i wanna know how to block a card",
            "Open {{Company Website URL}} and choose the card.\n\nThen tap on Block.",
        )
    ],
    ref=CONVERTED,
)

HUB_SHAPES = (
    *(_pubmedqa(), MEDQUAD, MEDMCQA, MEDQA, *MMLU, SYMPTOMS, MEDICAL_ABSTRACTS, MTS_DIALOG),
    *(TFNS, PHRASEBANK, FIQA, TFN_TOPICS, FOMC, GOLD_HEADLINES, FILINGS, FINQA, CONVFINQA, TATQA),
    *(BANKING77, BITEXT),
)
