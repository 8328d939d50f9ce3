"""What becomes of personal data: tags, stars, and surrogates that are consistent and belong to nobody."""

from __future__ import annotations

import pickle
import re
from collections import Counter
from datetime import date
from pathlib import Path

import pytest

from finetune.scrub import Scrubber, make_rules
from finetune.scrub.dates import shift_date
from finetune.scrub.recognisers import is_confirmed
from finetune.scrub.secret import own_secret
from finetune.scrub.surrogates import SMALL_ZIP_AREAS, surrogate

from .conftest import Replace

TEXT = "Jane (jane@example.com), born 1/27/1952, aged 93, card 4111 1111 1111 1111"


def test_tags_name_the_kind(replace: Replace) -> None:
    assert replace(TEXT, "tag") == "Jane ([EMAIL]), born [DATE], aged [AGE], card [CARD]"


def test_masks_keep_the_shape(replace: Replace) -> None:
    masked = "Jane (****@*******.***), born */**/****, aged **, card **** **** **** ****"
    assert replace(TEXT, "mask") == masked


def test_equal_values_of_a_document_get_equal_surrogates(replace: Replace) -> None:
    text = "jane@example.com, JANE@EXAMPLE.COM or joe@example.com; card 4111 1111 1111 1111, 4111-1111-1111-1111"
    first, again, other, spaced, dashed = re.split(", | or |; card ", replace(text, document="a"))
    assert first == again != other
    assert spaced.replace(" ", "") == dashed.replace("-", "")
    assert replace(text, document="a") == replace(text, document="a") != replace(text, document="b")


def test_dates_of_a_document_shift_together(replace: Replace) -> None:
    shifted = replace("from 2021-03-05 to 2021-04-09 and on 5 March 2021", document="a")
    start, end = map(date.fromisoformat, re.findall(r"\d{4}-\d\d-\d\d", shifted))
    assert (end - start).days == 35
    assert start != date(2021, 3, 5)
    assert f"on {start.day} {start:%B} {start.year}" in shifted
    assert replace("on 2021-03-05", document="b") != replace("on 2021-03-05", document="c")


@pytest.mark.parametrize(
    ("written", "shifted"),
    [
        ("2021-12-31", "2022-01-02"),
        ("2007-03-23 18:43:36", "2007-03-25 18:43:36"),
        ("1/27/1952", "1/29/1952"),
        ("09/08/1952", "09/10/1952"),
        ("31.12.2020", "02.01.2021"),
        ("25/12/99", "27/12/99"),
        ("May 30th, 2021", "June 1st, 2021"),
        ("1st of March", "3rd of March"),
        ("28 FEB 2021", "2 MAR 2021"),
        ("30 juillet 2001", "1 août 2001"),
        ("Saturday", "Monday"),
        ("fridays", "sundays"),
        ("May 2019", "May 2019"),
        ("5/12", "5/14"),
        ("05041936", None),
    ],
)
def test_a_shifted_date_is_written_as_before(written: str, shifted: str | None) -> None:
    assert shift_date(written, 2) == shifted


def test_ages_over_89_and_small_areas_are_generalised(replace: Replace) -> None:
    assert replace("a 92-year-old of NY 10027-1234, KS 69201 and Sample MA 02139") == (
        "a 90+-year-old of NY 100, KS 000 and Sample MA 021"
    )
    assert len(SMALL_ZIP_AREAS) == 17


VALID = [
    ("CARD", "4111 1111 1111 1111"),
    ("IBAN", "DE89 3704 0044 0532 0130 00"),
    ("VIN", "1M8GDM9AXKP042788"),
    ("TAX_ID", "DE136695976"),
    ("CRYPTO", "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"),
    ("CRYPTO", "1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN2"),
    ("CRYPTO", "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4"),
    ("NATIONAL_ID", "RSSMRA85T10A562S"),
    ("ROUTING", "021000021"),
    ("NATIONAL_ID", "943 476 5919"),
]


@pytest.mark.parametrize(("entity", "value"), VALID)
def test_surrogates_have_the_form_and_are_never_valid(cache: Path, entity: str, value: str) -> None:
    assert is_confirmed(entity, value)
    for document in map(str, range(20)):
        made = surrogate(entity, value, document)
        assert made != value
        assert not is_confirmed(entity, made), made
        assert re.sub(r"[^\W_]", "x", made) == re.sub(r"[^\W_]", "x", value)


def test_surrogates_of_addresses_belong_to_nobody(replace: Replace) -> None:
    assert re.fullmatch(r"\(\d{3}\) 555-01\d\d", replace("617-555-7391"))
    assert re.fullmatch(r"\+1 \d{3}-555-01\d\d", replace("+49 30 901820-0"))
    assert replace("jane@bank.com").endswith("@example.org")
    assert replace("https://bank.com/jane").startswith("https://example.org/")
    assert re.fullmatch(r"9\d\d-[0-4]\d-\d{4}", replace("536-90-4399"))
    assert replace("86.231.85.193").startswith(("192.0.2.", "198.51.100.", "203.0.113."))
    assert replace("2a02:8109::1c7e").startswith("2001:db8::")


def test_parts_of_a_name_stay_those_of_one_person(cache: Path) -> None:
    whole = surrogate("NAME", "Jane Smith", "a")
    assert surrogate("NAME", "SMITH", "a") == whole.split()[1].upper()


def test_only_the_user_can_read_the_secret_and_it_lasts(cache: Path) -> None:
    secret = own_secret()
    own_secret.cache_clear()
    assert own_secret() == secret == (cache / "scrub-secret").read_bytes()
    assert (cache / "scrub-secret").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in cache.iterdir()] == ["scrub-secret"]


def test_a_scrubber_can_be_sent_to_another_process(replace: Replace) -> None:
    rules = make_rules(None, policy="surrogate", find="all", otherwise="all")
    sent: Scrubber = pickle.loads(pickle.dumps(Scrubber(rules)))
    assert sent.scrub(TEXT, Counter()) == replace(TEXT)


def test_another_secret_gives_other_surrogates(replace: Replace, cache: Path) -> None:
    first = replace("jane@bank.com and MRN 12345678")
    (cache / "scrub-secret").unlink()
    own_secret.cache_clear()
    assert replace("jane@bank.com and MRN 12345678") != first
