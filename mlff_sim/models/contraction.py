"""MACE's symmetric contraction for known elements, with its constants folded.

MACE contracts the features A of an atom with themselves (Batatia et al., arXiv:2206.07697, eqs. 10 and 11):

    B_w = sum_nu sum_{i1..inu} C^nu_w,i1..inu A_i1 ... A_inu,    C^nu = sum_k U^nu_k W^nu_k

where U holds generalised Clebsch-Gordan coefficients and W the weights of the atom's element. Trained models multiply
by U at every call, over all k. Here C is formed once for the elements at hand, symmetrised, and stored by monomial, so

    y^nu_w,i = sum_m C^nu_w,i,m M_m(A)      (M_m: the products of nu - 1 factors A_i, i1 <= i2 <= ...)

is one matrix product. The value is sum_nu y^nu . A, and the gradient, C being symmetric, sum_nu nu y^nu: the backward
pass costs nothing. For three-fold products of 16 features this is some forty times fewer operations.
"""

from __future__ import annotations

from itertools import combinations_with_replacement, permutations
from typing import Any

import torch
from torch import Tensor


class FoldedContraction(torch.nn.Module):
    """One `Contraction` of MACE for atoms of known elements.

    Args:
        contraction: the trained module.
        rows: of each atom, the row of its element in the model's table, shape (n,).
    """

    present: Tensor
    order: Tensor
    inverse: Tensor

    def __init__(self, contraction: Any, rows: Tensor) -> None:
        """Fold the constants of the elements in `rows`."""
        super().__init__()
        for name in ("order", "inverse"):
            self.register_buffer(name, None, persistent=False)
        self.degrees: list[int] = []
        self.register_buffer("present", torch.unique(rows), persistent=False)
        top = contraction.correlation
        for nu in range(top, 0, -1):
            w = contraction.weights_max if nu == top else contraction.weights[top - 1 - nu]
            table, factors = _folded(contraction.U_tensors(nu), w[self.present], nu)
            self.equivariance, self.features = table.shape[3] // factors.ell, factors.ell
            self.register_buffer(f"table_{nu}", table, persistent=False)
            self.register_buffer(f"factors_{nu}", factors.index.to(rows.device), persistent=False)
            self.degrees.append(nu)
        self.group(rows)

    def group(self, rows: Tensor) -> None:
        """Turn to other atoms of elements that are known already."""
        self.sizes: list[int] = [int((rows == row).sum()) for row in self.present]
        self.order = torch.argsort(rows, stable=True)
        self.inverse = torch.argsort(self.order)

    def forward(self, x: Tensor, attributes: Tensor | None = None) -> Tensor:
        """Features (n, channels, i) to products (n, channels * w); the elements are known and need no attributes.

        Several structures of the known composition may follow each other.
        """
        n = len(self.order)
        copies = len(x) // n
        fixed = x.detach().reshape(copies, n, *x.shape[1:])[:, self.order].permute(2, 1, 0, 3)  # channel, atom, copy, i
        value: Tensor | float = 0.0
        slope: Tensor | float = 0.0
        for nu in self.degrees:
            table, factors = getattr(self, f"table_{nu}"), getattr(self, f"factors_{nu}")
            monomials = fixed.new_ones(*fixed.shape[:3], 1)
            if nu > 1:
                monomials = fixed[..., factors[0]]
                for row in factors[1:]:
                    monomials = monomials * fixed[..., row]
            parts = [
                torch.bmm(m.flatten(1, 2), t)  # one product of matrices for each channel
                for m, t in zip(monomials.split(self.sizes, 1), table, strict=True)
            ]
            y = torch.cat(parts, 1).reshape(len(fixed), n, copies, self.equivariance, self.features)
            y = y[:, self.inverse].permute(2, 1, 0, 3, 4).flatten(0, 1)  # copy and atom, channel, w, i
            value, slope = value + y, slope + nu * y
        x = x[:, :, None]
        still = x.detach()
        # The second term is zero; its derivative is the gradient.
        out: Tensor = (value * still).sum(-1) + (slope * (x - still)).sum(-1)
        return out.flatten(1)


class _Factors:
    """Which features the monomials of one degree are products of: index (degree, monomials)."""

    def __init__(self, ell: int, degree: int) -> None:
        self.ell = ell
        self.combinations = list(combinations_with_replacement(range(ell), degree))
        self.index = torch.tensor(self.combinations, dtype=torch.long).reshape(len(self.combinations), degree).T


def _folded(u: Tensor, weights: Tensor, nu: int) -> tuple[Tensor, _Factors]:
    """C^nu by element and channel as a table (elements, channels, monomials, w * i)."""
    ell = u.shape[-2]
    u = u.double().reshape(-1, *(ell,) * nu, u.shape[-1])  # w, i1 ... inu, k
    axes = list(permutations(range(1, nu + 1)))
    u = torch.stack([u.permute(0, *p, nu + 1) for p in axes]).mean(0)
    factors = _Factors(ell, nu - 1)
    # How many orders of the factors give the same monomial.
    counts = torch.tensor([len(set(permutations(c))) for c in factors.combinations], dtype=u.dtype, device=u.device)
    picked = u[(slice(None), slice(None), *factors.index)] if nu > 1 else u[:, :, None]
    picked = picked * counts[:, None]  # w, i, monomials, k
    table = torch.einsum("wimk,ekc->ecmwi", picked, weights.detach().double())
    return table.flatten(3).to(weights.dtype), factors
