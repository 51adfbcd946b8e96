"""Where in a model amplitudes act: on a module's output, on a field of it, or on a module's input.

A place is named after its module: ``encoder.0.activation`` is the output, ``encoder.0.output:input`` the first input
of ``encoder.0.output``, and ``encoder:output.last_hidden_state`` one field of what ``encoder`` returns. The input is
where a functional activation (``self.dense(F.gelu(x))``) can be reached.
"""

from __future__ import annotations

import copy
import dataclasses
import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence
from torch.utils.hooks import RemovableHandle

from lhuc_asr.base.errors import SiteError

Function = TypeVar("Function", bound=Callable[..., Any])

_INPUT = "input"
_FIELD = "output."


@dataclasses.dataclass(frozen=True)
class Place:
    """A place in a model.

    Attributes:
        name: Its name.
    """

    name: str

    @classmethod
    def of(cls, module: str, *, of_input: bool = False, field: str | int | None = None) -> Place:
        """The place at a module's output, at a field of it, or at the module's input.

        Raises:
            SiteError: The module's name has a colon, which separates the parts of a place's name.
        """
        if ":" in module:
            raise SiteError(f"module {module!r}: a name with a colon cannot be a site; give the module another name")
        if of_input:
            return cls(f"{module}:{_INPUT}")
        return cls(module if field is None else f"{module}:{_FIELD}{field}")

    @property
    def module(self) -> str:
        """The module's dotted name in its model."""
        return self.name.partition(":")[0]

    @property
    def of_input(self) -> bool:
        """Whether it is the module's input."""
        return self.name.partition(":")[2] == _INPUT

    @property
    def field(self) -> str | None:
        """The field of the module's output; None for the output itself."""
        part = self.name.partition(":")[2]
        return part.removeprefix(_FIELD) if part.startswith(_FIELD) else None


def tensor_at(place: Place, value: object) -> Tensor:
    """The tensor of a module's input or output that amplitudes act on; of a packed sequence, its data.

    Raises:
        SiteError: There is none, or it has to be named.
    """
    parts: list[Tensor] = []

    def note(part: object) -> object:
        if isinstance(part, PackedSequence):
            parts.append(part.data)
        elif isinstance(part, Tensor):
            parts.append(part)
        else:
            raise not_a_tensor(place, part)
        return part

    changed_at(place, value, note)
    return parts[0]


def changed_at(place: Place, value: Any, change: Callable[[Any], object]) -> object:
    """A module's output, or the part of it that a place names, changed; the other parts stay as they are.

    Args:
        place: The place; where it names no field, the first of a tuple is taken (LSTM, GRU: the last layer's outputs).
        value: What the module returned.
        change: Function of the part.

    Raises:
        SiteError: The value has no such field.
    """
    field = place.field
    if field is None:
        plain_tuple = type(value) is tuple and value and not isinstance(value, PackedSequence)
        return (changed_at(place, value[0], change), *value[1:]) if plain_tuple else change(value)
    if isinstance(value, Mapping):
        if field in value:
            return _with_item(value, field, change(value[field]))
    elif isinstance(value, tuple | list):
        names = getattr(value, "_fields", ())
        number = names.index(field) if field in names else int(field) if field.isdigit() else len(value)
        if number < len(value):
            parts = [*value[:number], change(value[number]), *value[number + 1 :]]
            return type(value)(*parts) if names else type(value)(parts)
    elif dataclasses.is_dataclass(value) and hasattr(value, field):
        return dataclasses.replace(value, **{field: change(getattr(value, field))})  # type: ignore[type-var]
    raise SiteError(
        f"site {place.name!r}: its module returns {type(value).__name__} without {field!r}; {_fields(value)}"
    )


class OutputHook:
    """A forward hook that lets a function look at a module's output; what it returns takes the output's place.

    A copy of a model has a copy of it, with a copy of the function.

    Attributes:
        look: The function.
    """

    def __init__(self, look: Callable[[Any], object]) -> None:
        self.look = look

    def __call__(self, module: nn.Module, inputs: object, output: object) -> object:
        _refuse_replica(module)
        return self.look(output)


class InputHook:
    """The same before a module runs: of its first argument.

    Attributes:
        look: The function.
    """

    def __init__(self, look: Callable[[Any], object]) -> None:
        self.look = look

    def __call__(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        _refuse_replica(module)
        if args:
            return (self.look(args[0]), *args[1:]), kwargs
        # Without any argument there is nothing to scale, and the module itself says what is missing.
        return args, {
            name: self.look(value) if not number else value for number, (name, value) in enumerate(kwargs.items())
        }


def _refuse_replica(module: nn.Module) -> None:
    """Refuse copies of a model that run in threads of their own, where no context selects anybody."""
    if getattr(module, "_is_replica", False):
        raise SiteError(
            "nn.DataParallel runs copies of the model in other threads, which do not know whose rows are selected; "
            "use one device, or a process for each with DistributedDataParallel"
        )


def watch(module: nn.Module, place: Place, look: Callable[[Any], object]) -> RemovableHandle:
    """Let a function change what passes a place whenever the module runs."""
    if place.of_input:
        return module.register_forward_pre_hook(InputHook(look), with_kwargs=True)
    return module.register_forward_hook(OutputHook(look))


def watchers(module: nn.Module) -> list[OutputHook | InputHook]:
    """The hooks that ``watch`` has put on a module."""
    hooks = [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]
    return [hook for hook in hooks if isinstance(hook, OutputHook | InputHook)]


def stop_watching(model: nn.Module, hooks: Collection[OutputHook | InputHook]) -> None:
    """Remove hooks from all modules of a model."""
    for module in model.modules():
        for registered in (module._forward_hooks, module._forward_pre_hooks):
            for key in [key for key, hook in registered.items() if hook in hooks]:
                del registered[key]
                module._forward_pre_hooks_with_kwargs.pop(key, None)


def never_compiled(function: Function) -> Function:
    """Keep torch.compile out of a function and of all that it calls.

    This is what torch.compiler.disable does, but that imports the compiler, which takes seconds, also where nothing is
    compiled. Before torch 2.7 the function is only kept out of the caller's graph.
    """
    function._torchdynamo_disable = True  # type: ignore[attr-defined]
    frames = torch._C._dynamo.eval_frame
    if hasattr(frames, "set_code_exec_strategy"):
        skip = frames._FrameAction.SKIP
        frames.set_code_exec_strategy(function.__code__, frames._FrameExecStrategy(skip, skip))
    return function


def forget_compiled() -> None:
    """Let hooks count in models that are compiled already: ``torch.compile`` does not watch them."""
    if "torch._dynamo" in sys.modules:
        torch.compiler.reset()


def nesting_around(model: nn.Module, places: Iterable[Place]) -> list[nn.TransformerEncoder]:
    """The transformers around some places that would turn a padded batch into a nested tensor.

    ``nn.TransformerEncoder`` does so in evaluation; such a tensor has no axes to scale along. They do not while
    ``use_nested_tensor`` is off.
    """
    parts = [f"{place.module}." for place in places]
    return [
        module
        for name, module in model.named_modules()
        if isinstance(module, nn.TransformerEncoder)
        and module.use_nested_tensor
        and any(part.startswith(f"{name}." if name else "") for part in parts)
    ]


def let_nest(encoders: Iterable[nn.TransformerEncoder], again: bool) -> None:
    """Let transformers turn padded batches into nested tensors, or not."""
    for encoder in encoders:
        encoder.use_nested_tensor = again


def not_a_tensor(place: Place, value: object) -> SiteError:
    """The error for a module that returns, or takes, something else than a tensor."""
    verb = "takes" if place.of_input else "returns"
    return SiteError(
        f"site {place.name!r}: its module {verb} {type(value).__name__}, expected a tensor or a tuple that begins with "
        f"one; {_fields(value)}"
    )


def _with_item(value: Mapping[str, Any], field: str, changed: object) -> object:
    # A copy: ModelOutput and its kind are mappings with attributes, which a new dict would not have.
    twin: Any = copy.copy(value)
    twin[field] = changed
    return twin


def _fields(value: object) -> str:
    """What to do: name a field, or go into the module."""
    if isinstance(value, Mapping):
        names = [str(name) for name in value]
    elif dataclasses.is_dataclass(value):
        names = [field.name for field in dataclasses.fields(value)]
    elif isinstance(value, tuple | list):
        names = [*getattr(value, "_fields", map(str, range(len(value))))]
    else:
        return "attach to a module inside it"
    return f"name one of its fields, field= {', '.join(names)}, or attach to a module inside it"
