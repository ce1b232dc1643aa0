"""What is logged: one logger, ``layermelt``, and its paths as fields of the record."""

from __future__ import annotations

import logging
from typing import Any

__all__ = ["LOGGER", "info", "warning"]

LOGGER = logging.getLogger("layermelt")
# A library is silent unless its user wants to hear it.
LOGGER.addHandler(logging.NullHandler())


def info(message: str, **fields: Any) -> None:
    """Logs a step; the fields are attributes of the record, and behind the message for people."""
    _log(logging.INFO, message, fields)


def warning(message: str, **fields: Any) -> None:
    """Logs what somebody should look at."""
    _log(logging.WARNING, message, fields)


def _log(level: int, message: str, fields: dict[str, Any]) -> None:
    if LOGGER.isEnabledFor(level):
        LOGGER.log(level, message, extra=fields, stacklevel=3)
