"""CHGNet, a pretrained potential for crystals of most elements, whose weights come with its package.

Deng et al., Nat. Mach. Intell. 5, 1031 (2023), doi:10.1038/s42256-023-00716-3.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import warnings
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from mlff_sim.acceleration import usable
from mlff_sim.errors import InputError
from mlff_sim.forces import Array, Evaluation
from mlff_sim.models.ase_backed import AseProvider
from mlff_sim.structure import check_elements

if TYPE_CHECKING:
    from ase import Atoms

    from mlff_sim.acceleration import Execution

ELEMENTS = (*range(1, 84), *range(89, 95))
"""The 89 elements of its training set. It has rows for Po to Ra as well, which were never trained."""


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """CHGNet and pymatgen print and warn when they are imported, and CHGNet when it loads its weights."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(None), contextlib.redirect_stderr(None):
        warnings.simplefilter("ignore")
        yield


class CHGNet(AseProvider):
    """CHGNet's own calculator bound to one crystal, in float32."""

    dtype = "float32"

    def __init__(self, atoms: Atoms, device: str) -> None:
        """Load the weights; `device` is one of PyTorch's names."""

        def calculator() -> Any:
            from chgnet.model.dynamics import CHGNetCalculator

            return CHGNetCalculator(use_device=device, return_site_energies=True, on_isolated_atoms="error")

        with _quiet():
            super().__init__(atoms, calculator, "chgnet")
        self.cutoff = float(self._atoms.calc.model.graph_converter.atom_graph_cutoff)

    @property
    def provenance(self) -> Mapping[str, Any]:
        """Versions of the package and of the weights."""
        library = f"chgnet {importlib.metadata.version('chgnet')}"
        return {**super().provenance, "library": library, "weights": str(self._atoms.calc.version)}

    def __call__(self, positions: Array, cell: Array | None = None, /) -> Evaluation:
        """Evaluate positions (n, 3) and a cell (3, 3).

        Raises:
            InputError: an atom has no neighbour within the cutoff, where the model says nothing of use.
        """
        with warnings.catch_warnings():
            # PyTorch's remark on how CHGNet computes a volume.
            warnings.filterwarnings("ignore", message="Converting a tensor with requires_grad=True")
            try:
                answer = super().__call__(positions, cell)
            except ValueError as error:
                if "isolated atom" not in str(error):
                    raise
                raise InputError(
                    f"CHGNet describes crystals, and an atom has no other within {self.cutoff:g} A: "
                    "a molecule or a gas needs another model."
                ) from error
        if answer.stress is None or np.linalg.det(self._atoms.cell.array) > 0:
            return answer
        # It divides by a triple product, which is negative for left-handed cells.
        return Evaluation(answer.energy, answer.forces, -answer.stress, answer.atomic_energies)

    def reset(self) -> None:
        """Nothing to forget: a pure function."""


def load_chgnet(atoms: Atoms, execution: Execution) -> CHGNet:
    """Load the pretrained CHGNet for a crystal.

    Raises:
        InputError: a structure that is not periodic in all directions, an unknown element, or float64.
    """
    if not atoms.pbc.all():
        raise InputError(
            f"CHGNet describes crystals and the structure is periodic along {tuple(atoms.pbc.tolist())}; "
            "set a cell and atoms.pbc = True, for a slab with vacuum in the cell; a molecule needs another model."
        )
    check_elements(atoms.numbers, ELEMENTS, "CHGNet")
    if execution.dtype != "float32":
        raise InputError(f"CHGNet computes in float32; dtype = '{execution.dtype}' cannot be had.")
    return CHGNet(atoms, str(usable(execution.device)))
