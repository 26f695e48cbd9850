"""The two ways a user's job can end early: a mistake in the input, or a run that the guards stopped."""

from __future__ import annotations


class InputError(ValueError):
    """Something the caller gave cannot be used. One line: what was given, what is allowed, what to do.

    The command line prints it without a traceback and exits with code 2.
    """


class MissingExtra(InputError):
    """An optional dependency is not installed; the message names the extra that brings it."""

    def __init__(self, what: str, extra: str) -> None:
        """Name what was asked for and the extra of this package that installs it."""
        super().__init__(f"{what} needs an optional package; install it with: pip install 'mlff-sim[{extra}]'")


class NonFinite(ArithmeticError):
    """Positions or forces are no longer numbers.

    Attributes:
        what: "positions" or "forces".
        replica, atom: the first offender, from 0.
    """

    def __init__(self, what: str, replica: int, atom: int) -> None:
        """Keep the facts."""
        super().__init__(f"{what} of atom {atom} in replica {replica} are not finite")
        self.what, self.replica, self.atom = what, replica, atom


class SimulationStopped(RuntimeError):
    """A guard ended a run that had left physics behind. The command line exits with code 1.

    Attributes:
        rule: name of the rule that was broken, e.g. "finite forces".
        step: outer step at which it was noticed.
        replica: index of the replica, from 0.
        atom: index of the offending atom, from 0, in the order of the structure file.
        measure: value, limit and their unit, where the rule has some.
    """

    def __init__(
        self,
        rule: str,
        step: int,
        replica: int,
        atom: int,
        detail: str,
        measure: tuple[float, float, str] | None = None,
    ) -> None:
        """Keep the facts as attributes and say them in one line."""
        super().__init__(f"stopped at outer step {step}: {rule} (replica {replica}, atom {atom}): {detail}")
        self.rule, self.step, self.replica, self.atom, self.detail = rule, step, replica, atom, detail
        self.measure = measure
