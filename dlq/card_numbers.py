"""Card numbers in texts: by the first digits and lengths of their issuers, and by their check digit."""

from __future__ import annotations

import re

#: A run of digits, in groups or not, that is neither part of a word nor of a number with a point; or as points group a card's.
_DIGITS = re.compile(
    r"(?:(?<![\w.-])|(?<=\\[nrt]))"
    r"(?:\d(?:[ -]?\d){12,}+(?:(?=\.0++(?!\w))|(?!\w|[.-]\w))"
    r"|\d{4}\.(?:\d{4}\.\d{4}\.\d{1,4}|\d{6}\.\d{4,5})(?!\w|[.-]\w))"
)
_GROUP = re.compile(r"\d+")
#: First digits and lengths of the cards of Visa, Mastercard, American Express, Diners, JCB, Discover, UnionPay, Maestro.
_ISSUED = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})|(?:5[1-5]\d\d|222[1-9]|22[3-9]\d|2[3-6]\d\d|27[01]\d|2720)\d{12}|3[47]\d{13}"
    r"|3(?:0[0-59]|[68]\d)\d{11,16}|35\d{14,17}|6\d{15,18}|5[06-8]\d{11,17}"
)
_LENGTHS = range(13, 20)
#: Each digit -> the sum of the digits of its double.
_DOUBLED = str.maketrans("0123456789", "0246813579")


def masked_cards(text: str, mask: str) -> str:
    """`text` with `mask` in the place of each card number."""
    return _DIGITS.sub(lambda match: _without_cards(match[0], mask), text)


def is_card(digits: str) -> bool:
    """An issuer's first digits and length, and the Luhn check, which spares nine in ten numbers that are no card's."""
    if len(digits) not in _LENGTHS or not _ISSUED.fullmatch(digits):
        return False
    return sum(map(int, digits[-1::-2] + digits[-2::-2].translate(_DOUBLED))) % 10 == 0


def _without_cards(run: str, mask: str) -> str:
    """`run` without the card numbers in it: several groups of digits may stand side by side."""
    groups = list(_GROUP.finditer(run))
    shown, end, first = "", 0, 0
    while first < len(groups):
        digits, card = "", 0
        for last in range(first, len(groups)):
            digits += groups[last][0]
            if len(digits) > _LENGTHS[-1]:
                break
            if is_card(digits):
                card = last + 1
        if card:
            shown += run[end : groups[first].start()] + mask
            end, first = groups[card - 1].end(), card
        else:
            first += 1
    return shown + run[end:]
