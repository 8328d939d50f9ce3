"""Write the folder of the README's rowing club, which is invented: house rules, a booking guide and labelled messages.

python examples/club.py [FOLDER]
"""

from __future__ import annotations

import csv
import random
import sys
from pathlib import Path

COUNT = 80  # messages per label
BOATS = "Otter Heron Kingfisher Pike Swallow Plover Grebe Marten Teal Curlew".split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
PARTS = ["fin", "seat", "rudder", "left rigger", "bow ball", "stretcher", "oarlock", "hull", "slide", "rope"]
REASONS = ["the course was called off", "I was ill", "the river was closed", "we got the wrong boat", "I paid twice"]
MESSAGES = {
    "booking": [
        "Can we have the {boat} on {day} at {hour}?",
        "Please put the {boat} aside for {people} of us, {day}, {hour} sharp.",
        "Is there still a seat in the {boat} on {day} evening?",
        "We would like to row the {boat} {day} morning. Is it free?",
        "Move my outing from {day} to {other}, same boat, the {boat}.",
        "{people} beginners would like to come on {day}. Which boat is left?",
        "Who has the {boat} on {day}? I need it from {hour} on.",
    ],
    "damage": [
        "The {part} of the {boat} is bent.",
        "We hit a log on {day}, and the {part} of the {boat} came off.",
        "Somebody left the {boat} with a cracked {part}.",
        "Careful with the {boat}: its {part} is loose since {day}.",
        "I found water in the {boat} again. Perhaps it is the {part}.",
        "The {part} broke at {hour}. We rowed the {boat} home with {people} oars.",
        "Nobody should take the {boat} out before the {part} is mended.",
    ],
    "refund": [
        "Please send back the {euros} euros for {day}: {reason}.",
        "I would like my money for the {boat} back, because {reason}.",
        "{reason}, so when do I get the {euros} euros?",
        "You still owe me {euros} euros since {day}.",
        "The fee of {euros} euros for {day} was taken from my account although {reason}.",
        "Could {euros} euros go back to my card? {reason}.",
        "As {reason}, I ask for the deposit of the {boat}.",
    ],
}
RULES = """# House rules

Members may take out any boat up to four seats. Eights go out with a coxswain who has passed the club's test.

Nobody rows in the dark, in fog, or when the gauge at the bridge is above three metres. Write your name, the boat and the time
in the logbook before you leave, and the time of your return afterwards.

Wash and dry the boat after each outing. Put it back on its own rack, bow to the door.
"""
GUIDE = """<!doctype html>
<html lang="en"><head><title>How to book a boat</title></head><body>
<h1>How to book a boat</h1>
<p>Boats are booked by message, a week ahead at the most. One outing takes two hours. The boat master answers by noon.</p>
<p>Bookings are free for members. Guests pay twelve euros per seat, and get them back if the club calls the outing off.</p>
</body></html>
"""


def write_messages(draw: random.Random) -> list[tuple[str, str]]:
    """Messages and their labels; no two are the same."""
    rows: dict[str, str] = {}
    for label, patterns in MESSAGES.items():
        while sum(known == label for known in rows.values()) < COUNT:
            day, other = draw.sample(DAYS, 2)
            values = {"boat": draw.choice(BOATS), "part": draw.choice(PARTS), "reason": draw.choice(REASONS)}
            numbers = {"hour": draw.randrange(7, 20), "people": draw.randrange(2, 6), "euros": draw.randrange(8, 90)}
            text = draw.choice(patterns).format(day=day, other=other, **values, **numbers)
            rows[text[0].upper() + text[1:]] = label
    return draw.sample(sorted(rows.items()), len(rows))


def main() -> None:
    """Write the folder, `club` by default."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "club")
    folder.mkdir(parents=True)
    (folder / "rules.md").write_text(RULES, "utf-8")
    (folder / "guide.html").write_text(GUIDE, "utf-8")
    with (folder / "messages.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *write_messages(random.Random(7))])


if __name__ == "__main__":
    main()
