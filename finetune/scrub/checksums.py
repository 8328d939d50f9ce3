"""The check digits and checksums of identifiers; each function takes the identifier without separators."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
BECH32 = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
BECH32_CONSTANTS = frozenset((1, 0x2BC830A3))  # BIP 173 and BIP 350
BECH32_GENERATORS = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)  # BIP 173
BITCOIN_VERSIONS = frozenset((0x00, 0x05))  # P2PKH and P2SH on the main network
# Lengths from the IBAN registry (ISO 13616), so that a word after the number is not read as part of it.
IBAN_LENGTHS = {
    **dict.fromkeys(["NO"], 15),
    **dict.fromkeys(["BE"], 16),
    **dict.fromkeys(["DK", "FI", "FO", "GL", "NL"], 18),
    **dict.fromkeys(["MK", "SI"], 19),
    **dict.fromkeys(["AT", "BA", "EE", "KZ", "LT", "LU", "XK"], 20),
    **dict.fromkeys(["CH", "HR", "LI", "LV"], 21),
    **dict.fromkeys(["BG", "BH", "CR", "DE", "GB", "GE", "IE", "ME", "RS"], 22),
    **dict.fromkeys(["AE", "GI", "IL", "IQ"], 23),
    **dict.fromkeys(["AD", "CZ", "ES", "MD", "PK", "RO", "SA", "SE", "SK", "TN"], 24),
    **dict.fromkeys(["PT", "ST"], 25),
    **dict.fromkeys(["IS", "TR"], 26),
    **dict.fromkeys(["FR", "GR", "IT", "MC", "SM"], 27),
    **dict.fromkeys(["AL", "AZ", "BY", "CY", "DO", "GT", "HU", "LB", "PL", "SV"], 28),
    **dict.fromkeys(["BR", "EG", "QA", "UA"], 29),
    **dict.fromkeys(["JO", "KW", "MU"], 30),
    **dict.fromkeys(["MT", "SC"], 31),
}
VIN_GROUPS = "0 1AJ 2BKS 3CLT 4DMU 5ENV 6FW 7GPX 8HY 9RZ".split()
VIN_VALUES = {char: value for value, chars in enumerate(VIN_GROUPS) for char in chars}
VIN_WEIGHTS = (8, 7, 6, 5, 4, 3, 2, 10, 0, 9, 8, 7, 6, 5, 4, 3, 2)  # 49 CFR 565.15
VERHOEFF_PERMUTATION = (1, 5, 7, 6, 2, 8, 3, 0, 9, 4)
CODICE_ODD = (1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23)


def luhn(digits: str) -> bool:
    """Whether the last digit is right (ISO/IEC 7812-1, annex B): cards, IMEI, Canadian and Swedish numbers."""
    doubled = (int(digit) * (2 if position % 2 else 1) for position, digit in enumerate(reversed(digits)))
    return sum(value - 9 if value > 9 else value for value in doubled) % 10 == 0


def weighted(digits: str, weights: Sequence[int]) -> int:
    """The sum of the digits, each times its weight."""
    return sum(int(digit) * weight for digit, weight in zip(digits, weights, strict=False))


def iban(text: str) -> bool:
    """Whether length and check digits are right (ISO 13616, ISO 7064 MOD 97-10)."""
    text = text.upper()
    if IBAN_LENGTHS.get(text[:2]) != len(text):
        return False
    return int("".join(str(int(char, 36)) for char in text[4:] + text[:4])) % 97 == 1


def mod_11_10(digits: str) -> bool:
    """Whether the last digit is right in the hybrid system of ISO 7064: German tax and VAT numbers."""
    product = 10
    for digit in digits[:-1]:
        product = ((int(digit) + product) % 10 or 10) * 2 % 11
    return (11 - product) % 10 == int(digits[-1])


def routing(digits: str) -> bool:
    """Whether nine digits are a routing number of the American Bankers Association: a used range, weights 3, 7, 1."""
    prefix = int(digits[:2])
    in_use = prefix <= 12 or 21 <= prefix <= 32 or 61 <= prefix <= 72 or prefix == 80
    return in_use and any(map(int, digits)) and weighted(digits, (3, 7, 1) * 3) % 10 == 0


def vin(text: str) -> bool:
    """Whether 17 characters have the check digit of North American vehicles at their ninth place (49 CFR 565.15)."""
    total = sum(VIN_VALUES[char] * weight for char, weight in zip(text, VIN_WEIGHTS, strict=True))
    return "0123456789X"[total % 11] == text[8]


def verhoeff(digits: str) -> bool:
    """Whether the last digit is right (Verhoeff 1969): Indian Aadhaar numbers."""
    check, permuted = 0, tuple(range(10))
    for digit in reversed(digits):
        check = _dihedral(check, permuted[int(digit)])
        permuted = tuple(VERHOEFF_PERMUTATION[each] for each in permuted)
    return check == 0


def _dihedral(left: int, right: int) -> int:
    """The product in the dihedral group of order 10."""
    if left < 5:
        return (left + right) % 5 + (5 if right >= 5 else 0)
    return (left - right) % 5 + (0 if right >= 5 else 5)


def codice_fiscale(text: str) -> bool:
    """Whether the last of 16 letters and digits is right (Italy, D.M. 23 December 1976)."""
    places = [int(char) if char.isdigit() else ord(char) - 65 for char in text[:15]]
    total = sum(place if number % 2 else CODICE_ODD[place] for number, place in enumerate(places))
    return chr(total % 26 + 65) == text[15]


def base58check(text: str) -> bool:
    """Whether a Bitcoin address ends with the start of the double SHA-256 of the rest, as Bitcoin's wiki describes."""
    number = 0
    for char in text:
        number = number * 58 + BASE58.index(char)
    if number >= 1 << 200:
        return False
    data = number.to_bytes(25)
    return data[0] in BITCOIN_VERSIONS and hashlib.sha256(hashlib.sha256(data[:21]).digest()).digest()[:4] == data[21:]


def bech32(text: str) -> bool:
    """Whether a Bitcoin address of SegWit has the checksum of BIP 173 or BIP 350."""
    human, _, data = text.lower().rpartition("1")
    values = [ord(char) >> 5 for char in human] + [0] + [ord(char) & 31 for char in human]
    check = 1
    for value in values + [BECH32.find(char) for char in data]:
        top = check >> 25
        check = (check & 0x1FFFFFF) << 5 ^ value
        for bit, generator in enumerate(BECH32_GENERATORS):
            check ^= generator if top >> bit & 1 else 0
    return check in BECH32_CONSTANTS


def ethereum(text: str) -> bool:
    """Whether the case of the letters of `0x` and 40 hexadecimal digits is the checksum of EIP-55, or there is one case."""
    digits = text[2:]
    if digits in (digits.lower(), digits.upper()):
        return True
    nibbles = keccak_256(digits.lower().encode()).hex()
    return all(
        char.isdigit() or char.isupper() == (int(nibble, 16) > 7) for char, nibble in zip(digits, nibbles, strict=False)
    )


KECCAK_ROTATIONS = (
    (0, 36, 3, 41, 18),
    (1, 44, 10, 45, 2),
    (62, 6, 43, 15, 61),
    (28, 55, 25, 21, 56),
    (27, 20, 39, 8, 14),
)  # FIPS 202, table 2, by x and y
MASK = (1 << 64) - 1


def keccak_256(data: bytes) -> bytes:
    """The Keccak hash that Ethereum uses: SHA3-256 before FIPS 202 changed its padding; for less than 136 bytes."""
    block = bytearray(data.ljust(136, b"\0"))
    block[len(data)] ^= 0x01
    block[-1] ^= 0x80
    lanes = [[0] * 5 for _ in range(5)]
    for number in range(17):
        lanes[number % 5][number // 5] = int.from_bytes(block[8 * number : 8 * number + 8], "little")
    register = 1
    for _ in range(24):
        lanes = _permute(lanes)
        for bit in range(7):  # the constant of the round, from a linear feedback shift register
            register = (register << 1 ^ (register >> 7) * 0x71) % 256
            lanes[0][0] ^= (1 << (1 << bit) - 1) if register & 2 else 0
    return b"".join(lanes[number][0].to_bytes(8, "little") for number in range(4))


def _permute(lanes: list[list[int]]) -> list[list[int]]:
    """The steps θ, ρ, π and χ of Keccak-f[1600] (FIPS 202, 3.2)."""
    columns = [a ^ b ^ c ^ d ^ e for a, b, c, d, e in lanes]
    moved = [[0] * 5 for _ in range(5)]
    for x in range(5):
        effect = columns[x - 1] ^ _rotate(columns[(x + 1) % 5], 1)
        for y in range(5):
            moved[y][(2 * x + 3 * y) % 5] = _rotate(lanes[x][y] ^ effect, KECCAK_ROTATIONS[x][y])
    return [[moved[x][y] ^ (~moved[(x + 1) % 5][y] & moved[(x + 2) % 5][y]) for y in range(5)] for x in range(5)]


def _rotate(lane: int, count: int) -> int:
    return (lane << count | lane >> (64 - count)) & MASK
