"""Your own network in two engines: one file, used by name in ASE, in OpenMM and on the command line.

The network is PaiNN (Schuett, Unke & Gastegger, ICML 2021, arXiv:2102.03150), small and with random weights from a
fixed seed: put your own trained module in its place. All it has to offer is `forward` with these five arguments and a
`cutoff`; `elements` is optional. Its sums over edges have any length, so that it can be compiled.

    python examples/own_module.py             # both engines agree; compiled, after a minute, they still do
    mlff-sim md --model module:examples/own_module.py:build --structure ethanol --duration-ps 0.1 --out runs/own
"""

import argparse
import math

import torch
from torch import Tensor, nn

WIDTH, LAYERS, BASIS, CUTOFF = 32, 2, 20, 5.0


def envelope(u: Tensor, p: int = 6) -> Tensor:
    """A polynomial from 1 at u = 0 to 0 at u = 1, with two vanishing derivatives there; exactly 0 beyond.

    Gasteiger et al., ICLR 2020, arXiv:2003.03123, eq. 8.
    """
    u = u.clamp(max=1.0)
    a, b, c = (p + 1) * (p + 2) / 2, p * (p + 2), p * (p + 1) / 2
    return 1 - a * u**p + b * u ** (p + 1) - c * u ** (p + 2)


def perceptron(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, WIDTH), nn.SiLU(), nn.Linear(WIDTH, outputs))


class Message(nn.Module):
    """Eqs. 7 and 8: neighbours j tell i their scalars and vectors, filtered by distance and direction."""

    def __init__(self) -> None:
        super().__init__()
        self.phi, self.W = perceptron(WIDTH, 3 * WIDTH), nn.Linear(BASIS, 3 * WIDTH)

    def forward(self, s: Tensor, v: Tensor, i: Tensor, j: Tensor, basis: Tensor, fc: Tensor, unit: Tensor) -> tuple:
        ds, dvv, dvs = (self.phi(s)[j] * self.W(basis) * fc).chunk(3, dim=-1)
        dv = v[j] * dvv[:, None] + unit[:, :, None] * dvs[:, None]
        return s.index_add(0, i, ds), v.index_add(0, i, dv)


class Update(nn.Module):
    """Eqs. 9 and 10: scalars and vectors of one atom mix; the vectors enter by lengths and products only."""

    def __init__(self) -> None:
        super().__init__()
        self.a = perceptron(2 * WIDTH, 3 * WIDTH)
        self.U, self.V = nn.Linear(WIDTH, WIDTH, bias=False), nn.Linear(WIDTH, WIDTH, bias=False)

    def forward(self, s: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        Uv, Vv = self.U(v), self.V(v)
        length = (Vv.square().sum(1) + 1e-8).sqrt()  # smooth where the vector vanishes
        a_ss, a_sv, a_vv = self.a(torch.cat([s, length], -1)).chunk(3, dim=-1)
        return s + a_ss + a_sv * (Uv * Vv).sum(1), v + a_vv[:, None] * Uv


class PaiNN(nn.Module):
    """Energies of atoms (n,) in eV, from scalars s (n, width) and vectors v (n, 3, width)."""

    elements = (1, 6, 7, 8)

    def __init__(self) -> None:
        super().__init__()
        self.cutoff = CUTOFF
        self.embedding = nn.Embedding(max(self.elements) + 1, WIDTH)
        self.messages = nn.ModuleList(Message() for _ in range(LAYERS))
        self.updates = nn.ModuleList(Update() for _ in range(LAYERS))
        self.readout = perceptron(WIDTH, 1)
        self.register_buffer("frequencies", torch.arange(1, BASIS + 1) * math.pi / CUTOFF)

    def forward(self, positions: Tensor, numbers: Tensor, cell: Tensor, edge_index: Tensor, edge_shift: Tensor):
        i, j = edge_index
        d = positions[j] - positions[i] + edge_shift @ cell
        r = d.square().sum(-1, keepdim=True).sqrt()
        basis, fc, unit = torch.sin(r * self.frequencies) / r, envelope(r / self.cutoff), d / r
        s = self.embedding(numbers)
        v = s.new_zeros(s.shape[0], 3, WIDTH)
        for message, update in zip(self.messages, self.updates, strict=True):
            s, v = update(*message(s, v, i, j, basis, fc, unit))
        return self.readout(s)[:, 0]


def build() -> PaiNN:
    """What `module:examples/own_module.py:build` calls; yours would load a state_dict here."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return PaiNN()


def main(compiled: bool) -> None:
    import openmm
    from openmm import app, unit

    from mlff_sim import Acceleration, MLFFCalculator, openmm_force, read_structure

    model, acceleration = f"module:{__file__}:build", Acceleration(compile=compiled)
    atoms = read_structure("aspirin")
    atoms.calc = MLFFCalculator(model, acceleration=acceleration)
    in_ase = atoms.get_potential_energy()

    topology, system = app.Topology(), openmm.System()
    residue = topology.addResidue("ASP", topology.addChain())
    for symbol, mass in zip(atoms.symbols, atoms.get_masses(), strict=True):
        topology.addAtom(symbol, app.Element.getBySymbol(symbol), residue)
        system.addParticle(mass)
    system.addForce(openmm_force(model, topology, acceleration=acceleration))
    simulation = app.Simulation(topology, system, openmm.LangevinMiddleIntegrator(300, 1, 0.0005))
    simulation.context.setPositions(atoms.positions * unit.angstrom)
    energy = simulation.context.getState(energy=True).getPotentialEnergy() / unit.AVOGADRO_CONSTANT_NA
    in_openmm = energy.value_in_unit(unit.elementary_charge * unit.volt)
    simulation.step(10)

    print(f"energy in ASE {in_ase:.6f} eV, in OpenMM {in_openmm:.6f} eV, difference {abs(in_ase - in_openmm):.1e} eV")
    for key, value in atoms.calc.acceleration_report().items():
        print(f"  {key}: {value}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--eager", action="store_true", help="do not compile")
    main(compiled=not parser.parse_args().eager)
