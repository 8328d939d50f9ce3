"""Each recogniser finds its kind of personal data, refuses what only looks like it, and takes time linear in the text."""

from __future__ import annotations

import time

import pytest

from finetune.scrub import Scrubber, make_rules
from finetune.scrub.recognisers import RECOGNISERS, is_confirmed

everything = Scrubber(make_rules(None, policy=None, find="all", otherwise="all"))


def found(text: str) -> list[tuple[str, str]]:
    return [(span.entity, text[span.start : span.end]) for span in everything.find(text)]


# What says that a number is one to call, even if it has the form of a figure.
CALLS = (
    *("Phone 1: {}", "Office: {}", "| O: {} |", "my wrong number is {}", "Sie erreichen mich unter {}.", "电话 {}"),
    *("Mon numéro est le {}.", "Mi número es {}.", "Il mio numero è {}.", "Mijn nummer is {}.", "Mój numer to {}."),
    *("Vous pouvez me joindre au {}.", "Me liga no {}.", "Bel me op {}.", "Zadzwoń pod {}.", "Volejte {}.", "тел. {}"),
    *("Jane\n12 High Road\nLeeds LS1 4DY\n{}", "Jane\n12 High Road\nLeeds LS1 4DY\nUnited Kingdom\n{}\n"),
    *("Jane\n{}\njane@example.com", "Jane | {} | jane@example.com", "8001 Zürich\n{}"),
)
# Cells, lists, labels, times and dates that touch a number.
CELLS = (
    *("Ann,Doe,{},Boston", "Ann,{},02118", "1,{},Ann", "020 7946 0018,{}", "020 7946 0018/{} and", "{}/020 7946 0018"),
    *("{} 24/7", "{} from 9:00", "{} 9am to 5pm", "Mon-Fri {} 9-17", "{} 2020-05-04", "in May 2020 {} rang"),
    *(
        "T.{}",
        "tel.{}",
        "tel{}",
        "{}Fax",
        "Phone...{}",
        "Phone__{}",
        "_{}_",
        "<{}>",
        "*{}*",
        "5) {}",
        "1. Ann {} 2. Tom",
    ),
    *("No. {}", "#{}", "# {}", "id {}", "ref {}: call back", "no {} please"),
    *("Who is the owner of {}?", "we spoke over {}", "registered number {}", "12 High Street, Boston MA 02118 {}"),
)

FOUND = [
    # Telephone numbers, in national form and by the words before them.
    ("Ring (212) 555-7391 ext. 12 today", "PHONE", "(212) 555-7391 ext. 12"),
    ("or 617.555.7391.", "PHONE", "617.555.7391"),
    ("They're not answering at 785 8949", "PHONE", "785 8949"),
    ("Fax: 02.27.96.63.08", "PHONE", "02.27.96.63.08"),
    ("Telefon 030 901820", "PHONE", "030 901820"),
    ("the desk, 0487 23 46 71, is open", "PHONE", "0487 23 46 71"),
    ("from +1-415-555-0132x3344 or", "PHONE", "+1-415-555-0132x3344"),
    ("from 001-415-555-0132x12 or", "PHONE", "001-415-555-0132x12"),
    ("06-21243412x12 and 0866 3321987 ext 123", "PHONE", "0866 3321987 ext 123"),
    ("at +44 20 7946 0018/020 7946 0019", "PHONE", "+44 20 7946 0018"),
    ("_+44 20 7946 0018_", "PHONE", "+44 20 7946 0018"),
    ("0049 (0)30 901820", "PHONE", "0049 (0)30 901820"),
    ("011 44 20 7946 0958", "PHONE", "011 44 20 7946 0958"),
    ("415.555.0132-Fax", "PHONE", "415.555.0132"),
    ("33 93 31 (mobile)", "PHONE", "33 93 31"),
    ("Leeds\n126 345 678 Office\n", "PHONE", "126 345 678"),
    ("33 93 31 mobile", "PHONE", "33 93 31"),
    ("My number is 73 448 266.", "PHONE", "73 448 266"),
    ("T: 73 448 266", "PHONE", "73 448 266"),
    ("Jane Doe\n469 34 883\n", "PHONE", "469 34 883"),
    *(
        (f"it was {number}, he said", "PHONE", number)
        for number in (
            "785 8949",
            "9493 7477",
            "25-62-29-72",
            "96 237271",
            "88 165 40 96",
            "612 34 56 78",
            "1300 555 012",
            "55 1234 5678",
            "138 1234 5678",
            "98765 43210",
            "234-45-67",
            "(1) 234-5678",
            "+(370) 40562241",
            "(351) 925807302",
            "42/621-2997",
            "06-5/145 4752",
            "(06)20/033-2245",
            "8 (910) 244-8594",
            "03674/45290784",
            "06420 40560 865",
            "834.110.5616",
            "(585) 159-0458 x474",
            "2614597755",
            "80045807",
            "০১৭০২৯৩১৩৭৫",
            "+৮৮০-১৫৮০-৭৩০২১৫",
            "(3) 9123 4567",
            "(88) 684-334",
            "(11) 4706-6184",
            "(11) 94706-6184",
            "8 (495) 123-45-67",
            "06 12 34 56 78",
            "9 1234 5678",
            "7123-4567",
            "07 113 454",
            "555-0142",
            "59 123 4567",
            "9469 9966",
            "(03) 5327 5996",
            "73 448 266",
            "612 345 678",
            "512-345-678",
            "33 93 31",
            "21 248 373 5871",
            "07700900123",
        )
    ),
    ("The number 785 8949 does not exist", "PHONE", "785 8949"),
    ("<td>785 8949</td>", "PHONE", "785 8949"),
    ("(w) 785 8949 (h) 020 7946 0018", "PHONE", "785 8949"),
    ("Ann Doe\nP 785 8949", "PHONE", "785 8949"),
    ("send it to 785 8949 via the app", "PHONE", "785 8949"),
    *((text.format("785 8949"), "PHONE", "785 8949") for text in CELLS),
    ("a letter from 73 448 266 says so", "PHONE", "73 448 266"),
    ("Ann\t73 448 266\tBoston", "PHONE", "73 448 266"),
    ("73 448 266Fax", "PHONE", "73 448 266"),
    *((text.format("73 448 266"), "PHONE", "73 448 266") for text in CALLS),
    # Links and machines.
    ("see https://example.com/a_(b), or not", "URL", "https://example.com/a_(b)"),
    ("see www.foo.de.", "URL", "www.foo.de"),
    ("from d80:e4b5:79da:6cf6:71f3:51f7:9161:c319", "IP", "d80:e4b5:79da:6cf6:71f3:51f7:9161:c319"),
    ("from 2a02:8109::1c7e.", "IP", "2a02:8109::1c7e"),
    ("from 10.218.6.131", "IP", "10.218.6.131"),
    ("card 00:1B:44:11:3A:B7", "MAC", "00:1B:44:11:3A:B7"),
    # Accounts.
    ("Routing number: 021000021", "ROUTING", "021000021"),
    ("My account number is 1234-567890.", "ACCOUNT", "1234-567890"),
    ("acct #00123456", "ACCOUNT", "00123456"),
    ("to 1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN2", "CRYPTO", "1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN2"),
    ("to bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4", "CRYPTO", "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4"),
    ("0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed", "CRYPTO", "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"),
    # States.
    ("SSN: 536 90 4399", "SSN", "536 90 4399"),
    ("EIN 12-3456789", "TAX_ID", "12-3456789"),
    ("ITIN 912-78-1234", "TAX_ID", "912-78-1234"),
    ("USt-IdNr. DE 136 695 976", "TAX_ID", "DE 136 695 976"),
    ("TVA FR40303265045", "TAX_ID", "FR40303265045"),
    ("P. IVA IT00743110157", "TAX_ID", "IT00743110157"),
    ("VAT GB 980 7806 84", "TAX_ID", "GB 980 7806 84"),
    ("NHS number 943 476 5919", "NATIONAL_ID", "943 476 5919"),
    ("NI AB 12 34 56 C", "NATIONAL_ID", "AB 12 34 56 C"),
    ("DNI 12345678Z", "NATIONAL_ID", "12345678Z"),
    ("CF RSSMRA85T10A562S", "NATIONAL_ID", "RSSMRA85T10A562S"),
    ("NIR 2 55 08 14 168 025 38", "NATIONAL_ID", "2 55 08 14 168 025 38"),
    ("CPF 529.982.247-25", "NATIONAL_ID", "529.982.247-25"),
    ("HETU 131052-308T", "NATIONAL_ID", "131052-308T"),
    ("AHV 756.9217.0769.85", "NATIONAL_ID", "756.9217.0769.85"),
    ("my SIN is 046 454 286", "NATIONAL_ID", "046 454 286"),
    ("PESEL 44051401359", "NATIONAL_ID", "44051401359"),
    ("Steuer-ID 86 095 742 719", "NATIONAL_ID", "86 095 742 719"),
    # Records, plans, licences, vehicles and devices.
    ("MRN#1234567", "MEDICAL_RECORD", "1234567"),
    ("Medical record number: AB-12345", "MEDICAL_RECORD", "AB-12345"),
    ("Patient ID 00482913 was", "MEDICAL_RECORD", "00482913"),
    ("member ID: XYZ123456789", "HEALTH_PLAN", "XYZ123456789"),
    ("Medicare 1EG4-TE5-MK73", "HEALTH_PLAN", "1EG4-TE5-MK73"),
    ("My driver's license number is A56319335", "LICENCE", "A56319335"),
    ("passport no. 533380006", "LICENCE", "533380006"),
    ("NPI 1234567893", "LICENCE", "1234567893"),
    ("VIN 1M8GDM9AXKP042788", "VIN", "1M8GDM9AXKP042788"),
    ("license plate AB-12 CDE", "PLATE", "AB-12 CDE"),
    ("serial number SN-48213 of the pacemaker", "DEVICE", "SN-48213"),
    ("IMEI 490154203237518", "DEVICE", "490154203237518"),
    ("fingerprint id FP-99213", "BIOMETRIC", "FP-99213"),
    # Dates and ages.
    ("on 2007-03-23 18:43:36", "DATE", "2007-03-23 18:43:36"),
    ("born 1/27/1952", "DATE", "1/27/1952"),
    ("am 12.03.2020 um", "DATE", "12.03.2020"),
    ("the 5th of March, 2021", "DATE", "5th of March, 2021"),
    ("on March 5th", "DATE", "March 5th"),
    ("since May 2019", "DATE", "May 2019"),
    ("le 4 juillet 2001", "DATE", "4 juillet 2001"),
    ("by 5/12, please", "DATE", "5/12"),
    ("next Thursday", "DATE", "Thursday"),
    ("DOB 05041936", "DATE", "05041936"),
    ("a 92-year-old man", "AGE", "92"),
    ("aged 101", "AGE", "101"),
    ("ninety-two years old", "AGE", "ninety-two"),
    ("in her nineties", "AGE", "nineties"),
    # Places.
    ("491 St. John Street, Suite 286", "ADDRESS", "491 St. John Street, Suite 286"),
    ("at 12 High St, Springfield, MA 01101.", "ADDRESS", "12 High St, Springfield, MA 01101"),
    ("Hauptstraße 12a", "ADDRESS", "Hauptstraße 12a"),
    ("she lives at Alte Hauptstraße 12a", "ADDRESS", "Alte Hauptstraße 12a"),
    ("87 Rue Joseph Vernet", "ADDRESS", "87 Rue Joseph Vernet"),
    ("Via Pisanelli 89", "ADDRESS", "Via Pisanelli 89"),
    ("Adams Street is closed", "ADDRESS", "Adams Street"),
    ("43 Roheline 69 Apt. 305", "ADDRESS", "43 Roheline 69 Apt. 305"),
    ("PSC 7004, Box 8380\nAPO AP 11949", "ADDRESS", "PSC 7004, Box 8380\nAPO AP 11949"),
    ("P.O. Box 101", "ADDRESS", "P.O. Box 101"),
    ("Boston, MA 02139-4307", "ZIP", "02139-4307"),
    ("ZIP code 90210", "ZIP", "90210"),
    ("London SW1A 1AA", "ZIP", "SW1A 1AA"),
    ("Ottawa K1A 0B1", "ZIP", "K1A 0B1"),
]


@pytest.mark.parametrize(("text", "entity", "value"), FOUND)
def test_personal_data_is_found_whole(text: str, entity: str, value: str) -> None:
    assert (entity, value) in found(text)


LEFT = [
    "Accounts of 2024, account 10-K, account for 1,234,567 or 1 234 567 of them",
    "Call volume grew from 2023-2024; contact the 120 000 customers",
    "order 785 8949, order no. 9493 7477, invoice #9493 7477",
    "between 4500 6000, 2019 2020, rows 785 8949 4493 7477, my account number is 73 448 266",
    "12 345 678 steps, 73 448 266 people, 751-1000 min, 4500-4700, 20 30 40 50, 12 24 36 48, 12 05 2019, 2019 05 12",
    "NHANES 20072010, on 20091231, 2614597755 rows of it, about 2614597755, 8282779000",
    "Titles: 2014: 1,609 2019 : 1,784, 73 448 266 Einwohner",
    "it rose by 73 448 266, to 12 345 000, about 73 448 266, 1 234 567, 33 93 31 mg, of 12 18 24, 12 345",
    "73 448 266 people, 12 345 678 home users, $785 8949, 785 8949 units, ISSN 9493 7477, 25.62.29.72.11, 1000 0000",
    "routing number 021000022 fails its check, and so does VIN-like 1M8GDM9A1KP042788",
    "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAeD and 3J98t1WpEZ73CNmQviecrnyiWrnqRhWNLz fail theirs",
    "DE136695977, GB980780685, 12345678A and RSSMRA85T10A562T have other check digits",
    "std::vector<int> at 10:20:30, a 2:1 ratio, ::1, fe::",
    "She may 10 times march 3 miles; 13/32/2020 and 2021-02-30 are no days",
    "an 85-year-old, aged 42, ages 90% of wine, 95 years of history",
    "license: Apache-2.0, policy 3, group A, member of 4 clubs, patient 7, case 12",
    "BP 120/80, HbA1c 48 mmol/mol, vitamin B12, 5-HT2A, IL-6, COVID-19, T2DM, CD4 count 350",
    "Revenue rose 12.5% to $4,111,111,111; the 10-year yield was 4.25% in 2024",
]


@pytest.mark.parametrize("text", LEFT)
def test_what_only_looks_like_it_stays(text: str) -> None:
    assert found(text) == []


def test_longer_and_surer_span_wins() -> None:
    assert found("mail to https://example.com/?to=jane@example.com now") == [
        ("URL", "https://example.com/?to=jane@example.com")
    ]
    assert found("account card 4111 1111 1111 1111")[0] == ("CARD", "4111 1111 1111 1111")


PIECES = (
    *(
        "1",
        "1 ",
        "1-",
        "1.",
        "1:",
        "a@",
        "@",
        "a.",
        "a",
        "A",
        "A1",
        "a ",
        "1 a ",
        "+1",
        "http://",
        "(",
        "May ",
        "1 St ",
        "0x",
    ),
    *(
        "bc1",
        "account ",
        "account is ",
        "phone ",
        "no. ",
        "(88) 684-",
        "é",
        "1/2/",
        "rue a ",
        "12 Rue ",
        "DE1 ",
        "zip: ",
        "f:",
    ),
)


@pytest.mark.parametrize("piece", PIECES)
def test_time_grows_with_the_text_and_not_its_square(piece: str) -> None:
    """Eight times as long a text takes about eight times as long; a square would take 64 times as long."""

    def seconds(length: int) -> float:
        text = piece * (length // len(piece))
        best = float("inf")
        for _ in range(2):
            started = time.process_time()
            everything.find(text)
            best = min(best, time.process_time() - started)
        return best

    assert seconds(32_000) < 24 * seconds(4_000) + 0.05


def test_every_recogniser_has_a_name_of_its_own_or_one_shape_of_several() -> None:
    names = {(each.name, each.entity) for each in RECOGNISERS}
    assert len({name for name, _ in names}) == len(names)


def test_only_valid_numbers_are_confirmed() -> None:
    assert is_confirmed("CARD", "4111111111111111")
    assert not is_confirmed("CARD", "4111111111111112")
    assert is_confirmed("VIN", "1M8GDM9AXKP042788")
    assert not is_confirmed("VIN", "1M8GDM9A1KP042788")
