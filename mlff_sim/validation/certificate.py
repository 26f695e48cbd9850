"""The integrator certificate: a fast run against plain Verlet of the same teacher, from identical starts.

A fast run may differ from the slow one in two ways: by its physics, or because two runs of the same physics differ. The
second is the null hypothesis, and its size is known: replicas of the slow run differ among themselves by it. What is
compared is held to a limit with that noise as its error bar, and the slow run is held to the same laws as the fast one;
where it breaks one itself, the teacher is to blame, and nothing is certified.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mlff_sim.errors import InputError
from mlff_sim.forces import Array
from mlff_sim.state import temperature_by_group
from mlff_sim.units import MEV
from mlff_sim.validation.assess import assess
from mlff_sim.validation.assessment import Assessment, Run, RunAssessment, clock, sound
from mlff_sim.validation.methods import Method
from mlff_sim.validation.sampling import student_t
from mlff_sim.validation.timing import blocks, method
from mlff_sim.validation.verdict import Verdict, worst

ALL_PERCENT, ELEMENT_PERCENT = 3.0, 10.0
"""By which temperatures may differ at constant energy; resonance heats an element by more before anything else shows."""
WORDS = {"ended": "it was stopped", "nve": "its energy drifts", "temperature": "its temperatures are wrong"}
"""What a control can fail by."""


@dataclass(frozen=True)
class Difference:
    """A mean of the fast run less that of the slow one, replica by replica from the same start.

    The interval is Student's t over replicas. Trajectories of an isolated molecule share energy among its modes so slowly
    that frames of one, however many, say little: two runs of one physics from the same start differ by tens of K for 20 ps.

    PASS when all of the interval is within the limit, FAIL when all of it is outside; else nothing is judged.

    Attributes:
        name: what is compared.
        unit: of all numbers.
        fast: mean of the fast run over its replicas.
        slow: mean of the slow run over its replicas.
        value: mean difference.
        ci95: its interval.
        limit: of the difference, up or down; None to report without judging.
    """

    name: str
    unit: str
    fast: float
    slow: float
    value: float
    ci95: tuple[float, float]
    limit: float | None

    @property
    def verdict(self) -> Verdict | None:
        """See the class."""
        if self.limit is None:
            return None
        low, high = self.ci95
        if -self.limit <= low and high <= self.limit:
            return Verdict.PASS
        return Verdict.FAIL if low > self.limit or high < -self.limit else None


@dataclass(frozen=True)
class Differences:
    """Means of two runs, compared.

    Attributes:
        items: the comparisons.
        replicas: pairs of trajectories.
    """

    items: tuple[Difference, ...]
    replicas: int

    @property
    def verdict(self) -> Verdict | None:
        """The worst of what is judged."""
        judged = [d.verdict for d in self.items if d.verdict]
        return worst(judged) if judged else None

    @property
    def note(self) -> str:
        """How the intervals were made, and what would make them shorter."""
        said = f"{self.replicas} pairs of trajectories from identical starts; the intervals hold together."
        if any(d.limit is not None and d.verdict is None for d in self.items):
            said += " Not judged where the interval crosses a limit: that takes longer runs or more replicas."
        return said


@dataclass(frozen=True)
class Control:
    """The slow run, held to the laws that the fast one is held to.

    Attributes:
        name: of the slow run.
        parts: what it was held to, and how it came out; drift and temperatures only.
        note: what follows.
    """

    name: str
    parts: dict[str, Verdict | None]
    note: str

    @property
    def verdict(self) -> Verdict | None:
        """A control that fails leaves nothing to compare with; one that passes or cannot tell does not count."""
        failed = Verdict.FAIL in self.parts.values()
        return Verdict.INCONCLUSIVE if failed else None


def difference(name: str, unit: str, fast: Array, slow: Array, limit: float | None, *, together: int = 1) -> Difference:
    """Compare means of replicas, shape (replicas,), of a fast and a slow run from the same starts.

    With `together` comparisons made at once the intervals are those that hold for all of them in 95 of 100 cases
    (Bonferroni).

    Raises:
        ValueError: fewer than two replicas, or pairs that are none.
    """
    a, b = np.asarray(fast, dtype=np.float64), np.asarray(slow, dtype=np.float64)
    if a.ndim != 1 or a.shape != b.shape or len(a) < 2:
        raise ValueError(f"replicas of shapes {a.shape} and {b.shape} are no pairs; give two or more of each.")
    d = a - b
    value, stderr = float(d.mean()), float(d.std(ddof=1)) / float(np.sqrt(len(d)))
    half = student_t(1 - 0.025 / together, len(d) - 1.0) * stderr
    return Difference(name, unit, float(a.mean()), float(b.mean()), value, (value - half, value + half), limit)


def certify(fast: Run, slow: Run, drift_limit: float = 0.1) -> Assessment:
    """Is the fast run the same physics as plain Verlet of its teacher, from identical starts?

    The fast run is judged by everything that applies: the drift of its conserved energy, the temperature of each
    element, the distributions of pair distances, bonds, angles, dihedrals and the density of vibrational states against
    those of the slow run, whose own replicas say how far two seeds differ. Speed is reported.

    Args:
        fast: a hybrid run of two or more replicas.
        slow: a run of its teacher alone, with as many replicas from the same starts.
        drift_limit: meV/atom/ps.

    Returns:
        The assessment of the fast run, with the findings "differences" and "control".

    Raises:
        InputError: the runs are not of one molecule, teacher, ensemble and temperature, or do not start alike.
    """
    _check_pair(fast, slow)
    # A slow run that broke at once (the control says so) is nothing to compare distances with, nor is an atom.
    shaped = sound(slow).sum() > 1 and slow.positions.shape[2] > 1
    study = assess([fast], slow if shaped else None, drift_limit)
    control = assess([slow], None, drift_limit).runs[0]
    judged = study.runs[0]
    findings = dict(judged.findings)
    if judged.temperatures is not None and min(len(k) for k in _kept(fast, slow, judged)) > 1:
        findings["differences"] = _differences(fast, slow, judged)
    findings["control"] = _control(control)
    run = replace(judged, findings=findings)
    notes = tuple(n for n in study.notes if _concerns(n, fast))
    return replace(study, runs=(run,), notes=notes, methods=_methods(fast, slow, run))


def _methods(fast: Run, slow: Run, judged: RunAssessment) -> tuple[Method, ...]:
    """Both runs. Another run of plain Verlet would be off by what sampling alone shows: that is the error of the slow one.

    Its times are those of the blocks that alternated with the fast run's, where there are any: the slow run was made at
    another time, and the machine may have been in another mood.
    """
    if not len(blocks(fast, "hybrid")):
        return ()
    first = method(judged, fast)
    times = next((b for b in (blocks(fast, "baseline"), blocks(slow, "hybrid")) if len(b)), None)
    if times is None:
        return (first,)
    if judged.rdf is None or first.error is None:
        return first, Method(Path(slow.folder).name, times)
    return first, Method(Path(slow.folder).name, times, judged.rdf.noise_percent, first.error_stderr)


def _concerns(note: str, fast: Run) -> bool:
    """Whether something is missing that a certificate of this ensemble could have had."""
    other = "nvt" if fast.settings["ensemble"] == "nve" else "nve"
    return f"add an {other.upper()} run" not in note and "give a reference" not in note


def _kept(fast: Run, slow: Run, judged: RunAssessment) -> list[Any]:
    """Indices of the frames of both runs after equilibration."""
    return [np.flatnonzero(sound(run) & (clock(run) >= judged.cut_ps)) for run in (fast, slow)]


def _differences(fast: Run, slow: Run, judged: RunAssessment) -> Differences:
    """Kinetic temperatures and potential energy; held to limits where no bath says what they should be."""
    from ase.data import chemical_symbols

    structure = fast.settings["structure"]
    masses, numbers = np.asarray(structure["masses"], dtype=np.float64), np.asarray(structure["numbers"])
    groups: dict[str, Any] = {"all": np.arange(len(numbers))}
    groups |= {chemical_symbols[z]: np.flatnonzero(numbers == z) for z in dict.fromkeys(numbers.tolist())}
    nve = fast.settings["ensemble"] == "nve"
    kelvin, energy = [], []
    kept = _kept(fast, slow, judged)
    rows = min(len(k) for k in kept)
    for run, keep in zip((fast, slow), kept, strict=True):
        assert run.momenta is not None and run.potential_energy is not None
        p = run.momenta[keep[:rows]]
        flat = temperature_by_group(
            p.reshape(-1, len(numbers), 3), masses, groups, com_removed=bool(run.settings["com_removed"])
        )
        kelvin.append({name: t.reshape(p.shape[:2]).mean(axis=0) for name, t in flat.items()})
        energy.append(run.potential_energy[keep[:rows]].mean(axis=0) / (MEV * len(numbers)))
    replicas, target = len(energy[0]), float(fast.settings["temperature_K"])
    names = [name for name in kelvin[0] if np.isfinite(kelvin[0][name]).all()]
    count = len(names) + 1
    items = []
    for name in names:
        limit = (ALL_PERCENT if name == "all" else ELEMENT_PERCENT) / 100 * target if nve else None
        what = "kinetic temperature" if name == "all" else f"kinetic temperature of {name}"
        items.append(difference(what, "K", kelvin[0][name], kelvin[1][name], limit, together=count))
    items.append(difference("potential energy", "meV/atom", energy[0], energy[1], None, together=count))
    return Differences(tuple(items), replicas)


def _control(control: RunAssessment) -> Control:
    parts = {name: control.parts[name] for name in ("ended", "nve", "temperature") if control.parts[name] is not None}
    if Verdict.FAIL in parts.values():
        failed = ", ".join(WORDS[name] for name, v in parts.items() if v is Verdict.FAIL)
        note = f"The slow run fails by itself ({failed}): its teacher or time step is at fault, and nothing can be certified against it."
    else:
        note = "The slow run, held to the same laws, breaks none."
    return Control(control.name, parts, note)


def _check_pair(fast: Run, slow: Run) -> None:
    """Refuse what cannot be compared."""
    a, b = fast.settings, slow.settings
    if a.get("kind") != "hybrid" or b.get("kind") != "md":
        raise InputError("a certificate compares a hybrid run with a run of its teacher alone; give these two.")
    for what, x, y in (
        ("ensemble", a["ensemble"], b["ensemble"]),
        ("temperature_K", a["temperature_K"], b["temperature_K"]),
        ("teacher", a["teacher"], b["teacher"]),
        ("hydrogen_mass", a.get("hydrogen_mass"), b.get("hydrogen_mass")),
        ("atoms", a["structure"]["numbers"], b["structure"]["numbers"]),
        ("replicas", fast.positions.shape[1], slow.positions.shape[1]),
    ):
        if x != y:
            raise InputError(f"the runs differ in {what} ({x} and {y}); a certificate compares runs that do not.")
    if fast.positions.shape[1] < 2:
        raise InputError("a certificate needs two replicas or more, five to judge a drift; give --replicas 5.")
    if not np.allclose(fast.positions[0], slow.positions[0], atol=1e-6):
        raise InputError("the runs do not start at the same positions; a certificate compares runs that do.")
