"""The command line that a config came from, or could have."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from lottery import choices
from lottery.config import Config
from lottery.options import options


def differences(config: Mapping[str, Any], defaults: Mapping[str, Any]) -> Iterator[str]:
    """The overrides that turn the default config into this one, as far as results go."""
    places = {"data.root", "data.dir", "paths.outputs", "paths.store", "plugins"}
    matter = {name: f.metadata["identity"] or name in places for name, f, _ in options(Config())}
    others = set()  # whose choice is not the default's, so that its values are not either
    for kind in choices.KINDS:
        if kind.several:
            yield from _several(kind, config, matter)
            continue
        if not matter.pop(kind.option):  # who asked for it
            continue
        inside, naming = f"{kind.option}.", f"{kind.option}.{kind.key}"
        chosen = config.get(naming, defaults.get(naming))
        if chosen not in kind.names():  # of a plug-in that is not here
            of_choice = {n: True for n in config if n.startswith(inside)}
        else:
            of_choice = {
                n: f.metadata.get("identity", True)
                for n, f, _ in options(kind.find(chosen)(), inside)
            }
        matter |= of_choice | dict.fromkeys(places & set(of_choice), True)
        matter.pop(naming, None)
        if chosen != defaults.get(naming):
            others |= set(of_choice)
            yield f"{kind.group}={_spelled(chosen)}"
    for name, matters in matter.items():
        default = _value(defaults, name)
        value = _value(config, name, default)
        if name == "rewind.epoch" and value is None:
            continue  # any will do
        if matters and (value != default or (name in others and name in config)):
            yield f"{name}={_spelled(value)}"


def _several(
    kind: choices.Kind, config: Mapping[str, Any], matter: dict[str, bool]
) -> Iterator[str]:
    """The override that chooses what this config has of a kind, and which options it has then."""
    matter.pop(kind.option, None)
    naming = [n for n in config if n.startswith(f"{kind.option}.") and n.endswith(f".{kind.key}")]
    if naming:
        yield f"{kind.group}=[{','.join(str(config[n]) for n in naming)}]"
    of_choices = (n for n in config if n.startswith(f"{kind.option}.") and n not in naming)
    matter |= dict.fromkeys(of_choices, True)


def _value(config: Mapping[str, Any], name: str, default: Any = None) -> Any:
    """That of an option; of a dictionary a flat config has the values alone."""
    inside = f"{name}."
    found = {n.removeprefix(inside): v for n, v in config.items() if n.startswith(inside)}
    return found or config.get(name, default)


def _spelled(value: Any) -> str:
    """A value in Hydra's grammar."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, list):
        return f"[{','.join(map(_spelled, value))}]"
    if isinstance(value, dict):  # whose keys Hydra takes without quotes only
        keys = (re.sub(r"([^\w./+*?@-])", r"\\\1", key) for key in value)
        pairs = zip(keys, map(_spelled, value.values()), strict=True)
        return f"{{{','.join(map(':'.join, pairs))}}}"
    text = str(value)
    if re.fullmatch(r"[\w./+-]+", text):
        return text
    return "'" + text.replace("'", "\\'") + "'"
