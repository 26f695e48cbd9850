"""Files that are cut, mixed up or of the wrong kind: one line that helps, or fewer frames and a note; never a traceback."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.io import write
from ase.io.trajectory import Trajectory
from files import (
    KJ,
    WRITERS,
    Truth,
    frames_of,
    springs,
    write_all,
    write_csv,
    write_dcd,
    write_extxyz,
    write_hdf5,
    write_lammps,
    write_pdb,
    write_traj,
    write_xtc,
)

from mlff_sim.errors import InputError
from mlff_sim.trajectory import ReadOptions, read_files
from mlff_sim.validation import Verdict, assess

NVE = ReadOptions(ensemble="nve")


@pytest.fixture(scope="module")
def truth() -> Truth:
    return springs(frames=12)


def refused(*paths: Path, match: str, options: ReadOptions = NVE) -> None:
    """One line, which names a file or an option."""
    with pytest.raises(InputError, match=match) as caught:
        read_files(paths, options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", WRITERS)
def test_cut_at_any_byte(name: str, truth: Truth, tmp_path: Path) -> None:
    """What is read is what was written, up to the cut, and is said to be cut; or the file is refused in one line."""
    files = write_all(truth, tmp_path, name)
    data = files[0].read_bytes()
    whole = read_files(files)
    seen: set[int] = set()
    for cut in sorted({*range(0, len(data), (len(data) // 400) | 1), *range(len(data) - 9, len(data))}):
        files[0].write_bytes(data[:cut])
        try:
            run = read_files(files, NVE)
        except InputError as error:
            assert "\n" not in str(error)
            assert name in str(error)
            continue
        rows = len(run.positions)
        np.testing.assert_array_equal(run.positions, whole.positions[:rows])
        if run.momenta is not None:
            assert whole.momenta is not None
            np.testing.assert_array_equal(run.momenta, whole.momenta[:rows])
        boundary = name.endswith((".extxyz", ".dump", ".xtc")) and not run.settings["notes"]
        assert boundary or rows == 12 or any("truncated" in n for n in run.settings["notes"]), cut
        if boundary and rows < 12:  # cut between two frames, which nothing shows
            assert data[cut:].startswith((b"9\n", b"ITEM: T", b"\x00\x00\x07\xcb"))
        if rows not in seen:
            seen.add(rows)
            assess([run])
    assert not seen if name == "run.h5" else len(seen) >= 3


@pytest.mark.parametrize("name", sorted(WRITERS.keys() - {"run.xtc"}))
def test_damaged_anywhere(name: str, truth: Truth, tmp_path: Path) -> None:
    """A byte changed, a bit turned or some bytes lost: read, or refused in one line.

    Not for XTC: MDTraj's decompression writes beyond its memory where sizes within a frame are damaged.
    """
    file = write_all(truth, tmp_path, name)[0]
    files = [file, *sorted(tmp_path.glob("[!r]*"))]
    data, rng = file.read_bytes(), np.random.default_rng(0)
    for k in range(60):
        bad = bytearray(data)
        at = int(rng.integers(len(data) if k % 2 else min(len(data), 600)))
        if k % 3 == 0:
            bad[at] = int(rng.integers(256))
        elif k % 3 == 1:
            bad[at] ^= 1 << int(rng.integers(8))
        else:
            del bad[at : at + int(rng.integers(1, 9))]
        file.write_bytes(bad)
        try:
            assess([read_files(files, NVE)])
        except InputError as error:
            assert "\n" not in str(error)


@pytest.mark.parametrize("name", WRITERS)
def test_no_frames(name: str, truth: Truth, tmp_path: Path) -> None:
    files = write_all(truth, tmp_path, name)
    files[0].write_bytes(b"")
    refused(*files, match=f"{name}' is empty")
    files[0].write_bytes(bytes(range(256)) * 4)
    refused(*files, match=name)
    files[0].write_text("these are words\nand no frames\n")
    refused(*files, match=name)


@pytest.mark.parametrize("frames", [1, 2])
@pytest.mark.parametrize("name", WRITERS)
def test_too_few_frames_to_judge(name: str, frames: int, truth: Truth, tmp_path: Path) -> None:
    some = replace(truth, **{k: getattr(truth, k)[:frames] for k in ("positions", "momenta", "potential", "kinetic")})
    if frames == 1 and name == "run.dcd":
        some = replace(some, time_ps=truth.time_ps[:2])  # its writer needs the spacing
        write_pdb(some, tmp_path / "top.pdb")
        write_dcd(replace(some, time_ps=truth.time_ps[:2]), tmp_path / name)
        data = bytearray((tmp_path / name).read_bytes())
        data[8] = 1
        (tmp_path / name).write_bytes(data)
        files = [tmp_path / name, tmp_path / "top.pdb"]
    else:
        files = write_all(replace(some, time_ps=truth.time_ps[:frames]), tmp_path, name)
    for options in (NVE, ReadOptions(ensemble="nvt", temperature_K=300.0), ReadOptions()):
        run = read_files(files, options)
        assert len(run.positions) == frames
        assert assess([run]).verdict is Verdict.INCONCLUSIVE


def test_frames_that_are_not_numbers(truth: Truth, tmp_path: Path) -> None:
    """Those before are used, and nothing is passed."""
    x = truth.positions.copy()
    x[7, 3, 1] = np.nan
    broken = replace(truth, positions=x)
    for name in WRITERS:
        files = write_all(broken, tmp_path, name)
        if name == "run.xtc":  # its numbers end at 2e9, and nan with them
            continue
        run = read_files(files, NVE)
        assert len(run.positions) == 7
        assert "breaks at frame 7: the position of atom 3" in " ".join(run.settings["notes"])
        judged = assess([run])
        assert judged.verdict is not Verdict.PASS
        assert judged.runs[0].ended is Verdict.INCONCLUSIVE
    x[0, 0, 0] = np.inf
    write_extxyz(broken, tmp_path / "run.extxyz")
    refused(tmp_path / "run.extxyz", match="first frame is not a finite number")
    write_extxyz(truth, tmp_path / "run.extxyz")
    write_csv(replace(truth, potential=np.where(np.arange(12) == 5, np.nan, truth.potential)), tmp_path / "state.csv")
    run = read_files([tmp_path / "run.extxyz", tmp_path / "state.csv"], NVE)
    assert len(run.positions) == 5
    assert "potential energy is not a finite number" in " ".join(run.settings["notes"])


def test_other_atoms(truth: Truth, tmp_path: Path) -> None:
    """Within a file, between files, and between trajectory and topology."""
    other = Atoms("C2OH5F", truth.positions[0])
    fewer = Atoms("C2OH5", truth.positions[0, :8])
    for writer in ("a.extxyz", "a.traj"):
        for stranger, what in ((other, "another element"), (fewer, "has 8 atoms and the first has 9")):
            images = [*frames_of(truth), stranger]
            if writer == "a.traj":
                with Trajectory(tmp_path / writer, "w") as file:
                    for a in images:
                        file.write(a)
            else:
                write(tmp_path / writer, images, format="extxyz")
            refused(tmp_path / writer, match=what)
    write_extxyz(truth, tmp_path / "b.extxyz")
    for stranger in (other, fewer):
        write(tmp_path / "c.extxyz", [stranger], format="extxyz")
        refused(tmp_path / "b.extxyz", tmp_path / "c.extxyz", match="one system at a time")
    write_dcd(truth, tmp_path / "d.dcd")
    write_xtc(truth, tmp_path / "d.xtc")
    (tmp_path / "top.pdb").write_text(
        "HETATM    1 C    ETH A   1       0.000   0.000   0.000  1.00  0.00           C\nEND\n"
    )
    for name in ("d.dcd", "d.xtc"):
        refused(tmp_path / name, tmp_path / "top.pdb", match="has 9 atoms and the topology")
        refused(tmp_path / name, match="add a PDB")
    refused(tmp_path / "top.pdb", match="no trajectory among the files")


def test_tables(truth: Truth, tmp_path: Path) -> None:
    write_dcd(truth, tmp_path / "a.dcd")
    write_pdb(truth, tmp_path / "top.pdb")
    table, files = tmp_path / "state.csv", (tmp_path / "a.dcd", tmp_path / "top.pdb", tmp_path / "state.csv")
    energy, more = truth.potential / KJ, np.zeros(12)
    for columns, match in (
        ({"Time": truth.time_ps, "Potential Energy": energy}, "no unit in the columns Time, Potential Energy"),
        ({"Time (ps)": truth.time_ps, "Potential Energy (furlong)": energy}, "unit of 'Potential Energy .furlong.'"),
        ({"Step": np.arange(12), "Speed (ns/day)": more}, "no column of time or energy"),
        ({"Time (ps)": truth.time_ps[::-1], "Potential Energy (kJ/mole)": energy}, "do not increase"),
        ({"Time (ps)": 7.0 + truth.time_ps, "Potential Energy (kJ/mole)": energy}, "no row for the frame at 0 ps"),
    ):
        write_csv(truth, table, columns)
        refused(*files, match=match)
    table.write_text("0.1,2.3\n0.2,2.4\n")
    refused(*files, match="no column of time or energy")
    table.write_text('#"Time (ps)","Potential Energy (kJ/mole)"\n')
    refused(*files, match="holds no complete row")
    table.write_text('#"Time (ps)","Potential Energy (kJ/mole)"\n0.0,--\n')
    refused(*files, match="line 2 has not the 2 numbers")
    write_csv(truth, table)
    refused(*files, table.rename(tmp_path / "other.csv"), match="does not exist")


def test_a_table_of_more_rows_is_matched_by_time(truth: Truth, tmp_path: Path) -> None:
    write_csv(truth, tmp_path / "state.csv")
    every = slice(None, None, 3)
    rare = Truth(
        truth.atoms, *(getattr(truth, k)[every] for k in ("time_ps", "positions", "momenta", "potential", "kinetic"))
    )
    write_pdb(truth, tmp_path / "top.pdb")
    write_xtc(rare, tmp_path / "a.xtc")
    run = read_files([tmp_path / n for n in ("a.xtc", "top.pdb", "state.csv")], NVE)
    assert run.conserved is not None
    np.testing.assert_allclose(run.conserved[:, 0], rare.potential + rare.kinetic, rtol=1e-12)
    write_csv(truth, tmp_path / "state.csv", {"Potential Energy (kJ/mole)": truth.potential / KJ})
    refused(
        *(tmp_path / n for n in ("a.xtc", "top.pdb", "state.csv")), match="12 rows, which is not the number of frames"
    )


def test_times(truth: Truth, tmp_path: Path) -> None:
    """A time without a unit is not used; one that repeats is refused; one that is given wins and is said to."""
    path = tmp_path / "a.extxyz"
    images = frames_of(truth)
    for a, t in zip(images, truth.time_ps, strict=True):
        a.info = {"time": 1e3 * t}
    write(path, images, format="extxyz")
    run = read_files([path], NVE)
    assert run.time_ps is None
    notes = assess([run]).runs[0].notes
    assert any("without a unit" in n for n in notes)
    assert any("drift was not judged: the files hold no times" in n for n in notes)
    given = read_files([path], ReadOptions(ensemble="nve", frame_ps=0.001))
    np.testing.assert_allclose(given.time_ps, truth.time_ps, atol=1e-15)
    write_extxyz(truth, path)
    doubled = read_files([path], ReadOptions(ensemble="nve", frame_ps=0.002))
    assert any("0.001 ps between frames; 0.002 was given" in n for n in doubled.settings["notes"])
    assert assess([doubled]).runs[0].parts["spacing"] is Verdict.FAIL
    assert assess([read_files([path], NVE)]).runs[0].parts["spacing"] is Verdict.PASS
    write(path, [*frames_of(truth), *frames_of(truth)], format="extxyz")
    refused(path, match="times do not increase: frame 12")
    uneven = replace(truth, time_ps=truth.time_ps * (1.0 + 0.2 * np.arange(12)))
    write_extxyz(uneven, path)
    assert any("not evenly spaced" in n for n in read_files([path], NVE).settings["notes"])


def test_lammps_units_and_elements_are_not_guessed(truth: Truth, tmp_path: Path) -> None:
    path = tmp_path / "a.dump"
    write_lammps(truth, path, "real", header=False)
    refused(path, match="give the LAMMPS units, real or metal")
    refused(path, match="'lj' cannot be read", options=ReadOptions(lammps_units="lj"))
    run = read_files([path], ReadOptions(lammps_units="real", frame_ps=0.001))
    assert run.momenta is not None
    np.testing.assert_allclose(run.momenta[:, 0], truth.momenta, rtol=1e-8, atol=1e-9)
    assert assess([run]).runs[0].parts["spacing"] is Verdict.PASS
    wrong = read_files([path], ReadOptions(lammps_units="metal", frame_ps=0.001))
    assert assess([wrong]).runs[0].parts["spacing"] is Verdict.FAIL
    write_lammps(truth, path, "real")
    refused(path, match="in real units and metal was given", options=ReadOptions(lammps_units="metal"))
    text = path.read_text()
    for symbol, kind in (("C", 1), ("H", 2), ("O", 3)):
        text = re.sub(rf"^(\d+) {symbol} ", rf"\1 {kind} ", text, flags=re.MULTILINE)
    path.write_text(text.replace("id element", "id type"))
    refused(path, match="does not say its elements")
    refused(path, match="atom types 1 to 3; 2 were named", options=ReadOptions(lammps_types=["C", "H"]))
    run = read_files([path], ReadOptions(lammps_types=["C", "H", "O"]))
    assert run.settings["structure"]["numbers"] == truth.atoms.numbers.tolist()
    path.write_text(text.replace("id element", "tag element"))
    refused(path, match="no column id")


def test_a_tilted_box_of_lammps(tmp_path: Path) -> None:
    """The example of LAMMPS' manual: bounds of a box 10 x 8 x 6 tilted by xy = 2, xz = -1, yz = 1.5 from (1, 2, 3)."""
    path = tmp_path / "a.dump"
    path.write_text(
        "ITEM: UNITS\nmetal\nITEM: TIMESTEP\n0\nITEM: NUMBER OF ATOMS\n1\nITEM: BOX BOUNDS xy xz yz pp pp pp\n"
        "0 13 2\n2 11.5 -1\n3 9 1.5\nITEM: ATOMS id element xs ys zs\n1 Ar 0.5 0.5 0.5\n"
    )
    run = read_files([path])
    assert run.cells is not None
    np.testing.assert_allclose(run.cells[0, 0], [[10, 0, 0], [2, 8, 0], [-1, 1.5, 6]])
    np.testing.assert_allclose(run.positions[0, 0, 0], [1 + 5 + 1 - 0.5, 2 + 4 + 0.75, 3 + 3])


def test_replicas(truth: Truth, tmp_path: Path) -> None:
    """Other runs of the same atoms are; copies, parts of one run and other intervals are not."""
    paths = [tmp_path / f"{i}.extxyz" for i in range(3)]
    for i, path in enumerate(paths):
        write_extxyz(springs(frames=12 - i, seed=i), path)
    run = read_files(paths, NVE)
    assert run.positions.shape == (10, 3, 9, 3)
    assert any("12, 11, 10 frames; of each the first 10" in n for n in run.settings["notes"])
    assert any("3 files of the same atoms were taken for replicas" in n for n in run.settings["notes"])
    refused(paths[0], paths[0], match="given twice")
    paths[1].write_bytes(paths[0].read_bytes())
    refused(paths[0], paths[1], match="hold the same positions")
    later = springs(frames=12, seed=1)
    write_extxyz(replace(later, time_ps=later.time_ps + 0.012), paths[1])
    refused(paths[0], paths[1], match="begins where")
    write_extxyz(replace(later, time_ps=2.0 * later.time_ps), paths[1])
    refused(paths[0], paths[1], match="different times")
    write(paths[1], [Atoms(a.numbers, a.positions) for a in frames_of(later)], format="extxyz")
    refused(paths[0], paths[1], match="has no velocities and the first frame read has velocities")


def test_what_is_no_trajectory(truth: Truth, tmp_path: Path) -> None:
    refused(tmp_path, match="is a folder; give one folder of runs")
    refused(tmp_path / "none.xyz", match="does not exist")
    (tmp_path / "a.pdf").write_text("hello\n")
    refused(tmp_path / "a.pdf", match="no trajectory that can be read")
    write_traj(truth, tmp_path / "a.xyz")  # the content decides, not the suffix
    assert len(read_files([tmp_path / "a.xyz"], NVE).positions) == 12
    write_hdf5(truth, tmp_path / "a.h5")
    import h5py

    with h5py.File(tmp_path / "a.h5", "a") as file:
        file["velocities"].attrs["units"] = "parsecs/fortnight"
    refused(tmp_path / "a.h5", match="unit of its velocities is parsecs/fortnight")
    with h5py.File(tmp_path / "a.h5", "a") as file:
        del file["topology"]
    refused(tmp_path / "a.h5", match="has no topology")
    with h5py.File(tmp_path / "a.h5", "a") as file:
        del file["coordinates"]
    refused(tmp_path / "a.h5", match="not written by MDTraj")


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"ensemble": "npt"}, "'npt' is not known"),
        ({"ensemble": "nvt"}, "needs the temperature"),
        ({"frame_ps": 0.0}, "frame_ps = 0 must be positive"),
        ({"frame_ps": float("nan")}, "must be positive"),
        ({"ensemble": "nvt", "temperature_K": -3.0}, "must be positive"),
        ({"temperature_K": 300.0}, "is of a bath"),
        ({"ensemble": "nve", "temperature_K": 300.0}, "is of a bath"),
    ],
)
def test_options(options: dict[str, float], match: str) -> None:
    with pytest.raises(InputError, match=match):
        ReadOptions(**options)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no trajectory"):
        read_files([])
