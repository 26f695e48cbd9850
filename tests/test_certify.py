"""The certificate on real molecules: a good fast run passes, a bad and a subtly bad one do not."""

from __future__ import annotations

from pathlib import Path

DATA = Path(__file__).parent / "data"
