"""What a training run of transformers or accelerate left beside the weights: optimizer, schedule, trainer state."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from samdiag.errors import CannotDecide, SamdiagError
from samdiag.formats.checkpoint import Hint
from samdiag.formats.content import Content
from samdiag.formats.folder import Folder, read_object
from samdiag.formats.steps import as_count

if TYPE_CHECKING:
    from samdiag.formats.momentum import Buffers

OPTIMIZERS = ("optimizer.pt", "optimizer.bin")  # Trainer's, accelerate's
SCHEDULERS = ("scheduler.pt", "scheduler.bin")
TRAINER_STATE = "trainer_state.json"
ARGUMENTS = "training_args.bin"
FILES = (*OPTIMIZERS, *SCHEDULERS, TRAINER_STATE, ARGUMENTS)
MAX_TRAINER_STATE_BYTES = 200_000_000  # its log has one entry per logged step: a million of them


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingState:
    """What the files beside the weights reveal.

    Attributes:
        hints: settings by dotted name.
        notes: one line each.
        adam: the optimizer is of the Adam family.
        step: the training step at which it was saved; None: not said.
        files: name → fingerprint of what was read.
        load_velocity: reads the momentum buffers; None where there is no optimizer state.
    """

    hints: Mapping[str, Hint] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    adam: bool = False
    step: int | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    load_velocity: Callable[[], Buffers | None] | None = None


def read(folder: Folder) -> TrainingState:
    """The state of the run in the folder; what is there and cannot be read becomes a note."""
    optimizer = _first(folder, OPTIMIZERS, _read_optimizer)
    schedule = TrainingState() if "sam.lr" in optimizer.hints else _first(folder, SCHEDULERS, _read_schedule)
    trainer = _first(folder, (TRAINER_STATE,), _read_trainer_state)
    notes = (*optimizer.notes, *schedule.notes, *trainer.notes)
    if ARGUMENTS in folder and not optimizer.files:
        notes = (*notes, f"{ARGUMENTS} is a pickle of a class and is never read: say rho, lr and batch size yourself")
    return TrainingState(
        hints={**schedule.hints, **trainer.hints, **optimizer.hints},
        notes=notes,
        adam=optimizer.adam,
        step=trainer.step,
        files={**optimizer.files, **schedule.files, **trainer.files},
        load_velocity=optimizer.load_velocity,
    )


def _first(folder: Folder, names: tuple[str, ...], reader: Callable[[Folder, str], TrainingState]) -> TrainingState:
    name = next((name for name in names if name in folder), None)
    if name is None:
        return TrainingState()
    try:
        return reader(folder, name)
    except SamdiagError as error:
        return TrainingState(notes=(f"{name} is ignored: {error.what}",))


def _read_optimizer(folder: Folder, name: str) -> TrainingState:
    from samdiag.formats.momentum import find_buffers
    from samdiag.formats.optimizer_state import find_optimizer, first_group, is_adam, read_hints

    content = folder.file(name)
    saved = _read_saved(content)
    state, notes = find_optimizer(saved)
    if state is None:
        return TrainingState(notes=(*notes, f"{name} is ignored: it holds no optimizer state with param_groups"))
    hints, hint_notes = read_hints(state)
    return TrainingState(
        hints=hints,
        notes=(*notes, *hint_notes),
        adam=is_adam(first_group(state)),
        files={name: content.fingerprint()},
        load_velocity=lambda: find_buffers(saved),
    )


def _read_saved(content: Content) -> object:
    """What a file of torch.save holds, whatever it is, read with weights_only=True."""
    from samdiag.formats import torch_legacy, torch_zip

    for container in (torch_zip, torch_legacy):
        if container.recognises(content):
            return container.load(content)
    raise CannotDecide(f"{content.name} is not a file of torch.save", "save the checkpoint again")


def _read_schedule(folder: Folder, name: str) -> TrainingState:
    """The last learning rate that a schedule of torch has set."""
    from samdiag.formats.optimizer_state import as_number

    content = folder.file(name)
    saved = _read_saved(content)
    last = saved.get("_last_lr") if isinstance(saved, Mapping) else None
    lr = as_number(last[0]) if isinstance(last, list) and last else None
    hints = {"sam.lr": Hint(value=lr, source=name)} if lr else {}  # 0: the end of a schedule, not a setting
    return TrainingState(hints=hints, files={name: content.fingerprint()})


def _read_trainer_state(folder: Folder, name: str) -> TrainingState:
    content = folder.file(name)
    state = read_object(content, MAX_TRAINER_STATE_BYTES)
    size, step = state.get("train_batch_size"), as_count(state.get("global_step"))
    hints, notes = {}, []
    if type(size) is int and size > 0:
        hints["sam.batch_size"] = Hint(value=size, source=name)
        notes.append(f"{name}: batch size {size} is that of one device, without gradient accumulation")
    if step is not None:
        notes.append(f"{name}: saved after step {step}")
    return TrainingState(hints=hints, notes=tuple(notes), step=step, files={name: content.fingerprint()})
