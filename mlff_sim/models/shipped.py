"""Students that come with the package, by short name."""

from __future__ import annotations

from importlib import resources
from pathlib import Path


def _folder() -> Path:
    return Path(str(resources.files("mlff_sim") / "data" / "students"))


def students() -> list[str]:
    """Names of the shipped students, e.g. "aspirin-gfn2"."""
    return sorted(p.stem for p in _folder().glob("*.safetensors"))


def student_path(name: str) -> Path:
    """A student file: the path itself if there is such a file, else the shipped student of that name, else the path."""
    path = Path(name)
    shipped = _folder() / f"{name}.safetensors"
    return shipped if not path.exists() and shipped.is_file() else path


def reference_path(name: str) -> Path:
    """A shipped reference file, distributions of a long run of the teacher alone."""
    return Path(str(resources.files("mlff_sim") / "data" / "references" / f"{name}.npz"))
