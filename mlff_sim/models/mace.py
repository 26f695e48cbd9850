"""MACE models as force providers (Batatia et al., NeurIPS 2022, arXiv:2206.07697)."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mlff_sim.errors import InputError
from mlff_sim.models.contraction import FoldedContraction
from mlff_sim.models.graph import GraphProvider
from mlff_sim.models.safefile import sha256
from mlff_sim.structure import check_elements

if TYPE_CHECKING:
    from ase import Atoms

    from mlff_sim.acceleration import Execution


class MACEGraph(torch.nn.Module):
    """A MACE model with the signature of `GraphModel`.

    Energies of isolated atoms are set to zero in it: they are large, and are added outside in float64.
    """

    model: Any
    elements: Tensor

    def __init__(self, model: Any) -> None:
        """Wrap a loaded model with one head."""
        super().__init__()
        self.model = model
        self.cutoff = float(model.r_max)
        self.register_buffer("elements", model.atomic_numbers.clone().long())

    def bind(self, numbers: Tensor) -> None:
        """Fold the symmetric contractions for atoms of these atomic numbers (n,); later for others of their elements."""
        rows = torch.eq(numbers[:, None], self.elements).long().argmax(1)
        for product in self.model.products:
            contractions = getattr(product.symmetric_contractions, "contractions", None)
            if contractions is None:  # another implementation, with kernels of its own
                continue
            mine = torch.zeros_like(rows) if getattr(product, "use_agnostic_product", False) else rows
            for k, c in enumerate(contractions):
                if isinstance(c, FoldedContraction):
                    c.group(mine)
                else:
                    contractions[k] = FoldedContraction(c, mine)

    def forward(self, positions: Tensor, numbers: Tensor, cell: Tensor, pairs: Tensor, images: Tensor) -> Tensor:
        """See `GraphModel`."""
        n = len(numbers)
        attributes = torch.eq(numbers[:, None], self.elements).to(positions.dtype)
        out = self.model(
            {
                "positions": positions,
                "node_attrs": attributes,
                "edge_index": pairs,
                "shifts": images @ cell,
                "unit_shifts": images,
                "cell": cell,
                "batch": numbers.new_zeros(n),
                "ptr": torch.tensor([0, n], device=numbers.device),
                "head": numbers.new_zeros(1),
            },
            compute_force=False,
        )
        by_atom: Tensor = out["node_energy"]
        return by_atom


@contextlib.contextmanager
def _quiet_and_unchanged() -> Iterator[None]:
    """MACE and e3nn warn and print on import, and switch off PyTorch's safe loading for the whole process; not here."""
    name = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(name)
    with warnings.catch_warnings(), contextlib.redirect_stderr(None), contextlib.redirect_stdout(None):
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            if before is None:
                os.environ.pop(name, None)


def load_mace(path: str, atoms: Atoms, execution: Execution | None = None) -> GraphProvider:
    """Load a MACE file, which is a pickle and can run code: only for files whose origin you trust.

    Args:
        path: what MACE's training wrote (`*.model`).
        atoms: the structure to bind to.
        execution: device, precision and acceleration.

    Raises:
        InputError: no such file, no MACE model, an element it does not know, several heads, or inputs such as a charge.
    """
    file = Path(path)
    if not file.is_file():
        raise InputError(f"model file '{path}' does not exist; give the file that MACE's training wrote.")
    try:
        with _quiet_and_unchanged():
            import mace.modules  # noqa: F401  (the classes the pickle names)

            model = torch.load(file, map_location="cpu", weights_only=False)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".split("\n")[0]
        raise InputError(f"'{path}' cannot be read as a MACE model ({reason}).") from error
    if not all(hasattr(model, a) for a in ("r_max", "atomic_numbers", "atomic_energies_fn", "interactions")):
        raise InputError(f"'{path}' holds a {type(model).__name__}, which is no MACE model.")
    if len(getattr(model, "heads", None) or [0]) > 1:
        raise InputError(f"'{path}' has the heads {', '.join(model.heads)}; models with one head can be used.")
    if inputs := getattr(model, "embedding_specs", None):
        raise InputError(
            f"'{path}' also takes {', '.join(inputs)}; models of positions and elements alone can be used."
        )
    known = model.atomic_numbers.tolist()
    check_elements(atoms.numbers, known, f"'{path}'")
    energies = model.atomic_energies_fn.atomic_energies
    isolated = energies.double().reshape(-1).numpy().copy()
    energies.zero_()
    return GraphProvider(
        MACEGraph(model),
        atoms.numbers,
        pbc=tuple(bool(p) for p in atoms.pbc),
        execution=execution,
        reference=isolated[[known.index(z) for z in atoms.numbers.tolist()]],
        name=f"mace:{path}",
        provenance={"sha256": sha256(file)},
    )
