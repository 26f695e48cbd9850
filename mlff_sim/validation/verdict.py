"""Three words every validator answers in."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum


class Verdict(StrEnum):
    """What the data say about a claim.

    INCONCLUSIVE is an answer too: the run was too short to tell, and the result says what would settle it.
    """

    PASS = "pass"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"


def worst(verdicts: Iterable[Verdict | None]) -> Verdict:
    """Fail over inconclusive over pass; `None` (not judged) is skipped, and nothing judged is inconclusive."""
    judged = {v for v in verdicts if v is not None}
    for verdict in (Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.PASS):
        if verdict in judged:
            return verdict
    return Verdict.INCONCLUSIVE
