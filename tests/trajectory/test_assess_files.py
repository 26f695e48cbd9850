"""Files made elsewhere, judged: planted faults fail, clean twins pass, and what files lack is said to be unjudged."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase import units
from files import KJ, Truth, springs, write_csv, write_dcd, write_extxyz, write_hdf5, write_pdb

from mlff_sim.errors import InputError
from mlff_sim.structure import read_structure
from mlff_sim.trajectory import ReadOptions, read_files
from mlff_sim.validation import Verdict, assess, reference_of

NVT = ReadOptions(ensemble="nvt", temperature_K=300.0)


def samples(frames: int = 3000, kelvin: float = 300.0, hydrogen_K: float | None = None, seed: int = 0) -> Truth:
    """Independent samples of a canonical ensemble: springs to fixed places, Maxwell's momenta."""
    atoms = read_structure("ethanol")
    rng, m = np.random.default_rng(seed), atoms.get_masses()[:, None]
    kt = units.kB * np.where(atoms.numbers[:, None] == 1, hydrogen_K or kelvin, kelvin)
    x = atoms.positions + 0.05 * rng.normal(size=(frames, 9, 3))
    p = np.sqrt(kt * m) * rng.normal(size=(frames, 9, 3))
    kinetic = (p**2 / m).sum((1, 2)) / 2
    return Truth(atoms, np.arange(frames) * 0.05, x, p, -4000.0 + rng.normal(size=frames), kinetic)


def parts(*files: Path, options: ReadOptions = NVT) -> tuple[dict[str, Verdict | None], str]:
    run = assess([read_files(files, options)]).runs[0]
    return run.parts, " ".join(run.notes)


@pytest.mark.parametrize("seed", range(3))
def test_temperature(seed: int, tmp_path: Path) -> None:
    """3000 frames tell 10 % of an element and 3 % of all: 3 sigma are 1.5 % and 3.3 % of hydrogens at most."""
    for planted, verdict in (
        (samples(seed=seed), Verdict.PASS),
        (samples(kelvin=310.0, seed=seed), Verdict.FAIL),
        (samples(hydrogen_K=315.0, seed=seed), Verdict.FAIL),
    ):
        write_hdf5(planted, tmp_path / "a.h5")
        found, _ = parts(tmp_path / "a.h5")
        assert found["temperature"] is verdict
        # White noise has no time between frames, and that alone leaves nothing undecided.
        assert "spacing" not in found


def test_energy(tmp_path: Path) -> None:
    """Conserved to 1e-4 by velocity Verlet; 1 meV/atom/ps more fails. Without the ensemble neither is said."""
    clean = [springs(frames=2000, seed=s) for s in range(5)]
    for drift, verdict in ((0.0, Verdict.PASS), (1e-3 * 9, Verdict.FAIL)):
        files = []
        for k, truth in enumerate(clean):
            files.append(tmp_path / f"{k}.h5")
            write_hdf5(replace(truth, potential=truth.potential + 4000.0 + drift * truth.time_ps), files[-1])
        found, notes = parts(*files, options=ReadOptions(ensemble="nve"))
        assert found["nve"] is verdict
        assert found["spacing"] is Verdict.PASS
        assert found["kinetic"] is Verdict.PASS
        assert "5 files of the same atoms" in notes
    found, notes = parts(*files, options=ReadOptions())
    assert found["nve"] is found["temperature"] is None
    assert "do not say whether a bath was at work" in notes


def test_kinetic_energies_of_another_file(tmp_path: Path) -> None:
    truth = springs(frames=100)
    write_hdf5(truth, tmp_path / "a.h5")
    for factor, verdict in ((1.0, Verdict.PASS), (0.5, Verdict.FAIL), (units.kcal / units.kJ, Verdict.FAIL)):
        names = {"Time (ps)": truth.time_ps, "Kinetic Energy (kJ/mole)": factor * truth.kinetic / KJ}
        write_csv(truth, tmp_path / "a.csv", names)
        assert parts(tmp_path / "a.h5", tmp_path / "a.csv")[0]["kinetic"] is verdict


def test_no_velocities(tmp_path: Path) -> None:
    """Structure can be judged by positions and times alone."""
    write_hdf5(samples(12_000, seed=7), tmp_path / "r.h5")
    reference = reference_of(read_files([tmp_path / "r.h5"], NVT))
    for shift, verdict in ((0.0, Verdict.PASS), (0.1, Verdict.FAIL)):
        truth = samples(12_000, seed=8)
        truth.positions[:, truth.atoms.numbers == 8] += [shift, shift, 0.0]
        write_dcd(truth, tmp_path / "a.dcd")
        write_pdb(truth, tmp_path / "a.pdb")
        judged = assess([read_files([tmp_path / "a.dcd", tmp_path / "a.pdb"], NVT)], reference).runs[0]
        assert judged.parts["rdf"] is verdict
        assert judged.temperatures is None
        assert "Temperature was not judged: the files hold no velocities." in judged.notes


def _extxyz(truth: Truth, path: Path) -> Path:
    write_extxyz(truth, path)
    return path


def test_periodic_structure_is_judged_by_g_of_r(tmp_path: Path) -> None:
    """In a cell distances are those of nearest images, and a molecule is no reference for it."""

    def made(frames: int, seed: int, name: str, cell: float | None = 12.0, shift: float = 0.0) -> Path:
        truth = samples(frames, seed=seed)
        truth.positions[:, truth.atoms.numbers == 8] += [shift, shift, 0.0]
        return _extxyz(truth if cell is None else replace(truth, cell=np.diag([cell] * 3)), tmp_path / name)

    reference = read_files([made(3000, 7, "r.extxyz")], NVT)
    for shift in (0.0, 0.2):
        run = read_files([made(3000, 8, "a.extxyz", shift=shift)], NVT)
        assert run.cells is not None
        judged = assess([run], reference).runs[0]
        assert judged.rdf is not None and "geometry" not in judged.parts
        # One molecule in a box has few neighbours to count: sampling alone shows more than the limit.
        assert (judged.parts["rdf"] is Verdict.FAIL) == (shift > 0)
        assert (judged.rdf.error_percent < 2 * judged.rdf.noise_percent) == (shift == 0)
    with pytest.raises(InputError, match="one of the two has a cell"):
        assess([run], read_files([made(60, 9, "b.extxyz", None)], NVT))


def test_what_is_held_is_not_judged(tmp_path: Path) -> None:
    """Rigid O-H bonds, and atoms that stand still: a count of three degrees of freedom each would fail a sound run."""
    truth = samples(frames=400)
    o, h = 2, next(i for i in range(9) if truth.atoms.numbers[i] == 1 and truth.atoms.get_distance(2, i) < 1.2)
    m, p = truth.atoms.get_masses(), truth.momenta.copy()
    axis = truth.positions[:, h] - truth.positions[:, o]
    axis /= np.linalg.norm(axis, axis=-1, keepdims=True)
    approach = ((p[:, h] / m[h] - p[:, o] / m[o]) * axis).sum(-1, keepdims=True)
    reduced = m[h] * m[o] / (m[h] + m[o])
    p[:, h] -= reduced * approach * axis
    p[:, o] += reduced * approach * axis
    found, notes = parts(_extxyz(replace(truth, momenta=p), tmp_path / "a.extxyz"))
    assert found["temperature"] is None
    assert "1 bonds are held at their lengths" in notes
    p = truth.momenta.copy()
    p[:, :2] = 0.0
    found, notes = parts(_extxyz(replace(truth, momenta=p), tmp_path / "a.extxyz"))
    assert found["temperature"] is None
    assert "2 atoms stand still" in notes
    assert parts(_extxyz(truth, tmp_path / "a.extxyz"))[0]["temperature"] is not None


def test_the_centre_of_mass_is_seen_to_be_at_rest(tmp_path: Path) -> None:
    truth = samples(frames=50)
    m = truth.atoms.get_masses()[:, None]
    still = truth.momenta - m * truth.momenta.sum(1, keepdims=True) / m.sum()
    for momenta, expected in ((truth.momenta, False), (still, True)):
        run = read_files([_extxyz(replace(truth, momenta=momenta), tmp_path / "a.extxyz")])
        assert run.settings["com_removed"] is expected
