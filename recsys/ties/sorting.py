"""Sorting rows by key: position packed beside the key, so that numbers are sorted and not positions."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from recsys.ties.algebra import Ints

_HIGH = 32
_LOW = 2**_HIGH - 1


def sorted_by_key(key: Ints) -> tuple[Ints, npt.NDArray[np.intp]]:
    """`key` (n,) ≥ 0 ascending, and where each stood before; equal keys keep their order.

    Numpy sorts int64 with the processor's vector instructions, several times faster than it finds an order; so key and
    position go into one number if they fit: the key's halves (user and host of a tie) above their smallest values, and
    the position below them.
    """
    if not len(key):
        return key, np.empty(0, dtype=np.intp)
    high, low = key >> _HIGH, key & _LOW
    least = int(high.min())
    n_high, n_low, n_at = (int(most).bit_length() for most in (high.max() - least, low.max(), len(key) - 1))
    if n_high + n_low + n_at > 63:
        order = np.argsort(key, kind="stable")
        return key[order], order
    high -= least
    high <<= n_low
    high |= low
    high <<= n_at
    high |= np.arange(len(key))
    high.sort()
    order = high & ((1 << n_at) - 1)
    high >>= n_at
    np.bitwise_and(high, (1 << n_low) - 1, out=low)
    high >>= n_low
    high += least
    high <<= _HIGH
    high |= low
    return high, order
