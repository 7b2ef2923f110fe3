"""A Keras network as a configuration that holds all of it, and the network of a configuration.

What a key must tell apart is the function that is trained. Of a functional network that is its
configuration, as Keras saves it, in one form: without what depends on the process in which it was
made (automatic names count on), on the data that it has seen, or on the precision.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras

from lottery import models
from lottery.errors import ConfigError
from lottery.models.kernels import flat_layers, layer_kernels

_WAY_OUT = (
    "write it as a choice of model in a module of your own, whose source the key holds: see "
    "CONTRIBUTING.md"
)


def architecture(model: Any) -> str:
    """The configuration of a functional or Sequential network, as JSON that :func:`build` reads.

    Raises :class:`ConfigError` for a network that no key could hold, or that does not end in
    logits.
    """
    _check(model)
    functional = keras.Model(model.inputs[0], model.outputs[0], name="given")
    config = _plain(functional.get_config())
    _refuse_own(config)
    _forget_seeds(config)
    _rename(config)
    return json.dumps(config, sort_keys=True, separators=(",", ":"))


def build(text: str, input_shape: tuple[int, ...], classes: int) -> keras.Model:
    """The network of :func:`architecture` with fresh weights and a head for ``classes`` classes.

    Raises :class:`ValueError` for an input of another shape, and for a head that has no number of
    units to set.
    """
    if not text:
        raise ValueError(
            "it is what lottery.Study makes of a Keras network: it has no architecture"
        )
    config = json.loads(text)
    _set_input(config, input_shape)
    model = _from_config(config)
    if model.output_shape[-1] != classes:
        _set_units(config, models.head(model).name, classes)
        model = _from_config(config)
        if model.output_shape[-1] != classes:
            raise ValueError(
                f"its head cannot be made for {classes} classes: it gives "
                f"{model.output_shape[-1]} outputs"
            )
    return model


def _from_config(config: Mapping[str, Any]) -> keras.Model:
    """Keras changes what it is given."""
    models.reset_names()
    made: keras.Model = keras.Model.from_config(json.loads(json.dumps(config)))
    return made


def _check(model: Any) -> None:
    if not isinstance(model, keras.Model):
        raise ConfigError(
            f"the network is {type(model).__name__}, not a keras.Model or a function that makes one"
        )
    known = isinstance(model, keras.Sequential | keras.src.models.functional.Functional)
    if not known or type(model).__module__.split(".")[0] != "keras":
        raise ConfigError(
            f"{type(model).__name__} is a subclass of keras.Model, and no key could hold what its "
            f"call() computes: build it with keras.Input and keras.Model(inputs, outputs), or "
            f"{_WAY_OUT}"
        )
    if not getattr(model, "inputs", None):
        raise ConfigError("the network has no input shape: begin it with keras.Input(shape)")
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise ConfigError(
            f"the network has {len(model.inputs)} inputs and {len(model.outputs)} outputs: it must "
            "have one of each, from examples to the logits of the classes"
        )
    inside = flat_layers(model)
    for layer in inside:
        _check_layer(layer)
    named = set(_names(model.get_config()))  # not those that a layer makes inside itself
    automatic = [layer for layer in inside if layer.weights and _is_automatic(layer)]
    if unnamed := [layer.name for layer in automatic if layer.name in named]:
        more = ", …" if unnamed[3:] else ""
        raise ConfigError(
            f"{len(unnamed)} layer{'s' * (len(unnamed) > 1)} with weights "
            f"{'have' if unnamed[1:] else 'has'} no name of {'their' if unnamed[1:] else 'its'} "
            f"own ({', '.join(unnamed[:3])}{more}): masks and checkpoints refer to weights by "
            "name, and automatic ones differ from one process to the next; give each name=…"
        )
    if not any(layer_kernels(layer) for layer in inside):
        raise ConfigError("the network has no layer with a kernel, so nothing could be pruned")
    _check_end(model, inside)


def _check_layer(layer: Any) -> None:
    kind = type(layer)
    if kind.__name__ == "Lambda":
        raise ConfigError(
            f"{layer.name} is a Lambda layer, and no key could hold what its function computes: "
            f"use a layer of Keras, or {_WAY_OUT}"
        )
    if not kind.__module__.split(".")[0] == "keras":
        raise ConfigError(
            f"{layer.name} is a {kind.__name__} of your own, and no key could hold its code: "
            f"{_WAY_OUT}"
        )
    config = layer.get_config() if hasattr(layer, "adapt") else {}
    if any(config.get(name, 0) is None for name in ("mean", "bin_boundaries", "vocabulary")):
        raise ConfigError(
            f"{layer.name} is a {kind.__name__} whose values come from adapt(), which its "
            "configuration does not hold: give them as arguments, as in "
            "Normalization(mean=…, variance=…)"
        )
    if layer.dtype_policy.name != "float32":
        raise ConfigError(
            f"{layer.name} was built for {layer.dtype_policy.name}: build the network in float32, "
            "and choose trainer.precision"
        )


def _refuse_own(value: Any) -> None:
    """Functions and classes that layers have been given: initializers, activations and the like."""
    if isinstance(value, dict):
        module, kind = value.get("module"), value.get("class_name")
        if kind == "__lambda__" or (isinstance(module, str) and module.split(".")[0] != "keras"):
            raise ConfigError(
                f"the network has {value.get('config') if kind == 'function' else kind} of your "
                f"own in it, and no key could hold its code: use what Keras has, or {_WAY_OUT}"
            )
    for inner in value.values() if isinstance(value, dict) else value:
        if isinstance(inner, dict | list):
            _refuse_own(inner)


def _check_end(model: Any, inside: list[Any]) -> None:
    """It must give logits, one for each class."""
    operation = model.outputs[0]._keras_history.operation  # a layer, or one of keras.ops
    activations = {type(o).__name__.lower() for o in (operation, inside[-1])}
    last = getattr(inside[-1], "activation", None)
    activations.add(getattr(last, "__name__", "linear"))
    if found := activations & {"softmax", "sigmoid", "log_softmax", "logsoftmax"}:
        raise ConfigError(
            f"the network ends in {found.pop()}: it must end in logits, so leave the activation "
            "of the last layer out"
        )
    shape = model.output_shape
    if len(shape) != 2 or shape[-1] is None:
        raise ConfigError(
            f"the network gives {shape[1:]} for an example: it must give one logit for each class"
        )
    if shape[-1] == 1:
        raise ConfigError(
            "the network gives a single number: give it an output for each class, two where there "
            "are two"
        )


def _names(value: Any) -> Iterator[str]:
    """The names of all layers in a configuration."""
    if isinstance(value, dict):
        inner = value.get("config")
        if "class_name" in value and isinstance(inner, dict) and "name" in inner:
            yield inner["name"]
    for part in value.values() if isinstance(value, dict) else value:
        if isinstance(part, dict | list | tuple):
            yield from _names(part)


def _is_automatic(layer: Any) -> bool:
    """Whether its name is one that Keras made of the name of its class."""
    return _automatic(type(layer).__name__).fullmatch(layer.name) is not None


def _automatic(class_name: str) -> re.Pattern[str]:
    return re.compile(rf"{_snake(class_name)}(_\d+)?")


def _snake(class_name: str) -> str:
    spaced = re.sub(r"(.)([A-Z][a-z0-9]+)", r"\1_\2", re.sub(r"\W+", "", class_name))
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", spaced).lower()


def _plain(value: Any) -> Any:
    """JSON values, without precision, addresses of objects and what was built already."""
    if isinstance(value, Mapping):
        return {
            name: _plain(v)
            for name, v in value.items()
            if name not in ("shared_object_id", "build_config")
            and not (name == "dtype" and _is_default(v))
        }
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value


def _is_default(policy: Any) -> bool:
    return isinstance(policy, Mapping) and policy.get("config") == {"name": "float32"}


def _nested(config: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The configurations of networks inside a network."""
    for layer in config["layers"]:
        if "layers" in layer["config"]:
            yield layer["config"]


def _forget_seeds(config: Mapping[str, Any]) -> None:
    """Layers such as RandomCrop draw a seed when they are made; the study's seed decides."""
    for layer in config["layers"]:
        if layer["class_name"].startswith("Random") and "seed" in layer["config"]:
            layer["config"]["seed"] = None
    for inner in _nested(config):
        _forget_seeds(inner)


def _rename(config: dict[str, Any]) -> None:
    """Count automatic names from the beginning, in the order of the layers."""
    given = {
        layer["config"]["name"]
        for layer in config["layers"]
        if not _automatic(layer["class_name"]).fullmatch(layer["config"]["name"])
    }
    renamed: dict[str, str] = {}
    for layer in config["layers"]:
        old = layer["config"]["name"]
        if old not in given:
            base, number = _snake(layer["class_name"]), 0
            while (new := f"{base}_{number}" if number else base) in {*given, *renamed.values()}:
                number += 1
            renamed[old] = new
    for layer in config["layers"]:
        name = layer["config"]["name"]
        layer["config"]["name"] = renamed.get(name, name)
        if "name" in layer:
            layer["name"] = layer["config"]["name"]
    _everywhere(config, lambda name: renamed.get(name, name))
    for inner in _nested(config):
        _rename(inner)


def _everywhere(config: dict[str, Any], new: Callable[[str], str]) -> None:
    """Rename the layers in what refers to them: connections, inputs and outputs."""

    def connections(value: Any) -> None:
        if isinstance(value, dict):
            if "keras_history" in value:
                value["keras_history"][0] = new(value["keras_history"][0])
            for inner in value.values():
                connections(inner)
        elif isinstance(value, list):
            for inner in value:
                connections(inner)

    def ends(value: Any) -> Any:
        if isinstance(value, list) and value and isinstance(value[0], str):
            return [new(value[0]), *value[1:]]
        if isinstance(value, list):
            return [ends(v) for v in value]
        return value

    for layer in config["layers"]:
        connections(layer.get("inbound_nodes", []))
    for name in ("input_layers", "output_layers"):
        if name in config:
            config[name] = ends(config[name])


def _set_input(config: Mapping[str, Any], shape: tuple[int, ...]) -> None:
    (entry,) = (layer for layer in config["layers"] if layer["class_name"] == "InputLayer")
    batch, *takes = entry["config"]["batch_shape"]
    if len(takes) != len(shape) or any(
        t not in (None, s) for t, s in zip(takes, shape, strict=True)
    ):
        raise ValueError(f"it takes examples of shape {tuple(takes)}")
    entry["config"]["batch_shape"] = [batch, *shape]


def _set_units(config: Mapping[str, Any], name: str, classes: int) -> None:
    for layer in config["layers"]:
        if layer["config"]["name"] == name:
            for option in ("units", "filters"):
                if option in layer["config"]:
                    layer["config"][option] = classes
    for inner in _nested(config):
        _set_units(inner, name, classes)
