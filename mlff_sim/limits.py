"""Limits that no sound frame exceeds: of bonds, of pairs of atoms, of temperatures. Guards and validators share them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mlff_sim.forces import Array

CLOSEST = 0.6
"""Share of the sum of two covalent radii that no pair comes closer than.

X-H bonds come down to 0.80 of it in nanoseconds at 300 K. For C-H, 0.6 costs 3 eV in the harmonic limit, and more in
truth.
"""
LONGEST = 1.5
"""Times its length at the start that no bond exceeds: 2 eV for a Morse C-H bond. Sound runs at 300 K stay below 1.15."""
SIX_SIGMA = 0.5 * math.erfc(6 / math.sqrt(2))
"""1e-9: how often a normal variate lies more than six standard deviations above its mean."""


def longest_bonds(numbers: Sequence[int], i: NDArray[np.int64], j: NDArray[np.int64], start: Array) -> Array:
    """A, `LONGEST` times the longest start of each bond, or times the sum of the covalent radii if that is more.

    Args:
        numbers: atomic numbers, shape (n,).
        i: first atoms of the bonds.
        j: second atoms.
        start: A, lengths of the bonds, shape (replicas, bonds).
    """
    from ase.data import covalent_radii

    radii = covalent_radii[np.asarray(numbers)]
    out: Array = LONGEST * np.maximum(start.max(axis=0), radii[i] + radii[j])
    return out


def closest_pairs(numbers: Sequence[int], i: NDArray[np.int64], j: NDArray[np.int64], start: Array) -> Array:
    """A, `CLOSEST` times the sum of the covalent radii of each pair, or 0.8 times its shortest start if that is less.

    Args:
        numbers: atomic numbers, shape (n,).
        i: first atoms of the pairs.
        j: second atoms.
        start: A, distances of the pairs, shape (replicas, pairs).
    """
    from ase.data import covalent_radii

    radii = covalent_radii[np.asarray(numbers)]
    out: Array = np.minimum(CLOSEST * (radii[i] + radii[j]), 0.8 * start.min(axis=0))
    return out


def highest_mean(dof: Array, looks: Array, probability: float) -> Array:
    """Times its expectation that a mean kinetic energy exceeds with less than a probability.

    2 K / kT of a group of atoms, averaged with weights over time, is a sum of l_i chi^2_1 with sum l_i = `dof` and all
    l_i <= 1 / looks. The logarithm of its generating function is convex in l and so largest where the l_i are 0 or
    1 / looks; Chernoff's bound for dof looks degrees of freedom, exp(-dof looks (y - 1 - log y) / 2), therefore holds
    for any correlation of the frames, and y solves "bound = probability". Without averaging it is 4 to 20 % above the
    quantile of the chi-square distribution itself. Chernoff, Ann. Math. Stat. 23, 493 (1952), doi:10.1214/aoms/1177729330.
    """
    from scipy.special import lambertw

    deficit = -2 * math.log(probability) / (dof * looks)
    y: Array = -lambertw(-np.exp(-1 - deficit), -1).real
    return y
