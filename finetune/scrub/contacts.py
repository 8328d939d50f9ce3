"""E-mail addresses, links, and addresses of machines."""

from __future__ import annotations

import re
from ipaddress import AddressValueError, IPv4Address, IPv6Address, IPv6Network

from finetune.scrub.recogniser import LIKELY, NUMBER_HINT, Recogniser

NUMBERED_BEFORE = re.compile(
    r"(?:\bv|version|release|firmware|build|driver|section|chapter|clause|item|article|paragraph|§|\b(?:EC|OID)):?\.?\s{0,3}$"
    r"|(?:^|\n)#{1,6} $",
    re.I,
)
# One address in 4,096 has no larger number; nearly all numbers of sections, versions and objects (1.3.6.1) are like that.
SMALL_OCTET = 32
SHELL_BEFORE = re.compile(r"\b(?:ssh|sftp|scp|rsync)(?: |://)$")  # a login on a machine, not an address
ACCOUNTS = frozenset(("git", "hg", "svn"))  # of code hosts, which all users share: git@host:group/project.git
DOCUMENTATION = IPv6Network("2001:db8::/32")  # RFC 3849
PUNCTUATION = frozenset(".,;:!?'\")]}>*_")


def _is_email(text: str, before: str, after: str) -> bool:
    is_login = text.partition("@")[0].lower() in ACCOUNTS or SHELL_BEFORE.search(before) or after[:2] in {":/", ":~"}
    return not is_login and not after.startswith("(")  # x@w.transpose() is code


def _is_ipv4(text: str, before: str, after: str) -> bool:
    try:
        address = IPv4Address(text)
    except AddressValueError:
        return False
    is_public = address.is_global and not address.is_multicast  # not private, loopback, a netmask or for documentation
    return is_public and max(address.packed) >= SMALL_OCTET and not NUMBERED_BEFORE.search(before)


def _is_private_ipv4(text: str, before: str, after: str) -> bool:
    try:
        address = IPv4Address(text)
    except AddressValueError:
        return False
    is_machine = address.is_private and not (address.is_loopback or address.is_unspecified or address.packed[0] == 255)
    return is_machine and max(address.packed) >= SMALL_OCTET and not NUMBERED_BEFORE.search(before)


def _is_ipv6(text: str, before: str, after: str) -> bool:
    try:
        address = IPv6Address(text)
    except AddressValueError:
        return False
    if address.is_loopback or address.is_unspecified or address.is_multicast or address in DOCUMENTATION:
        return False
    return len(text) > 6 and any(map(str.isdigit, text)) and not NUMBERED_BEFORE.search(before)


def _is_mac(text: str, before: str, after: str) -> bool:
    return "." not in text or any(map(str.isalpha, text))  # 1234.5678.9012 is a number


def _without_punctuation(text: str) -> int:
    """The length of a link without the punctuation of the sentence around it; a bracket that it opens stays."""
    closes = ")" if "(" in text else ""
    end = len(text)
    while end and text[end - 1] in PUNCTUATION and text[end - 1] != closes:
        end -= 1
    return end


HEXADECIMAL = re.compile(r"[:-][0-9A-Fa-f]{2}[:-][0-9A-Fa-f]{2}[:-]|\.[0-9A-Fa-f]{4}\.")
COLONS = re.compile(r":[0-9A-Fa-f]{0,4}:")
IPV4 = re.compile(r"\d(?<![\w.].)\d{0,2}(?:\.\d{1,3}){3}(?!\w|\.\d)")
# What must not stand before is asked after the first character, so that the search can skip to such characters.
CONTACTS = (
    Recogniser(
        "email",
        "EMAIL",
        re.compile(r"(?<![\w.+-])[\w.+%-]{1,64}@(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.){1,8}[^\W\d_]{2,24}\b"),
        "a mailbox and a domain",
        check=_is_email,
        signs=("@",),
        digits=False,
    ),
    Recogniser("ipv4", "IP", IPV4, "a public IPv4 address", check=_is_ipv4, signs=(".",), hint=NUMBER_HINT),
    Recogniser(
        "ipv4-private", "IP", IPV4, "a private IPv4 address", LIKELY, _is_private_ipv4, signs=(".",), broad=True
    ),
    Recogniser(
        "ipv6",
        "IP",
        re.compile(r"(?<![\w:.])(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4}(?![\w:])"),
        "an IPv6 address",
        check=_is_ipv6,
        hint=COLONS,
    ),
    Recogniser(
        "mac",
        "MAC",
        re.compile(
            r"[0-9A-Fa-f](?<![\w:.-].)[0-9A-Fa-f](?:(?P<gap>[:-])(?:[0-9A-Fa-f]{2}(?P=gap)){4}[0-9A-Fa-f]{2}(?![\w:-])"
            r"|[0-9A-Fa-f]{2}\.[0-9A-Fa-f]{4}\.[0-9A-Fa-f]{4}(?![\w.]))"
        ),
        "six pairs of hexadecimal digits",
        check=_is_mac,
        hint=HEXADECIMAL,
    ),
    Recogniser(
        "url",
        "URL",
        re.compile(r"(?<!\w)(?:(?:https?|ftps?)://|www\.)[^\s<>\"`{}|\\^]{2,2000}", re.I),
        "a scheme or www. and an address",
        length=_without_punctuation,
        signs=("://", "www."),
        digits=False,
        broad=True,
    ),
)
