"""Parses XML without entities, network access or huge trees."""

from __future__ import annotations

from lxml import etree
from lxml.etree import _Element as Element


def parse_xml(data: bytes, *, comments: bool = False) -> Element | None:
    """The root of well-formed XML, None for anything else.

    Entities are neither replaced nor loaded; libxml2's limits on depth (256) and on the size of a text node stay on.
    """
    parser = etree.XMLParser(
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        dtd_validation=False,
        huge_tree=False,
        remove_comments=not comments,
        remove_pis=True,
    )
    try:
        return etree.fromstring(data, parser)
    except (etree.XMLSyntaxError, ValueError):
        return None
