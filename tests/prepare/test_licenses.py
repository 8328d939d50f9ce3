"""The licence of a corpus is the strictest of its sources', and what cannot be joined is refused."""

from __future__ import annotations

from itertools import pairwise, permutations

import pytest

from finetune.errors import InputError
from finetune.prepare.licenses import LEVELS, is_noncommercial, strictest

ORDER = ("cc0-1.0", "mit", "apache-2.0", "cc-by-3.0", "cc-by-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0", "unknown")


def test_one_licence_is_the_corpus_licence() -> None:
    for names in LEVELS.values():
        for name in names:
            assert strictest([name]) == strictest([name, name]) == name


@pytest.mark.parametrize(("mild", "strict"), list(pairwise(ORDER)))
def test_the_licence_that_asks_more_wins(mild: str, strict: str) -> None:
    assert strictest([mild, strict]) == strictest([strict, mild]) == strict


@pytest.mark.parametrize(
    ("licenses", "corpus"),
    [
        (("mit", "cc-by-4.0", "cc-by-sa-3.0"), "cc-by-sa-3.0"),
        (("cc-by-sa-3.0", "mit", "cc-by-sa-4.0"), "cc-by-sa-4.0"),  # 3.0 lets 4.0 take its place
        (("cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0", "cc-by-nc-4.0"), "cc-by-nc-sa-4.0"),
        (("cc-by-4.0", "cdla-sharing-1.0"), "cdla-sharing-1.0"),
        (("apache-2.0", "unknown"), "unknown"),
        (("apache-2.0", "other"), "unknown"),
        (("cc-by-nc-sa-3.0", "the house rules"), "unknown"),
        (("mit, cc-by-sa-4.0",), "cc-by-sa-4.0"),  # a card with two licences
    ],
)
def test_the_order_of_the_sources_does_not_matter(licenses: tuple[str, ...], corpus: str) -> None:
    assert {strictest(order) for order in permutations(licenses)} == {corpus}


@pytest.mark.parametrize(
    ("spelt", "hub"),
    [("CC BY-SA 4.0", "cc-by-sa-4.0"), ("Apache 2.0", "apache-2.0"), ("MIT", "mit"), (" cc_by_nc_4.0", "cc-by-nc-4.0")],
)
def test_licences_are_known_however_they_are_spelt(spelt: str, hub: str) -> None:
    assert strictest([spelt, "cc0-1.0"]) == hub


def test_a_licence_of_ones_own_stays_where_it_is_the_only_one() -> None:
    assert strictest(["Acme data terms v2"]) == "Acme data terms v2"
    assert strictest([""]) == strictest([]) == "unknown"


@pytest.mark.parametrize(
    "licenses",
    [
        ("cc-by-sa-4.0", "cdla-sharing-1.0"),
        ("cc-by-sa-4.0", "cc-by-nc-sa-4.0"),
        ("cc-by-sa-3.0", "cc-by-nc-4.0"),
        ("odbl", "cc-by-sa-4.0", "mit"),
        ("gpl-2.0", "gpl-3.0"),
        ("cdla-sharing-1.0", "cc-by-nc-sa-3.0", "unknown"),
    ],
)
def test_licences_that_cannot_be_joined_are_refused_by_name(licenses: tuple[str, ...]) -> None:
    for order in permutations(licenses):
        with pytest.raises(InputError, match="cannot be combined in one corpus") as raised:
            strictest(order)
        assert "--task or --source" in str(raised.value)
        for name in licenses:
            assert (name in str(raised.value)) == (name not in ("mit", "unknown"))


@pytest.mark.parametrize("license", ["cc-by-nd-4.0", "cc-by-nc-nd-4.0", "CC BY-NC-ND 3.0"])
def test_data_that_may_not_be_adapted_are_refused(license: str) -> None:
    with pytest.raises(InputError, match="allows no derivatives") as raised:
        strictest(["mit", license])
    assert license.strip() in str(raised.value)


def test_bans_on_commercial_use_are_seen() -> None:
    banned = ["cc-by-nc-4.0", "cc-by-nc-sa-3.0", "CC BY-NC 2.0", "mit, cc-by-nc-4.0", "intel-research"]
    banned += ("fair-noncommercial-research-license", "acme-non-commercial", "cc-by-nc-nd-4.0")
    for license in banned:
        assert is_noncommercial(license), license
    for license in ("mit", "cc-by-sa-4.0", "unknown", "ncsa", "", "other", "cdla-sharing-1.0"):
        assert not is_noncommercial(license), license
