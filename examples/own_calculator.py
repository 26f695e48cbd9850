"""Your own force field as the teacher: any function without arguments that returns an ASE calculator.

Run it in this folder, or with this folder on PYTHONPATH, so that `own_calculator` can be imported by name.
About three minutes on one core.
"""

from ase.calculators.calculator import Calculator

from mlff_sim import RunConfig, check_provider, load_model, read_structure, run, validate
from mlff_sim.distill import DistillConfig, distill

TEACHER = "ase:own_calculator:calculator"


def calculator() -> Calculator:
    """GFN1-xTB stands in here: put your model, code or server in its place."""
    from tblite.ase import TBLite

    # Tight convergence: a teacher whose forces depend on where its SCF started from drifts.
    return TBLite(method="GFN1-xTB", accuracy=0.01, verbosity=0)


if __name__ == "__main__":
    molecule = read_structure("ethanol")
    teacher = load_model(TEACHER, molecule)
    print("laws broken:", check_provider(teacher, molecule.positions).failures or "none")
    student = distill(molecule, teacher, DistillConfig(TEACHER, budget_s=90.0, seed=1), "ethanol-own.safetensors")
    print(f"student: {student.force_mae:.1f} meV/A on a trajectory it never saw")
    config = RunConfig(
        "ethanol", TEACHER, "ethanol-own.safetensors", k_steps=8, duration_ps=5.0, friction_per_ps=5.0, seed=1
    )
    print("verdict:", validate(run(config, "runs/example-own", resume=True))["verdict"])
