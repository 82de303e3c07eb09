"""How many decimals a currency has: 4900 is 49.00 EUR, 4900 JPY and 4.900 KWD. Source: ISO 4217, list one."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

_NO_DECIMALS: Final = "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF"
_THREE_DECIMALS: Final = "BHD IQD JOD KWD LYD OMR TND"
_FOUR_DECIMALS: Final = "CLF UYW"
_DECIMALS: Final[Mapping[str, int]] = MappingProxyType(
    dict.fromkeys(_NO_DECIMALS.split(), 0)
    | dict.fromkeys(_THREE_DECIMALS.split(), 3)
    | dict.fromkeys(_FOUR_DECIMALS.split(), 4)
)
"""Where they are not two."""


def decimals(currency: str) -> int:
    """
    Digits after the point.

    >>> decimals("EUR"), decimals("JPY"), decimals("KWD")
    (2, 0, 3)
    """
    return _DECIMALS.get(currency.upper(), 2)


__all__ = ["decimals"]
