"""TorchScript out and in: the file says what the model says, whatever the number of edges, and knows its units."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.units import Hartree, kcal, mol
from test_graph import Pairs
from test_mace import mace_file  # noqa: F401  (a fixture)
from torch import Tensor

from mlff_sim import MLFFCalculator, read_structure
from mlff_sim.acceleration import Execution
from mlff_sim.errors import InputError
from mlff_sim.forces import check_provider
from mlff_sim.models.checkpoint import load_student
from mlff_sim.models.graph import GraphProvider
from mlff_sim.models.registry import load_model
from mlff_sim.models.torchscript_export import export_torchscript, script_module
from mlff_sim.models.torchscript_file import RECORD
from mlff_sim.models.torchscript_modules import edges_in_a_box, edges_in_vacuum
from mlff_sim.neighbors import NeighborList
from mlff_sim.units import KJ_PER_MOL, NM

BOXES = {
    "wide": np.diag([11.0, 12.0, 13.0]),
    "narrow": np.diag([3.1, 9.0, 2.2]),
    "triclinic": np.array([[9.0, 0, 0], [-4.4, 8.5, 0], [4.0, -4.1, 9.5]]),
    "flat and left-handed": np.array([[0, 4.0, 0.3], [6.0, 0.1, 0], [2.5, 1.7, 2.9]]),
}


def provider(atoms: Atoms, dtype: str = "float64", **settings: Any) -> GraphProvider:
    pbc = tuple(bool(p) for p in atoms.pbc)
    return GraphProvider(Pairs(), atoms.numbers, pbc=pbc, execution=Execution(dtype=dtype), **settings)


def frames(atoms: Atoms) -> list[Atoms]:
    """Squeezed, blown up, sheared and shaken; a cell follows."""
    rng, out = np.random.default_rng(5), []
    for scale in (1.0, 0.85, 1.6, 1.3):
        deform = scale * np.eye(3) + np.triu(0.05 * rng.standard_normal((3, 3)), 1)
        frame = atoms.copy()
        frame.set_cell(atoms.cell.array @ deform)
        frame.positions = atoms.positions @ deform + 0.05 * rng.standard_normal(atoms.positions.shape) + [7.0, 0, -3.0]
        out.append(frame)
    return out


@pytest.fixture
def crystal() -> Atoms:
    """Triclinic, and in no direction twice as wide as the cutoff."""
    atoms = bulk("NaCl", "rocksalt", a=5.64) * (2, 1, 2)
    atoms.rattle(0.1, seed=2)
    return atoms


def agree(a: Any, b: Any, energy: float, force: float) -> None:
    assert float(a.energy) == pytest.approx(float(b.energy), abs=energy)
    np.testing.assert_allclose(a.forces, b.forces, atol=force)
    assert (a.stress is None) == (b.stress is None)
    if a.stress is not None:
        np.testing.assert_allclose(a.stress, b.stress, atol=force)


@pytest.mark.parametrize("box", BOXES.values(), ids=BOXES.keys())
def test_edges_in_a_box_are_vesins(box: np.ndarray) -> None:
    """Atoms spread over several images, boxes from a half to three times the cutoff, edges that cross them twice."""
    x = np.random.default_rng(1).uniform(-12, 18, (14, 3))
    expected = NeighborList(4.0, 0.0)(x, box, (True,) * 3)
    found = torch.jit.script(edges_in_a_box)(torch.from_numpy(x), torch.from_numpy(box), 4.0)
    ours, theirs = (
        sorted(map(tuple, np.column_stack([np.asarray(p).T, np.asarray(s)]).astype(int).tolist()))
        for p, s in (found, expected)
    )
    assert ours == theirs and len(ours) > 10


def test_edges_are_found_block_by_block() -> None:
    """700 atoms are searched in two blocks or more; in vacuum the pairs are the same as in a box that is far wider."""
    x = torch.from_numpy(np.random.default_rng(1).uniform(0, 30, (700, 3)))
    pairs, images = edges_in_a_box(x, 100 * torch.eye(3).double(), 4.0)
    assert not images.any()
    assert sorted(pairs.T.tolist()) == sorted(edges_in_vacuum(x, 4.0).T.tolist()) and pairs.shape[1] > 1000


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("periodic", [False, True], ids=["molecule", "box"])
def test_a_graph_network_goes_out_and_comes_back(
    dtype: str, periodic: bool, ethanol: Atoms, crystal: Atoms, tmp_path: Path
) -> None:
    """Every frame three times: TorchScript recompiles itself for the shapes it has seen.

    In float32 sums run in another order than in the provider: some roundings, 6e-8, of energies of up to 10 eV.
    """
    atoms = crystal if periodic else ethanol
    model = provider(atoms, dtype, reference=np.linspace(-1000, -3000, len(atoms)))
    export_torchscript(model, tmp_path / "m.pt", atoms)
    again = load_model(f"torchscript:{tmp_path / 'm.pt'}", atoms)
    edges = set()
    for frame in 3 * frames(atoms):
        cell = frame.cell.array if periodic else None
        energy, force = (1e-9, 1e-10) if dtype == "float64" else (1e-5, 1e-5)
        agree(again(frame.positions, cell), model(frame.positions, cell), energy, force)
        edges.add(len(NeighborList(4.0, 0.0)(frame.positions, cell, tuple(frame.pbc))[1]))
    assert len(edges) == 4 and max(edges) > 1.2 * min(edges)
    assert np.abs(model(frames(atoms)[0].positions, atoms.cell.array if periodic else None).forces).max() > 1e-3
    assert (again.dtype, again.cutoff, again.pbc) == (dtype, 4.0, model.pbc)


@pytest.mark.filterwarnings("ignore")  # e3nn and MACE warn on import and on loading
def test_mace_goes_out_and_comes_back(mace_file: Path, ethanol: Atoms, tmp_path: Path) -> None:  # noqa: F811
    """Also in a cell narrower than the cutoff; energies of isolated atoms, -4200 eV, are added in float64."""
    water = molecule("H2O", cell=[3.1, 3.2, 3.0], pbc=True) * (2, 1, 1)
    for atoms, dtype, energy, force in ((ethanol, "float32", 1e-5, 2e-5), (water, "float64", 1e-9, 1e-10)):
        model = load_model(f"mace:{mace_file}", atoms, Execution(dtype=dtype))
        export_torchscript(model, tmp_path / "m.pt", atoms)
        again = load_model(f"torchscript:{tmp_path / 'm.pt'}", atoms)
        for frame in frames(atoms)[:3]:
            cell = frame.cell.array if atoms is water else None
            agree(again(frame.positions, cell), model(frame.positions, cell), energy, force)
        assert again.provenance["sha256"] and again.dtype == dtype


def test_a_student_goes_out_and_comes_back(student_file: Path, ethanol: Atoms, tmp_path: Path) -> None:
    """Forces by autograd against those written by hand; far from the origin as near it."""
    student = load_student(student_file)
    export_torchscript(student, tmp_path / "s.pt", ethanol)
    again = load_model(f"torchscript:{tmp_path / 's.pt'}", ethanol)
    x = ethanol.positions
    for shift in (0.0, 3000.0):
        for seed in range(4):
            y = x + 0.1 * np.random.default_rng(seed).standard_normal(x.shape) + shift
            agree(again(y), student(y), 1e-5, 1e-4)
    assert not check_provider(again, x).failures
    assert again.cutoff is None and float(again(x).energy) < -300


def test_the_calculator_takes_it(crystal: Atoms, tmp_path: Path) -> None:
    export_torchscript(provider(crystal), tmp_path / "m.pt", crystal)
    crystal.calc = MLFFCalculator(f"torchscript:{tmp_path / 'm.pt'}")
    expected = provider(crystal)(crystal.positions, crystal.cell.array)
    np.testing.assert_allclose(crystal.get_stress(), expected.stress, atol=1e-12)
    crystal.set_cell(1.02 * crystal.cell.array, scale_atoms=True)
    expected = provider(crystal)(crystal.positions, crystal.cell.array)
    np.testing.assert_allclose(crystal.get_forces(), expected.forces, atol=1e-10)


def test_what_is_recorded_but_should_vary_is_refused(ethanol: Atoms, crystal: Atoms, tmp_path: Path) -> None:
    """A mean over edges whose number became a Python number, and a list of edges with a fixed length."""

    class Mean(Pairs):
        def forward(self, *inputs: Tensor) -> Tensor:
            return super().forward(*inputs) / float(inputs[3].shape[1])

    class Fixed(Pairs):
        def forward(self, *inputs: Tensor) -> Tensor:
            ones = torch.from_numpy(np.ones(int(inputs[3].shape[1])))
            return super().forward(*inputs) + 0 * (ones * inputs[4][:, 0]).sum()

    for kind, message in ((Mean, "a number that should vary was recorded"), (Fixed, "fails at another structure")):
        for atoms in (ethanol, crystal):
            pbc = tuple(bool(p) for p in atoms.pbc)
            model = GraphProvider(kind(), atoms.numbers, pbc=pbc, execution=Execution(dtype="float64"))
            with pytest.raises(InputError, match=message):
                export_torchscript(model, tmp_path / "m.pt", atoms)
    assert not list(tmp_path.iterdir()), "nothing half-written stays behind"


def test_a_module_for_some_particles_picks_them(ethanol: Atoms) -> None:
    rows = [0, 2, 3, 5, 6, 7, 8, 10, 11]
    module, _ = script_module(provider(ethanol), ethanol, rows)
    x = torch.zeros(13, 3, dtype=torch.float64)
    x[rows] = torch.from_numpy(ethanol.positions / NM)
    energy = module(x.requires_grad_(True))
    energy.backward()
    expected = provider(ethanol)(ethanol.positions)
    assert energy.item() * KJ_PER_MOL == pytest.approx(float(expected.energy), abs=1e-10)
    forces = -x.grad.numpy() * KJ_PER_MOL / NM
    np.testing.assert_allclose(forces[rows], expected.forces, atol=1e-11)
    assert not np.delete(forces, rows, 0).any()


def test_positions_it_was_not_made_for_are_refused(ethanol: Atoms) -> None:
    module, _ = script_module(provider(ethanol), ethanol)
    with pytest.raises(torch.jit.Error, match="this model is for 9 atoms and was given 10"):
        module(torch.zeros(10, 3))
    with pytest.raises(torch.jit.Error, match="a position is not a finite number"):
        module(torch.full((9, 3), torch.nan))


# Files of others.


class Spring(torch.nn.Module):
    """(|x_1 - x_0| - 1)^2, in whatever units."""

    def forward(self, positions: Tensor) -> Tensor:
        return ((positions[1] - positions[0]).norm() - 1.0) ** 2


class Volume(torch.nn.Module):
    """An energy of the box, 3 V, and of the positions."""

    def __init__(self, attached: bool = True) -> None:
        super().__init__()
        self.attached = attached

    def forward(self, positions: Tensor, box: Tensor) -> Tensor:
        if not self.attached:
            box = box.detach()
        return 3.0 * torch.linalg.det(box) + (positions - positions.mean(0)).pow(2).sum()


def written(module: torch.nn.Module, path: Path, **extra: str) -> Path:
    torch.jit.save(torch.jit.script(module), str(path), _extra_files=extra)
    return path


@pytest.mark.parametrize(("length", "in_A"), [("A", 1.0), ("nm", 10.0)])
@pytest.mark.parametrize(("energy", "in_eV"), [("eV", 1.0), ("kcal/mol", kcal / mol), ("hartree", Hartree)])
def test_declared_units(length: str, in_A: float, energy: str, in_eV: float, tmp_path: Path) -> None:
    """A spring stretched by a tenth of its unit length: E = 0.01 units, F = 0.2 units of energy over length."""
    path = written(Spring(), tmp_path / "a,b.pt")
    pair = Atoms("H2", positions=[[0, 0, 0], [0, 0, 1.1 * in_A]])
    answer = load_model(f"torchscript:{path},length={length},energy={energy}", pair, Execution(dtype="float64"))(
        pair.positions
    )
    assert float(answer.energy) == pytest.approx(0.01 * in_eV, rel=1e-12)
    np.testing.assert_allclose(answer.forces[:, 2], np.array([0.2, -0.2]) * in_eV / in_A, rtol=1e-12)
    assert answer.stress is None


def test_the_stress_of_others_is_their_boxs_derivative_or_none(tmp_path: Path) -> None:
    """E = 3 V + sum |x - mean|^2 strains as 3 V delta_ab + 2 sum x_a x_b; without the box no stress is claimed."""
    cell = np.array([[4.0, 0.3, 0], [0, 5.0, 0.2], [0.4, 0, 6.0]])
    atoms = Atoms("Ar3", positions=[[0, 0, 0], [1, 2, 0.5], [3, 1, 4]], cell=cell, pbc=True)
    units = ",length=A,energy=eV"
    loaded = load_model(f"torchscript:{written(Volume(), tmp_path / 'v.pt')}{units}", atoms, Execution(dtype="float64"))
    y = atoms.positions - atoms.positions.mean(0)
    expected = (3 * np.eye(3) + 2 * y.T @ y / atoms.get_volume())[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
    np.testing.assert_allclose(loaded(atoms.positions, cell).stress, expected, rtol=1e-12)
    loaded = load_model(f"torchscript:{written(Volume(False), tmp_path / 'w.pt')}{units}", atoms)
    assert loaded(atoms.positions, cell).stress is None
    assert np.abs(loaded(atoms.positions, cell).forces).max() > 1


def test_units_that_are_not_declared_or_not_known(tmp_path: Path) -> None:
    pair, path = Atoms("H2", positions=[[0, 0, 0], [0, 0, 1]]), written(Spring(), tmp_path / "m.pt")
    for suffix, message in {
        "": "does not say its units of length and energy; declare them: torchscript:FILE,length=nm,energy=kJ/mol",
        ",energy=eV": "does not say its units of length; declare",
        ",length=m,energy=eV": "length = 'm' is no unit known here; use A, nm",
        ",length=A,energy=J": "energy = 'J' is no unit known here; use eV, kJ/mol, kcal/mol, hartree",
        ",length=A,energy=eV,mass=u": "'mass=u' .* is unknown; write torchscript:FILE,length",
    }.items():
        with pytest.raises(InputError, match=message):
            load_model(f"torchscript:{path}{suffix}", pair)


def test_a_record_is_held_against_the_structure(ethanol: Atoms, crystal: Atoms, tmp_path: Path) -> None:
    export_torchscript(provider(ethanol), tmp_path / "m.pt", ethanol)
    name = f"torchscript:{tmp_path / 'm.pt'}"
    load_model(f"{name},length=nm", ethanol)
    with pytest.raises(InputError, match="says itself that length is in nm, not A"):
        load_model(f"{name},length=A", ethanol)
    with pytest.raises(InputError, match=r"TorchScript model .* is for C2H6O; the structure is C9H8O4"):
        load_model(name, read_structure("aspirin"))
    with pytest.raises(InputError, match="another atom order: its atom 0 is C, the structure's is H"):
        load_model(name, ethanol[::-1])
    box = ethanol.copy()
    box.set_cell([9, 9, 9])
    box.pbc = True
    with pytest.raises(InputError, match=r"exported for pbc = .*False.* and the structure has .*True"):
        load_model(name, box)
    box.pbc = (True, True, False)
    with pytest.raises(InputError, match="periodic along all or none"):
        load_model(name, box)
    with pytest.raises(InputError, match="knows all or none"):
        export_torchscript(provider(box), tmp_path / "n.pt", box)
    with pytest.raises(InputError, match="runs on the CPU only"):
        load_model(name, ethanol, Execution(device="cuda"))


def test_files_that_cannot_be_used(ethanol: Atoms, tmp_path: Path) -> None:
    class Two(torch.nn.Module):
        def forward(self, positions: Tensor) -> tuple[Tensor, Tensor]:
            return positions.sum(), positions

    class Constant(torch.nn.Module):
        def forward(self, positions: Tensor) -> Tensor:
            return torch.ones(1)

    class Precise(torch.nn.Module):
        def forward(self, positions: Tensor) -> Tensor:
            return (positions @ torch.eye(3, dtype=torch.float64)).sum()

    units = ",length=A,energy=eV"
    precise = f"torchscript:{written(Precise(), tmp_path / 'm')}{units}"
    with pytest.raises(
        InputError, match=r"failed \(RuntimeError: expected .*\); it was given float32, which dtype"
    ) as told:
        load_model(precise, ethanol)(ethanol.positions)
    assert "\n" not in str(told.value)
    load_model(precise, ethanol, Execution(dtype="float64"))(ethanol.positions)
    with pytest.raises(InputError, match="does not exist; write one with: mlff-sim export"):
        load_model("torchscript:/no/such.pt", ethanol)
    (tmp_path / "junk").write_bytes(b"junk" * 100)
    torch.save({"a": 1}, tmp_path / "dict")
    for name in ("junk", "dict"):
        with pytest.raises(InputError, match="cannot be read as a TorchScript file"):
            load_model(f"torchscript:{tmp_path / name}{units}", ethanol)
    for module, message in (
        (Two(), "returned tuple; one energy is expected"),
        (Constant(), "cannot be differentiated by the positions"),
    ):
        with pytest.raises(InputError, match=message):
            load_model(f"torchscript:{written(module, tmp_path / 'm')}{units}", ethanol)(ethanol.positions)
    with pytest.raises(InputError, match=r"is forward\(positions, box\); for a molecule it must take positions alone"):
        load_model(f"torchscript:{written(Volume(), tmp_path / 'm')}{units}", ethanol)
    with pytest.raises(InputError, match=r"is forward\(positions\); for a periodic structure it must take positions a"):
        load_model(f"torchscript:{written(Spring(), tmp_path / 'm')}{units}", bulk("NaCl", "rocksalt", a=5.6))
    for text, message in (("{", "cannot be read"), (json.dumps({"format": "x", "version": 1}), "of another version")):
        with pytest.raises(InputError, match=message):
            load_model(f"torchscript:{written(Spring(), tmp_path / 'm', **{RECORD: text})}", ethanol)


def test_the_command(cli: Any, student_file: Path, tmp_path: Path) -> None:
    target = tmp_path / "ethanol.pt"
    done = cli("export", f"student:{student_file}", "--structure", "ethanol", "--torchscript", target)
    assert done.code == 0 and "forward(positions) in nm to kJ/mol, for C2H6O" in done.out and done.err == ""
    assert [p.name for p in tmp_path.iterdir()] == ["ethanol.pt"]
    extra = {RECORD: ""}
    torch.jit.load(str(target), _extra_files=extra)
    record = json.loads(extra[RECORD])
    assert record["units"] == {"length": "nm", "energy": "kJ/mol"} and record["numbers"][:3] == [6, 6, 8]
    assert record["force_deviation_meV_per_A"] < 0.1 and record["provenance"]["sha256"]
    for arguments, message in (
        (["gfn2-xtb"], "TorchScript holds torch models only"),
        ([f"student:{student_file}", "--dtype", "float64"], "is float32"),
        ([f"student:{student_file}", "--dtype", "half"], "dtype 'half' is unknown"),
        (["nothing"], "unknown model"),
    ):
        done = cli("export", *arguments, "--structure", "ethanol", "--torchscript", tmp_path / "x.pt")
        assert done.code == 2 and message in done.line
    done = cli("export", "lj", "--structure", "ethanol", "--torchscript", tmp_path / "no" / "x.pt")
    assert done.code == 2 and "does not exist" in done.line
    done = cli("export", "lj", "--structure", "ethanol", "--torchscript", tmp_path)
    assert done.code == 2 and "is a folder" in done.line
