"""Lets Hydra choose whatever is registered, without a YAML file for each.

Every choice of a kind is a config of the kind's group, at its defaults: ``optimizer=lion``. A file
``conf/optimizer/lion.yaml`` comes first. A file that sets other values builds on the options of the
choice by ``defaults: [/options/optimizer/lion@_here_]``.
"""

import sys

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.object_type import ObjectType
from hydra.plugins.config_source import ConfigLoadError, ConfigResult, ConfigSource
from hydra.plugins.search_path_plugin import SearchPathPlugin

from lottery.choices import KINDS, Kind
from lottery.errors import ConfigError

SCHEME = "lottery"
OPTIONS = "options"  # the group in which a choice is found whatever files there are


class Choices(ConfigSource):
    """The groups of all kinds, and the same once more below ``options/``."""

    @staticmethod
    def scheme() -> str:
        """Of the path that stands for all that is registered."""
        return SCHEME

    def available(self) -> bool:
        """Always."""
        return True

    def load_config(self, config_path: str) -> ConfigResult:
        """The options of a choice at their defaults. Raises :class:`ConfigLoadError` for none."""
        kind, name = self._place(config_path)
        if kind is None or name not in kind.names():
            raise ConfigLoadError(f"no such choice: {config_path}")
        try:
            node = kind.node(name)
        except ConfigError as error:
            raise ConfigLoadError(str(error)) from error
        return ConfigResult(
            provider=self.provider,
            path=f"{self.scheme()}://{self.path}",
            config=node,
            header={"package": f"{kind.option}.{name}" if kind.several else None},
        )

    def is_group(self, config_path: str) -> bool:
        """Whether choices are listed there, or groups of them."""
        inside = self._inside(config_path)
        return any(f"{k.group}/".startswith(f"{inside}/" if inside else "") for k in KINDS)

    def is_config(self, config_path: str) -> bool:
        """Whether it is a choice."""
        kind, name = self._place(config_path)
        return kind is not None and name in kind.names()

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        """Names of the groups and choices there."""
        found: set[str] = set()
        inside = self._inside(config_path)
        if results_filter in (None, ObjectType.GROUP):
            below = [k.group.split("/") for k in KINDS]
            depth = len(inside.split("/")) if inside else 0
            found |= {g[depth] for g in below if len(g) > depth and "/".join(g[:depth]) == inside}
        if results_filter in (None, ObjectType.CONFIG) and self._inside(config_path) == config_path:
            found |= {n for k in KINDS if k.group == config_path for n in k.names()}
        return sorted(found)

    def _inside(self, path: str) -> str:
        return path.strip("/").removeprefix(OPTIONS).strip("/")

    def _place(self, path: str) -> tuple[Kind | None, str]:
        group, _, name = self._inside(path.removesuffix(".yaml")).rpartition("/")
        return next((kind for kind in KINDS if kind.group == group), None), name


class ChoicesPath(SearchPathPlugin):
    """Searches all that is registered after every folder, in the scripts of this project."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Append what is registered, unless another program is running."""
        if "lottery.cli" in sys.modules:
            search_path.append(provider=SCHEME, path=f"{SCHEME}://choices")
