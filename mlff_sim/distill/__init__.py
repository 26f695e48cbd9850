"""From a teacher to its student: sample with the student, label with the teacher, train, repeat."""

from mlff_sim.distill.distiller import Distillation, DistillConfig, distill

__all__ = ["DistillConfig", "Distillation", "distill"]
