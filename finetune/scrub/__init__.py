"""Finds personal data in text and replaces it: recognisers with checks, a project's own rules, and four policies.

What is not recognised stays in the text, so scrubbed text may still name people.
"""

from finetune.scrub.own_tagger import describe_tagger
from finetune.scrub.rules import Rules, make_rules
from finetune.scrub.scrubber import Scrubber, tag_identifiers
from finetune.scrub.span import Span
from finetune.scrub.tagger import fingerprint_tagger

__all__ = ["Rules", "Scrubber", "Span", "describe_tagger", "fingerprint_tagger", "make_rules", "tag_identifiers"]
