"""Registries: one table of names and constructors for every choice in a config.

A config writes a choice as a spec: a dict with `name` and the constructor's arguments,
or a plain string, which is short for `{"name": string}`. An argument can be a spec
itself; the constructor that takes it builds it with the registry of that kind. A name
with a colon, `"mymodule:MyHead"`, is a class from outside the package.
"""

import functools
import importlib
import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any

from fpn_jax import errors, types

Spec = str | Mapping[str, Any]
"""A name, or a dict with `name` and the arguments of its constructor."""

RESERVED = frozenset({"name", "parent"})
"""Arguments of every Flax module that a spec cannot set."""


class Registry:
    """The choices of one kind.

    Args:
      kind: The kind of choice, such as `"backbone"`, for error messages.
      table: Name → constructor: a class, a function, or a `functools.partial` of one.
        A spec cannot set the arguments that a partial fixes.
      base: Base class of classes from outside the package.
      members: Attributes that a class from outside the package must have.
    """

    def __init__(
        self,
        kind: str,
        table: Mapping[str, Callable[..., Any]],
        *,
        base: type = object,
        members: Collection[str] = (),
    ):
        self.kind, self.table = kind, table
        self._base, self._members = base, tuple(members)

    def names(self) -> tuple[str, ...]:
        """Returns the names in the table."""
        return tuple(self.table)

    def spec(self, spec: Spec) -> dict[str, Any]:
        """Returns a spec as a new dict, which has the key `name`.

        Args:
          spec: A name, or a dict with `name` and arguments.

        Raises:
          InputError: The spec is neither a string nor a dict with a string `name`.
        """
        if isinstance(spec, str):
            return {"name": spec}
        if not isinstance(spec, Mapping) or not isinstance(spec.get("name"), str):
            raise errors.InputError(
                f"{self.kind} is {spec!r}; give a name, or a dict with 'name' and its "
                f"arguments; the names are {', '.join(self.table)}"
            )
        return dict(spec)

    def accepts(self, name: str) -> frozenset[str]:
        """Returns the names of the arguments that a spec of this name can set.

        Args:
          name: A name of the table, or `"mymodule:MyClass"`.

        Raises:
          InputError: The name is unknown.
        """
        return frozenset(_parameters(self.constructor(name))) - RESERVED

    def constructor(self, name: str) -> Callable[..., Any]:
        """Returns the constructor of a name.

        Args:
          name: A name of the table, or `"mymodule:MyClass"`.

        Raises:
          InputError: The name is unknown, or its module or class cannot be used.
        """
        if ":" in name:
            return self._imported(name)
        if name not in self.table:
            raise errors.unknown(self.kind, name, self.table)
        return self.table[name]

    def build(
        self,
        spec: Spec,
        /,
        given: Mapping[str, Any] | None = None,
        withheld: Collection[str] = (),
        **arguments: Any,
    ) -> Any:
        """Returns the object that a spec describes.

        Args:
          spec: A name, or a dict with `name` and arguments.
          given: Arguments that the caller sets. The constructor gets those that it
            takes; a spec must not contain them.
          withheld: Arguments that keep their defaults; a spec must not contain them.
          **arguments: More arguments, which override those of the spec.

        Raises:
          InputError: The name, an argument or the value of an argument is invalid, or
            an argument without a default is missing.
        """
        chosen = self.spec(spec) | arguments
        name, given = chosen.pop("name"), given or {}
        constructor = self.constructor(name)
        parameters = _parameters(constructor)
        choices = parameters.keys() - RESERVED - given.keys() - set(withheld)
        for key in chosen:
            if key not in choices:
                kind = f"argument of {self.kind} {name!r}"
                raise errors.unknown(kind, key, sorted(choices) or ["(none)"])
        passed = chosen | {k: v for k, v in given.items() if k in parameters}
        for key, parameter in parameters.items():
            if key not in passed and parameter.default is parameter.empty:
                raise errors.InputError(
                    f"{self.kind} {name!r} needs the argument {key!r}"
                )
        try:
            built = constructor(**passed)
        except errors.InputError:
            raise
        except (TypeError, ValueError) as error:
            self._check_types(name, parameters, chosen)
            raise errors.InputError(
                f"{self.kind} {name!r} cannot be built from {chosen}: {error}"
            ) from error
        # The constructor has refused what it knows better than its annotations.
        self._check_types(name, parameters, chosen)
        return built

    def _check_types(
        self,
        name: str,
        parameters: Mapping[str, inspect.Parameter],
        chosen: Mapping[str, Any],
    ) -> None:
        for key, value in chosen.items():
            types.check(
                f"argument {key!r} of {self.kind} {name!r}",
                value,
                parameters[key].annotation,
            )

    def _imported(self, name: str) -> type:
        module_name, _, class_name = name.partition(":")
        about = f"{self.kind} {name!r}: module {module_name!r}"
        if not all(part.isidentifier() for part in module_name.split(".")):
            raise errors.InputError(f"{about} is not the name of a Python module")
        try:
            module = importlib.import_module(module_name)
        # The module is the user's own code, and may raise anything or exit.
        except (Exception, SystemExit) as error:
            absent = isinstance(error, ModuleNotFoundError) and error.name
            hint = "; its folder must be on PYTHONPATH" if absent == module_name else ""
            reason = f"{type(error).__name__}: {error}"
            raise errors.InputError(
                f"{about} cannot be imported ({reason}){hint}"
            ) from error
        found = getattr(module, class_name, None)
        if not isinstance(found, type):
            problem = "has no class" if found is None else "has no class, but a value,"
            raise errors.InputError(f"{about} {problem} {class_name!r}")
        missing = [member for member in self._members if not hasattr(found, member)]
        # `issubclass` does not work with a protocol that has attributes.
        if self._base not in found.__mro__ or missing:
            base = self._base.__name__
            required = [] if self._base is object else [f"inherit from {base}"]
            required += [f"have {', '.join(self._members)}"] if self._members else []
            raise errors.InputError(
                f"{self.kind} {name!r} cannot be used: the class must "
                f"{' and '.join(required)}; it lacks {', '.join(missing) or base}"
            )
        return found


@functools.cache
def _parameters(constructor: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Returns the arguments that a constructor takes by name, without fixed ones."""
    fixed = constructor.keywords if isinstance(constructor, functools.partial) else {}
    return {
        name: parameter
        for name, parameter in inspect.signature(constructor).parameters.items()
        if name not in fixed
        and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    }
