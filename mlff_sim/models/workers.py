"""One model in several processes side by side, for what takes one structure at a time on the CPU.

Each process builds its own model from the registry name and the structure. Replica r always goes to process r mod W, so
that a model which remembers something for each replica (an SCF guess) finds it there, and the results are the same bits
for any W, on one thread. Processes are started afresh, not forked: torch, OpenMP and tblite do not survive a fork.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import traceback
import weakref
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection, Pipe
from typing import TYPE_CHECKING, Any

import numpy as np

from mlff_sim.acceleration import Execution
from mlff_sim.errors import InputError, NonFinite
from mlff_sim.forces import Array, Evaluation, ForceProvider, evaluate
from mlff_sim.models.registry import load_model, resolve

if TYPE_CHECKING:
    from ase import Atoms

FACTS = ("name", "numbers", "cutoff", "dtype", "conservative", "batched", "provenance")
"""What the model in a process says about itself, and `Workers` repeats."""
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
BOOT = (
    "import sys; from multiprocessing.connection import Connection; c = Connection(int(sys.argv[1])); "
    "sys.path[:] = c.recv(); from mlff_sim.models.workers import serve; serve(c, int(sys.argv[2]))"
)
"""Not multiprocessing's own start: that runs the user's script once more in every process."""
PATIENCE_S = 1.0
"""For a process to end by itself when it is no longer needed."""


def load_shared(name: str, atoms: Atoms, execution: Execution, workers: int) -> ForceProvider:
    """As `load_model`, and with more than one worker a provider whose replicas they share.

    Raises:
        InputError: as `load_model`, and for models that evaluate all replicas in one call anyway.
    """
    if workers == 1:
        return load_model(name, atoms, execution)
    if resolve(name)[0].accelerated:
        raise InputError(
            f"teacher_workers = {workers} is for models that take one structure at a time; '{name}' evaluates all "
            "replicas in one call, whose rounding depends on their number. Use 1, and OMP_NUM_THREADS for more cores."
        )
    return Workers(name, atoms, execution, workers)


class Workers:
    """A `ForceProvider` that shares the replicas of a call among processes.

    Args:
        name: of the model, as for `load_model`.
        atoms: the structure.
        execution: how torch models are evaluated.
        workers: processes, each with one thread.

    Raises:
        InputError: what `load_model` raises in the processes; two of them would work in one folder.
    """

    batched = True

    def __init__(self, name: str, atoms: Atoms, execution: Execution, workers: int) -> None:
        """Start the processes and wait until each has its model."""
        self.workers = workers
        self._model, self._counts = name, False
        self._processes: list[subprocess.Popen[bytes]] = []
        self._connections: list[Connection[Any, Any]] = []
        self.close = weakref.finalize(self, _end, self._processes, self._connections)
        try:
            for _ in range(workers):
                self._start()
            order = (name, atoms.copy(), execution)
            facts = self._ask({w: order for w in range(workers)})
        except BaseException:
            self.close()
            raise
        folders = [f.pop("folder") for f in facts.values()]
        if folders[0] is not None and len(set(folders)) < workers:
            self.close()
            raise InputError(
                f"'{name}' works through files, and {workers} processes would overwrite each other's in '{folders[0]}'; "
                "let its factory give each calculator a directory of its own, such as tempfile.mkdtemp()."
            )
        self._counts = bool(facts[0]["batched"])
        self.name: str = facts[0]["name"]
        self.numbers: Any = facts[0]["numbers"]
        self.cutoff: float | None = facts[0]["cutoff"]
        self.dtype: str = facts[0]["dtype"]
        self.conservative: bool = facts[0]["conservative"]
        self.provenance: Mapping[str, Any] = facts[0]["provenance"]

    def __call__(self, positions: Array, cell: Array | None = None, /) -> Evaluation:
        """Evaluate positions (n, 3) or (replicas, n, 3)."""
        if positions.ndim == 2:
            return self._ask({0: ("call", positions, cell)})[0]  # type: ignore[no-any-return]
        share = {w: slice(w, None, self.workers) for w in range(min(self.workers, len(positions)))}
        boxes = cell is not None and cell.ndim == 3
        parts = self._ask({w: ("call", positions[s], cell[s] if boxes else cell) for w, s in share.items()})  # type: ignore[index]

        def whole(values: Sequence[Array | None]) -> Array | None:
            arrays = [v for v in values if v is not None]
            if len(arrays) < len(values):
                return None
            out = np.empty((len(positions), *arrays[0].shape[1:]))
            for s, array in zip(share.values(), arrays, strict=True):
                out[s] = array
            return out

        energy, forces = whole([p.energy for p in parts.values()]), whole([p.forces for p in parts.values()])
        assert energy is not None and forces is not None
        stress, atomic = whole([p.stress for p in parts.values()]), whole([p.atomic_energies for p in parts.values()])
        return Evaluation(energy, forces, stress, atomic)

    def reset(self) -> None:
        """Make every process forget what it remembers of earlier calls."""
        self._ask({w: ("reset",) for w in range(self.workers)})

    def _start(self) -> None:
        """A process of its own group: Ctrl-C in a terminal is the parent's business."""
        mine, theirs = Pipe()
        command = [sys.executable, "-c", BOOT, str(theirs.fileno()), str(os.getpid())]
        self._connections.append(mine)
        with theirs:
            self._processes.append(
                subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    process_group=0,
                    env={**os.environ, **dict.fromkeys(THREADS, "1")},
                )
            )
        self._send(len(self._processes) - 1, sys.path)

    def _ask(self, orders: Mapping[int, Any]) -> dict[int, Any]:
        """Give orders to processes at once and wait for all answers; raise the first error among them."""
        if not self._connections:
            raise InputError(f"the processes that evaluated '{self._model}' have ended; load it anew.")
        try:
            for w, order in orders.items():
                self._send(w, order)
            answers = {w: self._receive(w) for w in orders}
        except BaseException:  # answers may be left in the pipes
            self.close()
            raise
        for w, (worked, answer) in answers.items():
            if not worked:
                error = _unpacked(answer)
                if isinstance(error, NonFinite) and self._counts:  # its replica is one of that process's
                    raise NonFinite(error.what, error.replica * self.workers + w, error.atom) from error
                raise error
        return {w: answer for w, (_, answer) in answers.items()}

    def _send(self, w: int, message: Any) -> None:
        try:
            self._connections[w].send(message)
        except OSError as error:
            raise self._lost(w) from error

    def _receive(self, w: int) -> tuple[bool, Any]:
        try:
            answer: tuple[bool, Any] = self._connections[w].recv()
        except (EOFError, OSError) as error:
            raise self._lost(w) from error
        return answer

    def _lost(self, w: int) -> InputError:
        """What to say of a process that is gone. No `RuntimeError`: it is no failure of the model."""
        try:
            code = self._processes[w].wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            code = 0
        how = f"ended with exit code {code}"
        if code < 0:
            how = f"was killed by {signal.Signals(-code).name}" + (", perhaps out of memory" if code == -9 else "")
        return InputError(
            f"process {w + 1} of the {self.workers} that evaluate '{self._model}' {how}; use fewer teacher workers. "
            "A run continues with --resume."
        )


def _end(processes: list[subprocess.Popen[bytes]], connections: list[Connection[Any, Any]]) -> None:
    """Hang up, so that idle processes end; kill those that are still busy."""
    for connection in connections:
        connection.close()
    connections.clear()
    deadline = time.monotonic() + PATIENCE_S
    for process in processes:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


# What runs in a process.


def serve(connection: Connection[Any, Any], parent: int) -> None:
    """Build a model and answer for it until the other side hangs up."""
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    model = None
    try:
        while True:
            order = connection.recv()
            try:
                if model is None:
                    model = load_model(*order)
                    answer: Any = {fact: getattr(model, fact) for fact in FACTS}
                    answer |= {"provenance": dict(answer["provenance"]), "folder": getattr(model, "folder", None)}
                elif order[0] == "call":
                    _, x, cell = order
                    answer = evaluate(model, x, cell) if x.ndim == 3 else model(x) if cell is None else model(x, cell)
                else:
                    answer = None
                    model.reset()
                reply = (True, answer)
            except Exception as error:
                reply = (False, _packed(error))
            connection.send(reply)
    except (EOFError, OSError):  # the other side is gone
        return


def _end_with(parent: int) -> None:
    """End when the parent does, in the middle of a long evaluation and after kill -9, too."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _packed(error: Exception) -> tuple[list[bytes], str, str]:
    """An exception as it pickles itself, as its classes, the nearest first, its message, and where it came from."""
    packed = []
    kinds = [(kind, error.args, vars(error)) for kind in type(error).__mro__]
    for each in (error, *kinds):
        try:
            packed.append(pickle.dumps(each))
        except Exception:  # of a class inside a function, or holding what is none of another process's
            continue
    return packed, str(error), "".join(traceback.format_exception(error))


def _unpacked(packed: tuple[list[bytes], str, str]) -> Exception:
    """The same exception here, or one of the nearest class that is known here: a user's file may not be loaded."""
    candidates, message, origin = packed
    found: Exception = RuntimeError(message)
    for each in candidates:
        try:
            error = pickle.loads(each)
            if isinstance(error, tuple):  # not made by its `__init__`, which may want something else than a message
                kind, arguments, facts = error
                error = kind.__new__(kind, *arguments)
                error.__dict__.update(facts)
        except Exception:
            continue
        if isinstance(error, Exception) and str(error) == message:
            found = error
            break
    found.add_note(f"In a process of its own:\n{origin}")
    return found
