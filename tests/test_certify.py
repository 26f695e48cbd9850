"""The certificate on real molecules: a good fast run passes, a bad and a subtly bad one do not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

DATA = Path(__file__).parent / "data"
