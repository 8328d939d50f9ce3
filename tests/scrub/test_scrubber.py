"""The default rules find identifiers that a check confirms, and leave figures alone."""

from __future__ import annotations

import ipaddress
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.recipe import domain_names, load_domain
from finetune.scrub import Rules, Scrubber

scrub = Scrubber(Rules()).scrub

FOUND = [
    ("Write to jane.doe+tax@mail.example.co.uk.", "Write to [EMAIL].", "EMAIL"),
    ("(jane@example.com)", "([EMAIL])", "EMAIL"),
    ("Pay DE89 3704 0044 0532 0130 00 and wait", "Pay [IBAN] and wait", "IBAN"),
    ("Pay GB82WEST12345698765432.", "Pay [IBAN].", "IBAN"),
    ("pay gb82west12345698765432", "pay [IBAN]", "IBAN"),
    ("MT84MALT011000012345MTLCAST001S", "[IBAN]", "IBAN"),
    ("NO93 8601 1117 947 is mine", "[IBAN] is mine", "IBAN"),
    ("card 4111 1111 1111 1111, exp 12/30", "card [CARD], exp 12/30", "CARD"),
    ("card 4111-1111-1111-1111", "card [CARD]", "CARD"),
    ("amex 3782 822463 10005", "amex [CARD]", "CARD"),
    ("5555555555554444", "[CARD]", "CARD"),
    ("SSN 536-90-4399!", "SSN [SSN]!", "SSN"),
    ("Call +49 30 901820-0 now", "Call [PHONE] now", "PHONE"),
    ("Call +1 (555) 010-9999", "Call [PHONE]", "PHONE"),
    ("Call (+44) 20 7946 0958.", "Call [PHONE].", "PHONE"),
    ("+34 612 345 678", "[PHONE]", "PHONE"),
    ("from 84.23.10.24, twice", "from [IP], twice", "IP"),
    ("8.8.8.80.", "[IP].", "IP"),
    ("# Access from 84.23.10.24", "# Access from [IP]", "IP"),
    ("digit@example.com: hello", "[EMAIL]: hello", "EMAIL"),
]


@pytest.mark.parametrize(("text", "scrubbed", "entity"), FOUND)
def test_identifier_is_replaced_and_counted(text: str, scrubbed: str, entity: str) -> None:
    counts: Counter[str] = Counter()
    assert scrub(text, counts) == scrubbed
    assert counts == {entity: 1}


SURVIVES = [
    "Revenue rose 12.5% to $4,111,111,111 from 1 234 567 890 a year ago.",
    "The group paid 4 000 000 000 000 000 yen in 2024 and 5 555 555 555 554 444 in all.",
    "Volume was 4111111111111112 shares.",  # fails the Luhn check
    "Turnover of 4111 1111 1111 1111 euros",  # an amount, whatever its digits
    "Assets changed by +200 000 000 dollars, equity by +34 612 345 678 kroner.",
    "$TSLA +3.4% at 250.10, $BRK.B -1.2%, EUR/USD 1.0850, 10-year 4.25%",
    "ISIN US0378331005, WKN 865985, LEI 5493001KJTIIGC8Y1R12, CUSIP 037833100",
    "Order DE12 3456 7890 1234 5678 90 has wrong check digits.",
    "Form 10-K, item 7, section 101.2.3.4, version 84.0.0.1, firmware: 84.2.0.7, EC 3.1.1.111",
    "See 4.2.1.4 for the repair and 10.4.2.1 for the forms; 1.3.6.1 begins the OID.",
    "# Handbook\n\n## 48.2.1.3 Calibration of the scale\n\n4.2.1.3 Calibration",
    "Ping 127.0.0.1, 192.168.0.1, 172.16.4.99 or 10.1.2.200; the mask is 255.255.255.0, the route 0.0.0.0.",
    "Documentation uses 192.0.2.44 and 203.0.113.77; 224.0.0.251 is multicast, 169.254.10.99 link-local.",
    "Run git clone git@github.com:reedbed/boats.git or ssh://git@code.example.com/boats.git.",
    "Log in with ssh root@server.example.com and copy with scp a.txt root@server.example.com:/tmp or rsync://me@host.example",
    "The product is x@w.transpose() and pip install pkg@latest follows @app.get",
    "Pages 123-45-6789000 and 000-12-3456, case 2019-04-1234",
    "Opening hours 10-12, ratio 3:1, on 2024-01-31 at 08:15:00.",
    "The score was 256.300.1.2 and 1.2.3 in 300.1.1.1 trials.",
    "twitter handle @bank, price @ 5.10, a@b",
    "BP 120/80, HbA1c 48 mmol/mol, SpO2 98 %, dose 5-10 mg",
    "+1 234 567 is too short, +999 123 456 789 is no country",
]


@pytest.mark.parametrize("text", SURVIVES)
def test_figures_tickers_and_codes_survive(text: str) -> None:
    counts: Counter[str] = Counter()
    assert scrub(text, counts) == text
    assert not counts


octets = st.integers(0, 255)


@settings(deadline=None)  # a pause of the machine is no fault
@given(st.tuples(octets, octets, octets, octets).map(lambda parts: ".".join(map(str, parts))))
def test_only_public_addresses_are_replaced(address: str) -> None:
    parsed = ipaddress.IPv4Address(address)
    is_private = not parsed.is_global or parsed.is_multicast
    scrubbed = scrub(f"Ask {address} for it", Counter())
    assert scrubbed == f"Ask {address if is_private or max(parsed.packed) < 32 else '[IP]'} for it"
    assert scrub(f"# {address} Calibration", Counter()) == f"# {address} Calibration"


@settings(deadline=None)  # a pause of the machine is no fault
@given(st.lists(st.integers(0, 31), min_size=2, max_size=9).map(lambda parts: ".".join(map(str, parts))))
def test_numbers_of_sections_versions_and_objects_survive(number: str) -> None:
    for text in (f"{number} Safety", f"See {number}.", f"({number})", f"v{number}", f"Use {number}, not {number}-beta"):
        assert scrub(text, Counter()) == text


def test_names_dates_and_places_are_not_identifiers() -> None:
    """The documentation says so; whoever adds them changes this test and the documentation."""
    text = "Jane Doe, born 1 May 1970, 12 High Street, Springfield, MA 01101, https://example.com"
    assert scrub(text, Counter()) == text


@settings(deadline=None)  # a pause of the machine is no fault
@given(st.text(alphabet="0123456789 .,-+@()ABab%$", max_size=80))
def test_a_second_pass_finds_nothing_more(text: str) -> None:
    counts: Counter[str] = Counter()
    once = scrub(text, counts)
    assert counts.total() == sum(once.count(f"[{entity}]") for entity in counts)
    again: Counter[str] = Counter()
    scrub(once, again)
    assert again.total() <= counts.total()


@pytest.mark.parametrize("domain", domain_names())
def test_bundled_samples_hold_no_identifier(domain: str) -> None:
    folder = load_domain(domain).folder / "sample"
    for file in sorted(folder.glob("*.jsonl")):
        counts: Counter[str] = Counter()
        text = file.read_text("utf-8")
        assert scrub(text, counts) == text, f"{file.name}: {counts}"
