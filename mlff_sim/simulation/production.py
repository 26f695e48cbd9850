"""The recorded part of a run: rows, checkpoints and the clock."""

from __future__ import annotations

import copy
import json
import time
from dataclasses import asdict
from typing import Any

import numpy as np

from mlff_sim.cost import CYCLES, predicted_speedup
from mlff_sim.errors import NonFinite
from mlff_sim.forces import Array, Evaluation
from mlff_sim.progress import Progress
from mlff_sim.runfolder import RunWriter
from mlff_sim.simulation.clock import BASELINE_BLOCKS, Baseline, Timing
from mlff_sim.simulation.config import RunConfig
from mlff_sim.simulation.guards import Guard
from mlff_sim.simulation.relabel import FILE, Relabel
from mlff_sim.state import State

PROBE_STEPS, PROBE_ROUNDS, PROBE_S = 5, (3, 40), (1.0, 30.0)
"""Before production: outer steps timed in a round, fewest and most rounds, and the seconds after which none begins, the
fewest having been made or not. In the last seconds a round ends after a step, too: one may be minutes long.

Rounds of the hybrid and of the baseline alternate, so that a machine that gets slower does so for both.
"""


class Production:
    """Advances a stepper, records frames and writes a segment and a checkpoint every so many steps.

    Args:
        config: settings of the run.
        guard: of the stepper, which is at the start of production, or about to be restored.
        writer: the open run folder.
        progress: told outer steps.
        baseline: timed in blocks between segments; None for plain runs.
        relabel: collects frames beyond the student's training range; None where it is not asked for.
    """

    def __init__(
        self,
        config: RunConfig,
        guard: Guard,
        writer: RunWriter,
        progress: Progress,
        baseline: Baseline | None,
        relabel: Relabel | None = None,
    ) -> None:
        """Bind; nothing is evaluated or written yet."""
        stepper = guard.stepper
        self.config, self.stepper, self.writer, self.progress = config, stepper, writer, progress
        self.guard, self.baseline, self.relabel = guard, baseline, relabel
        self.compares = "residual" in stepper.forces.differences
        self.step = 0
        self.residual_sum, self.residual_steps = np.zeros(len(stepper.state.positions)), 0
        self.rows: dict[str, list[Any]] = {}
        self.wall: dict[str, list[float]] = {}
        self.timing: Timing | None = None
        self.models: list[str] = [n for n in ("teacher", "student", "middle", "predictor") if n in stepper.forces.calls]
        self.fast = "predictor" if config.predictor is not None else "student"
        self.seconds = dict.fromkeys(("teacher", "student", *self.models, "total", "baseline"), 0.0)
        self.teacher_calls = 0

    def begin(self) -> None:
        """Evaluate the start, time the models on copies, record the first row."""
        table = self.stepper.forces
        before = table.calls["teacher"]
        self.guard.begin()
        self.teacher_calls = table.calls["teacher"] - before
        if not self.config.plain:
            self.progress.update(0, self.config.outer_steps, "compiling and timing")
            self.timing = self._probe()
        table.reset()  # whether or not the models were timed: a plain run has the same history
        self._record()

    def run(self) -> None:
        """All outer steps to the end of the run."""
        config, total = self.config, self.config.outer_steps
        timed = self._baseline_steps()
        table = self.stepper.forces
        while self.step < total:
            start, before = time.perf_counter(), (dict(table.seconds), dict(table.calls))
            steps = min(config.checkpoint_steps, total - self.step)
            for _ in range(steps):
                self.guard.advance(self.step + 1)
                self.step += 1
                if self.compares:
                    self._measure_residual()
                if self.relabel is not None:
                    self.relabel.look(self.step)
                if self.step % config.frame_steps == 0:
                    self._record()
                if self.step % 20 == 0:
                    self.progress.update(self.step, total, "production")
            table.reset()  # the teacher's memory is dropped at every checkpoint, in unbroken runs too
            self._account(start, before, steps)
            if self.baseline is not None and self.step in timed:
                begin = time.perf_counter()
                try:
                    per_ps = self.baseline.block(self.stepper.state) / (config.timestep_fs / 1000)
                    self.wall.setdefault("block_baseline_s_per_ps", []).append(per_ps)
                except (NonFinite, RuntimeError):
                    pass  # the baseline is no part of the run: one block less
                self.seconds["baseline"] += time.perf_counter() - begin
            self._write(self._checkpoint())
            self.progress.update(self.step, total, "production")

    def abandon(self) -> None:
        """Write what was recorded since the last checkpoint."""
        self._write(None)

    def summary(self) -> dict[str, Any]:
        """What run.json gains at the end."""
        rest = self.seconds["total"] - sum(self.seconds[name] for name in self.models)
        timing = asdict(self.timing) if self.timing else None
        out = {"wall_s": {**self.seconds, "rest": rest}, "teacher_calls": self.teacher_calls, "timing": timing}
        return out if self.relabel is None else {**out, "relabelled": len(self.relabel)}

    # What a row holds.

    def _record(self) -> None:
        s = self.stepper
        kinetic = s.kinetic()
        potential = s.potential()
        row: dict[str, Any] = {
            "time_ps": self.step * self.config.outer_step_fs / 1000,
            "potential_energy": potential,
            "kinetic_energy": kinetic,
            "heat": s.heat,
            "conserved": kinetic + potential - s.heat,
            "positions": s.state.positions,
            "momenta": s.state.momenta,
        }
        if self.compares:
            if not self.residual_steps:
                self._measure_residual()
            row["residual_mae"] = self.residual_sum / self.residual_steps
            self.residual_sum, self.residual_steps = np.zeros_like(self.residual_sum), 0
        row |= s.counts()  # since the row before
        for name, value in row.items():
            self.rows.setdefault(name, []).append(value)

    def _measure_residual(self) -> None:
        """Mean |teacher - student| over force components, at every outer step."""
        self.residual_sum = self.residual_sum + self.stepper.forces.mismatch("residual")
        self.residual_steps += 1

    def _write(self, checkpoint: dict[str, Any] | None) -> None:
        replicas, n = self.stepper.state.positions.shape[:2]
        wide, flat = (0, replicas, n, 3), (0, replicas)
        empty = {"time_ps": (0,), "positions": wide, "momenta": wide}
        empty |= dict.fromkeys(("potential_energy", "kinetic_energy", "heat", "conserved"), flat)
        if self.compares:
            empty["residual_mae"] = flat
        empty |= dict.fromkeys(self.stepper.counted, flat)
        if self.relabel is not None and len(self.relabel) > self.relabel.written:
            self.writer.archive(FILE, {**self.relabel.arrays(), "numbers": self.writer.atoms.numbers})
            self.relabel.written = len(self.relabel)
        rows = {k: np.array(self.rows[k]) if self.rows.get(k) else np.zeros(shape) for k, shape in empty.items()}
        self.writer.segment(rows, {k: np.array(v) for k, v in self.wall.items()}, checkpoint)
        self.rows, self.wall = {}, {}

    # Checkpoints: everything the next step depends on, bit for bit.

    def _checkpoint(self) -> dict[str, Any]:
        s = self.stepper
        numbers = {
            "step": self.step,
            "seconds": self.seconds,
            "teacher_calls": self.teacher_calls,
            "timing": asdict(self.timing) if self.timing else None,
            "streams": [stream.bit_generator.state for stream in s.bath.streams] if s.bath else [],
            "com_removed": self.writer.settings["com_removed"],
            "tuning": self.writer.settings.get("tuning"),
            "cadence": self.writer.settings.get("cadence"),
            "relabelled": 0 if self.relabel is None else len(self.relabel),
        }
        saved: dict[str, Any] = {"positions": s.state.positions, "momenta": s.state.momenta, "heat": s.heat}
        saved["extension"] = s.extension
        saved |= {"residual_sum": self.residual_sum, "residual_steps": np.array(self.residual_steps)}
        for name, e in s.forces.known.items():
            saved[f"energy:{name}"], saved[f"forces:{name}"] = e.energy, e.forces
        return {**saved, **self.guard.saved(), "json": np.array(json.dumps(numbers))}

    def restore(self, saved: dict[str, Array]) -> None:
        """Continue from what `_checkpoint` saved."""
        s, numbers = self.stepper, json.loads(str(saved["json"]))
        s.restart(State(saved["positions"], saved["momenta"]), s.bath)
        s.heat, s.extension = saved["heat"], saved["extension"]
        for name in [k.removeprefix("energy:") for k in saved if k.startswith("energy:")]:
            s.forces.known[name] = Evaluation(saved[f"energy:{name}"], saved[f"forces:{name}"])
        for stream, state in zip(s.bath.streams if s.bath else [], numbers["streams"], strict=True):
            stream.bit_generator.state = state
        self.step, self.seconds, self.teacher_calls = numbers["step"], numbers["seconds"], numbers["teacher_calls"]
        self.residual_sum, self.residual_steps = saved["residual_sum"], int(saved["residual_steps"])
        self.timing = Timing(**numbers["timing"]) if numbers["timing"] else None
        self.writer.settings["com_removed"] = numbers["com_removed"]
        self.guard.restore(saved, self.step)
        if self.relabel is not None:
            self.relabel.restore(self.writer.folder / FILE, numbers["relabelled"])

    # The clock.

    def _baseline_steps(self) -> set[int]:
        """Checkpoints after which a baseline block is timed: evenly spread, at least one."""
        size, total = self.config.checkpoint_steps, self.config.outer_steps
        ends = [min(size * (i + 1), total) for i in range(-(-total // size))]
        count = min(BASELINE_BLOCKS, len(ends))
        return {ends[int((i + 0.5) * len(ends) / count)] for i in range(count)}

    def _account(self, start: float, before: tuple[dict[str, float], dict[str, int]], steps: int) -> None:
        """Book the wall time of one block of outer steps."""
        table, elapsed = self.stepper.forces, time.perf_counter() - start
        for name in self.models:
            self.seconds[name] += table.seconds.get(name, 0.0) - before[0].get(name, 0.0)
        self.seconds["total"] += elapsed
        self.teacher_calls += table.calls["teacher"] - before[1]["teacher"]
        replica_ps = steps * self.config.outer_step_fs / 1000 * len(self.stepper.state.positions)
        self.wall.setdefault("block_hybrid_s_per_ps", []).append(elapsed / replica_ps)

    def _seconds_per_call(self, until: float) -> tuple[int, list[dict[str, float]]]:
        """Outer steps made, and the time of one evaluation in each that reached all models, by model."""
        table, steps = self.stepper.forces, 0
        samples: list[dict[str, float]] = []
        while steps < PROBE_STEPS and (not samples or time.perf_counter() < until):
            seconds, calls = dict(table.seconds), dict(table.calls)
            self.stepper.step()
            steps += 1
            made = {n: table.calls[n] - calls[n] for n in self.models}
            if all(made.values()):  # a proposal may fail before the teacher is asked
                samples.append({n: (table.seconds[n] - seconds[n]) / made[n] for n in made})
        return steps, samples

    @np.errstate(over="ignore", invalid="ignore")  # no guard looks here; a step that is too long flies far
    def _probe(self) -> Timing | None:
        """Time teacher, student and baseline on copies; leaves the run as it was, but for the models' memory."""
        s = self.stepper
        state, heat, extension, known = s.state, s.heat, s.extension, dict(s.forces.known)
        streams = copy.deepcopy(s.bath.streams) if s.bath else []
        timing = None
        try:
            s.step()  # compiles
            before, begun = s.forces.calls[self.fast], time.perf_counter()
            samples: list[dict[str, float]] = []
            blocks: list[float] = []
            steps = 0
            for i in range(PROBE_ROUNDS[1]):
                more, timed = self._seconds_per_call(begun + PROBE_S[1])
                steps, samples = steps + more, samples + timed
                if self.baseline is not None:
                    blocks.append(self.baseline.block(state))
                if time.perf_counter() - begun > PROBE_S[i + 1 < PROBE_ROUNDS[0]]:
                    break
            if not samples:
                raise RuntimeError("no step reached all models")
            t_e, t_c = (float(np.median([x[n] for x in samples])) for n in ("teacher", self.fast))
            t_b = float(np.median(blocks)) if blocks else None
            speedup = None
            if t_b is not None:
                calls = (s.forces.calls[self.fast] - before) / (steps * len(state.positions))
                t_m = float(np.median([x["middle"] for x in samples])) if self.config.middle_steps else 0.0
                between = t_m * self.config.inner_steps / (self.config.middle_steps or 1)
                _, made, _ = CYCLES[self.config.scheme](vars(self.config))
                speedup = predicted_speedup(self.config.inner_steps, t_b, t_e + between, t_c, calls, made)
            timing = Timing(1e3 * t_e, 1e6 * t_c, None if t_b is None else 1e3 * t_b, speedup)
        except (NonFinite, RuntimeError):
            pass  # production will meet the same fault and name its step
        s.restart(state, s.bath)
        s.heat, s.extension = heat, extension
        s.forces.known.update(known)
        if s.bath is not None:
            s.bath.streams = streams
        return timing
