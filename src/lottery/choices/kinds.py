"""Kinds of choices: scores, optimizers, networks, … Each choice is a frozen dataclass with a name.

A choice is registered by the decorator of its kind::

    @choices.score("squared")
    @dataclass(frozen=True)
    class Squared:
        '''Score = |weight| ** power.'''

        power: float = option(2.0, "exponent", gt=0)

        def scores(self, evidence): ...

Its fields are its options, all with defaults, which must never be changed: keys leave them out.
Hydra offers it as ``mask/score=squared``, with ``mask.score.power=3``. The decorated class has one
more field, ``name``, so that its values as JSON say what they are of.
"""

import dataclasses
import functools
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lottery.choices.code import LIBRARY, code
from lottery.errors import ConfigError
from lottery.options import did_you_mean, option

T = TypeVar("T", bound=type)
PACKAGE = Path(__file__).parents[1]


@dataclass(frozen=True, eq=False)
class Kind:
    """One kind of choice, and the choices of it that are known.

    ``group`` is its group in Hydra, and, with dots, the option that holds it. Modules of the
    package ``builtin`` are named as the choices that they register, and imported when one of those
    is asked for. Its module ``_library``, if there is one, has ``names()``, the choices that a
    library brings, and ``find(name)``, which makes a class for one, or says None. It may have
    ``EXCLUDED``, by name the reasons why others that the library has are no choices. ``key`` is the
    field that holds a choice's name. Of a kind with ``several``, the option holds any number of
    choices, in order, each below its own name: ``augmentation.cutout.size``. ``brings`` are options
    that all its choices have, whoever wrote them: the type and what makes the field, by name.
    """

    group: str
    builtin: str | None = None
    key: str = "name"
    several: bool = False
    brings: Mapping[str, tuple[Any, Callable[[], Any]]] = field(default_factory=dict)
    registered: dict[str, type] = field(default_factory=dict)

    @property
    def option(self) -> str:
        """The option that holds a choice of this kind: ``mask.score``."""
        return self.group.replace("/", ".")

    def __call__(self, name: str) -> Callable[[T], T]:
        """A class decorator that registers a choice.

        Raises :class:`ConfigError` for a class that cannot be one, and for a name that is taken.
        """

        def register(cls: T) -> T:
            chosen = self._named(cls, name)
            chosen.code = code(self.group, name, cls.__module__)  # type: ignore[attr-defined]
            self.registered[name] = chosen
            return chosen  # type: ignore[return-value]

        return register

    def names(self) -> tuple[str, ...]:
        """Names of all choices, sorted; imports none of them."""
        brought = self._library.names() if self._library else ()
        return tuple(sorted({*self._modules, *brought, *self.registered}))

    def shipped(self) -> tuple[str, ...]:
        """Names of those that come with this package, sorted."""
        return tuple(sorted(self._modules))

    def find(self, name: str) -> type:
        """The class of a choice. Raises :class:`ConfigError` for an unknown name."""
        if name not in self.registered and name in self._modules:
            importlib.import_module(f"{self.builtin}.{name}")
        if name not in self.registered and self._library and (made := self._library.find(name)):
            self(name)(made)
        if name not in self.registered:
            unknown = f"{self.group}={name} is unknown{did_you_mean(name, self.names())}"
            raise ConfigError(self.excluded(name) or unknown)
        return self.registered[name]

    def excluded(self, name: str) -> str | None:
        """Why a library's choice is none here; None unless it is excluded."""
        reason = getattr(self._library, "EXCLUDED", {}).get(name)
        return f"{self.group}={name} cannot be chosen: {reason}" if reason else None

    def all_of(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Several choices from the values of each. Raises what :meth:`of` raises."""
        return {str(n): self.of(v, f"{self.option}.{n}") for n, v in values.items()}

    def of(self, values: Any, place: str | None = None) -> Any:
        """A choice from its values as a config or JSON has them, its name among them.

        ``place`` is the option that holds it, if that is not the one of its kind. Raises
        :class:`ConfigError` for values that no choice of this kind can have.
        """
        place = place or self.option
        if type(values) in self.registered.values():
            name = getattr(values, self.key)
            if self.find(name) is type(values):
                return values
            raise ConfigError(
                f"{place}.{self.key}={name}: choose it by {self.group}={name}, which brings "
                "its options"
            )
        if not isinstance(values, Mapping | DictConfig) or not values.get(self.key):
            raise ConfigError(f"{place} has no value: choose one by {self.group}=…")
        cls = self.find(str(values[self.key]))
        known = {f.name for f in dataclasses.fields(cls)}
        for odd in sorted(set(map(str, values)) - known):
            free = sorted(known - {self.key})
            hint = did_you_mean(odd, free) if free else ": it has no options"
            raise ConfigError(
                f"option {place}.{odd} is unknown to {self.group}={values[self.key]}{hint}"
            )
        node = self.node(str(values[self.key]))
        try:
            return OmegaConf.to_object(OmegaConf.merge(node, dict(values)))
        except OmegaConfBaseException as error:
            first = str(error).splitlines()[0]
            raise ConfigError(f"{place}.{error.full_key}: {first}") from error

    def known_part(self, values: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
        """Those values that its choice has in this version; ``changes`` replace some it has.

        They may name another choice, which gets what both have in common. Raises
        :class:`ConfigError` for an unknown choice.
        """
        changed = {**values, **changes}
        known = {f.name for f in dataclasses.fields(self.find(str(changed.get(self.key))))}
        return {name: v for name, v in changed.items() if name in known}

    def node(self, name: str) -> DictConfig:
        """The options of a choice at their defaults, with their types, for a config."""
        node: DictConfig = OmegaConf.structured(self.find(name))
        OmegaConf.set_readonly(node, None)  # the class is frozen, but a config may change
        for f in map(str, node):
            if OmegaConf.get_type(node, f) is dict:
                OmegaConf.set_struct(node[f], False)  # or Hydra would refuse its keys
        return node

    def doc(self, name: str) -> str:
        """The first line of what a choice says of itself."""
        return (inspect.getdoc(self.find(name)) or "").partition("\n")[0]

    @functools.cached_property
    def _library(self) -> Any:
        known = self._folder is not None and (self._folder / f"{LIBRARY}.py").exists()
        return importlib.import_module(f"{self.builtin}.{LIBRARY}") if known else None

    @functools.cached_property
    def _modules(self) -> frozenset[str]:
        found = pkgutil.iter_modules([str(self._folder)] if self._folder else [])
        return frozenset(m.name for m in found if not m.name.startswith("_"))

    @property
    def _folder(self) -> Path | None:
        """Found without importing the package, which may import numpy."""
        return PACKAGE.joinpath(*self.builtin.split(".")[1:]) if self.builtin else None

    def _taken(self, name: str, cls: type) -> str | None:
        """What has the name of a choice already, if that is not ``cls``; it need not be loaded."""
        if (before := self.registered.get(name)) is not None:
            same = (before.__module__, before.__qualname__) == (cls.__module__, cls.__qualname__)
            return None if same else f"{before.__module__}.{before.__qualname__}"
        if name in self._modules:
            owner = f"{self.builtin}.{name}"
        elif self._library and name in self._library.names():
            owner = f"{self.builtin}.{LIBRARY}"
        else:
            return None
        return None if cls.__module__ == owner else owner

    def _named(self, cls: type, name: str) -> type:
        """The class with its name as a field, which stands where the class itself stood."""
        where = f"{cls.__module__}.{cls.__qualname__}"
        if not (dataclasses.is_dataclass(cls) and cls.__dataclass_params__.frozen):  # type: ignore[attr-defined]
            raise ConfigError(f"{where} must be a frozen dataclass to be {self.group}={name}")
        own = dataclasses.fields(cls)
        if any(f.name == self.key for f in own):
            raise ConfigError(f"{where} must not have an option {self.key}: it is its own name")
        if taken_twice := [f.name for f in own if f.name in self.brings]:
            raise ConfigError(
                f"{where} must not have an option {taken_twice[0]}: every {self.group} has it"
            )
        if getattr(cls, "watches_only", False) and hasattr(cls, "remembers"):
            raise ConfigError(
                f"{where} says both watches_only, that it changes nothing, and remembers, that it "
                "decides how a training goes on: leave out one of them"
            )
        for f in own:
            if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING:
                raise ConfigError(f"{where}: its option {f.name} must have a default")
        if (taken := self._taken(name, cls)) is not None:
            raise ConfigError(
                f"{self.group}={name} is {taken} already, and {where} wants the same name"
            )
        chosen = dataclasses.make_dataclass(
            cls.__name__,
            [
                (self.key, str, option(name, "name of the choice", always=True)),
                *((brought, *about[:1], about[1]()) for brought, about in self.brings.items()),
            ],
            bases=(cls,),
            frozen=True,
        )
        chosen.__module__, chosen.__qualname__ = cls.__module__, cls.__qualname__
        chosen.__doc__ = cls.__doc__
        return chosen
