"""The arguments of a dead letter as an operator may change them: by name, secrets masked, checked before anything is sent.

A mask is never saved: where it is left as it is shown, what is behind it stays; it is replaced by a value, as a whole.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from dlq import call, conf
from dlq.masking import MASK, is_secret, masked_text
from dlq.models import Cause, DeadLetter
from dlq.resend import NotReplayable

#: What Python calls the types of JSON.
_TYPES: dict[Any, tuple[type, ...]] = {
    int: (int,),
    float: (int, float),
    str: (str,),
    bool: (bool,),
    list: (list,),
    dict: (dict,),
    None: (NoneType,),
    NoneType: (NoneType,),
}


class InvalidArgument(NotReplayable):
    """The task cannot be called like this, and nothing was sent. `name`: the argument that is wrong, '' if none in particular."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"{name}: {why}" if name else why)
        self.name = name


@dataclass(frozen=True)
class Argument:
    """One argument of a call; `key` is its position, or its keyword. `shown`: its value without secrets."""

    name: str
    key: int | str
    value: Any
    shown: Any


@dataclass(frozen=True)
class Changed:
    """The arguments of an edited copy, and the names of those that differ from the original's."""

    args: list[Any]
    kwargs: dict[str, Any]
    names: tuple[str, ...]


def arguments(dead_letter: DeadLetter) -> list[Argument]:
    """What its message is called with. A position that no parameter has is called `[3]`."""
    return _named(dead_letter, *_original(dead_letter))


def _named(dead_letter: DeadLetter, args: list[Any], kwargs: dict[str, Any]) -> list[Argument]:
    shown_args, shown_kwargs = call.masked_call(dead_letter.task, args, kwargs)
    # A command line is masked as one text, and of two keys one mask may be left: then nothing is shown.
    if len(shown_args) != len(args):
        shown_args = [MASK] * len(args)
    shown = shown_kwargs.items() if len(shown_kwargs) == len(kwargs) else ((key, MASK) for key in kwargs)
    names = _positions(_function(dead_letter))
    positions = [
        names[place] if place < len(names) and names[place] not in kwargs else f"[{place}]"
        for place in range(len(args))
    ]
    return [
        *(
            # A handler has no task that says which positions are secret.
            Argument(name, place, value, MASK if is_secret(name) else shown_value)
            for place, (name, value, shown_value) in enumerate(zip(positions, args, shown_args, strict=True))
        ),
        *(
            Argument(shown_key, key, value, shown_value)
            for (key, value), (shown_key, shown_value) in zip(kwargs.items(), shown, strict=True)
        ),
    ]


def missing(dead_letter: DeadLetter) -> list[str]:
    """The parameters that its message gives no argument for."""
    given = {argument.name for argument in arguments(dead_letter)}
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [
        parameter.name
        for parameter in _parameters(_function(dead_letter))
        if parameter.kind in kinds and parameter.name not in given
    ]


def changed(dead_letter: DeadLetter, changes: Mapping[str, Any], without: Collection[str] = ()) -> Changed:
    """Its arguments with these values by name, and without those; what is not named stays as it was received.

    Raises `InvalidArgument`, also when nothing is changed, and `NotReplayable` for a task that this deployment has not.
    """
    before = {argument.name: argument for argument in arguments(dead_letter)}
    for name in without:
        if name not in before:
            raise InvalidArgument(name, "there is no such argument to leave out")
    values = {name: argument.value for name, argument in before.items() if name not in without}
    for name, value in changes.items():
        known = before.get(name)
        values[name] = _kept(value, known.shown, known.value, name) if known else _unmasked(value, name)
    differing = tuple(
        name
        for name in dict.fromkeys((*before, *values))
        if name not in before or name not in values or not _same(values[name], before[name].value)
    )
    if not differing:
        raise InvalidArgument("", "nothing is changed: replay it as it is")
    args, kwargs = _arranged(before.values(), values)
    for argument in _named(dead_letter, args, kwargs):
        if argument.name in changes:
            _stays_masked(changes[argument.name], argument.shown, argument.name)
    _check(_function(dead_letter), args, kwargs, {name: values[name] for name in differing if name in values})
    return Changed(args, kwargs, differing)


def parsed(name: str, given: str) -> Any:
    """The value that an operator has typed, as JSON. Raises `InvalidArgument`."""

    def refuse(constant: str) -> None:
        raise InvalidArgument(name, f"{constant} is not JSON")

    try:
        return json.loads(given, parse_constant=refuse)
    except (ValueError, RecursionError):
        raise InvalidArgument(name, 'this is not JSON; put text in quotes: "WIDGET"') from None


def _function(dead_letter: DeadLetter) -> Callable[..., Any]:
    """What takes the arguments: the body of the task, or the handler of the queue."""
    if dead_letter.cause == Cause.ADDED and not dead_letter.task:
        handler = conf.handler(dead_letter.queue)
        if handler is None:
            raise NotReplayable(f"DLQ_HANDLERS names no handler for the queue {dead_letter.queue!r}")
        return handler
    task = call.registered(dead_letter.task)
    if task is None:
        raise NotReplayable(
            f"no task {masked_text(dead_letter.task)!r} is registered here: its arguments cannot be checked"
        )
    run: Callable[..., Any] = task.run
    return run


def _original(dead_letter: DeadLetter) -> tuple[list[Any], dict[str, Any]]:
    """As received: what the columns hold of a message without a journal is what PostgreSQL could store of it."""
    args, kwargs = dead_letter.args, dead_letter.kwargs
    raw = dead_letter.message
    if raw is not None and dead_letter.generation is None:
        try:
            body = json.loads(raw.body)
            args, kwargs = (body["args"], body["kwargs"]) if isinstance(body, dict) else body[:2]
        except (ValueError, LookupError, TypeError, RecursionError):
            pass  # It could not be read: a call that can be made is what it is edited for.
    return list(args) if isinstance(args, list) else [], dict(kwargs) if isinstance(kwargs, dict) else {}


def _kept(given: Any, shown: Any, value: Any, name: str) -> Any:
    """`given` with the values behind each mask that was left where it was shown."""
    if _same(given, shown):
        return value
    if isinstance(given, dict) and isinstance(value, dict) and isinstance(shown, dict):
        return {
            _unmasked(key, name): _kept(item, shown[key], value[key], name)
            if key in shown and key in value
            else _unmasked(item, name)
            for key, item in given.items()
        }
    lists = isinstance(given, list) and isinstance(value, list) and isinstance(shown, list)
    if lists and len(given) == len(shown) == len(value):
        return [_kept(*each, name) for each in zip(given, shown, value, strict=True)]
    return _unmasked(given, name)


def _unmasked(given: Any, name: str) -> Any:
    if MASK in json.dumps(given, ensure_ascii=False, default=str):
        raise InvalidArgument(
            name, f"{MASK} is a mask, not a value: leave it where it was, or write the whole value"
        )
    return given


def _stays_masked(given: Any, shown: Any, name: str) -> None:
    """Refuse a secret that would be shown, since the name or the place by which it was recognised has changed."""
    if MASK not in json.dumps(given, ensure_ascii=False, default=str):
        return
    if isinstance(given, dict) and isinstance(shown, dict) and given.keys() == shown.keys():
        pairs = [(given[key], shown[key]) for key in given]
    elif isinstance(given, list) and isinstance(shown, list) and len(given) == len(shown):
        pairs = list(zip(given, shown, strict=True))
    elif _same(given, shown):
        return
    else:
        raise InvalidArgument(
            name, f"{MASK} cannot be moved, since its value would be shown here: write the whole value"
        )
    for pair in pairs:
        _stays_masked(*pair, name)


def _same(one: Any, other: Any) -> bool:
    # As JSON: to Python 1 is True.
    return json.dumps(one, sort_keys=True, default=str) == json.dumps(other, sort_keys=True, default=str)


def _arranged(before: Iterable[Argument], values: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """Positions stay positions; behind one that is left out they become keywords."""
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    left = dict(values)
    for argument in before:
        if argument.name not in left:
            continue
        value = left.pop(argument.name)
        if argument.key == len(args) and not kwargs:
            args.append(value)
        else:
            kwargs[argument.name if isinstance(argument.key, int) else argument.key] = value
    return args, kwargs | left


def _check(
    function: Callable[..., Any], args: list[Any], kwargs: dict[str, Any], new: dict[str, Any]
) -> None:
    for name, value in new.items():
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise InvalidArgument(name, f"it cannot be sent as JSON: {error}") from None
    try:
        inspect.signature(function).bind(*args, **kwargs)
    except TypeError as error:
        named = re.search("'(.+)'", str(error))
        surplus = f"[{len(_positions(function))}]" if str(error).startswith("too many") else ""
        raise InvalidArgument(named[1] if named else surplus, str(error)) from None
    try:
        hints = get_type_hints(function)
    except Exception:
        return  # The hint names what only a type checker imports.
    for name, value in new.items():
        if name in hints and not _fits(value, hints[name]):
            expected = inspect.formatannotation(hints[name])
            raise InvalidArgument(name, f"it must be {expected}, not {type(value).__name__}")


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value of JSON fits the type hint; a hint for which JSON has no type fits every value."""
    origin = get_origin(hint)
    if origin in (Union, UnionType):
        return any(_fits(value, each) for each in get_args(hint))
    allowed = _TYPES.get(origin or hint)
    if allowed is None:
        return True
    return isinstance(value, allowed) and (bool in allowed or not isinstance(value, bool))


def _parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return []


def _positions(function: Callable[..., Any]) -> list[str]:
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [parameter.name for parameter in _parameters(function) if parameter.kind in kinds]
