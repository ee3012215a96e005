"""The exception tree of the engine.

    LaotieError                  exit 1   anything the engine raises on purpose
    ├── ConfigError              exit 2   a setting or an argument is wrong
    ├── InputRefused             exit 3   a table, file or bundle given as input cannot be used
    │   └── BundleRefused        exit 3   a bundle is missing, broken, of an unknown format, or its hashes differ
    └── GateFailed               exit 4   a finished bundle did not pass a gate and was not published

Every message answers five questions: what is wrong, where, what was got, what was expected, and what to do.
"""

from __future__ import annotations


class LaotieError(Exception):
    """Base of all errors raised on purpose.

    Args:
        what: the fault in a few words.
        where: file, table, column, setting or command.
        got: what was found there.
        expected: what would have been right.
        hint: what the reader can do about it.
    """

    exit_code = 1

    def __init__(
        self, what: str, *, where: object = None, got: object = None, expected: object = None, hint: str | None = None
    ) -> None:
        self.what, self.where, self.got, self.expected, self.hint = what, where, got, expected, hint
        parts = [what]
        if where is not None:
            parts.append(f"where: {where}")
        if got is not None:
            parts.append(f"got: {got}")
        if expected is not None:
            parts.append(f"expected: {expected}")
        if hint is not None:
            parts.append(f"hint: {hint}")
        super().__init__("; ".join(parts))


class ConfigError(LaotieError):
    """A setting, option or argument is unusable."""

    exit_code = 2


class InputRefused(LaotieError):
    """An input cannot be read or lacks something required; nothing was changed."""

    exit_code = 3


class BundleRefused(InputRefused):
    """A bundle cannot be loaded; whatever was served before is still served."""


class GateFailed(LaotieError):
    """A bundle was built but a gate refused it; `CURRENT` still points to the old one."""

    exit_code = 4
