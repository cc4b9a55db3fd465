"""`tf.function` and `tf.Module` as something exportable.

Thread: the one that owns the function, usually the kernel's main thread.
"""

from __future__ import annotations

import contextlib
import inspect
import sys
from typing import Any

from ..errors import ExportFailed, ModelNotServable
from ..types import DEFAULT_SIGNATURE, TensorSpec
from .arrays import columns_of, specs_of
from .endpoint import ExportSource, is_list, leaves, name_outputs, pack, unique
from .keras_source import is_built_keras_object
from .reasons import innermost

_SIGNATURE_HINT = (
    "@tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32, name='x')]), or give a batch: --check VARIABLE"
)


def is_tf_function(value: object) -> bool:
    """Whether a value is a `tf.function` or one of its traces; TensorFlow is not imported for this."""
    tf = sys.modules.get("tensorflow")
    if tf is None:
        return False
    kinds = tf.types.experimental
    return isinstance(value, kinds.GenericFunction | kinds.ConcreteFunction)


def is_tf_module(value: object) -> bool:
    """Whether a value is a `tf.Module`."""
    tf = sys.modules.get("tensorflow")
    return tf is not None and isinstance(value, tf.Module)


def function_source(function: Any, example: object = None) -> ExportSource:
    """Make a `tf.function` exportable; its variables and tables are found by themselves.

    Args:
        function: a `tf.function`, or a concrete function.
        example: a batch of its inputs; needed when it has no `input_signature`.

    Raises:
        ModelNotServable: if it has no input signature, or takes what requests cannot carry.
        ExportFailed: if it cannot be traced.
    """
    description = f"tf.function {_name_of(function)!r}"
    return _source(function, owners(function), example, description)


def module_source(module: Any, example: object = None) -> ExportSource:
    """Make a `tf.Module` exportable.

    Its endpoint is the `tf.function` named `serving_default`, else `__call__`, else the only one that has an
    `input_signature`.

    Raises:
        ModelNotServable: if there is no such function, or several.
        ExportFailed: if it cannot be traced.
    """
    description = _description(module)
    functions = _functions_of(module)
    ready = [name for name, function in functions.items() if getattr(function, "input_signature", None) is not None]
    preferred = [name for name in (DEFAULT_SIGNATURE, "__call__") if name in functions]
    candidates = [name for name in preferred if name in ready or example is not None] or ready
    if not candidates and example is not None:
        candidates = list(functions)
    if not candidates:
        has = f"its functions {', '.join(functions)} have none" if functions else "it has no tf.function at all"
        raise ModelNotServable(f"{description} has no input signature: {has}", hint=_SIGNATURE_HINT)
    if len(candidates) > 1 and candidates[0] not in preferred:
        raise ModelNotServable(
            f"{description} has several functions that could be served: {', '.join(candidates)}",
            hint=f"name one of them {DEFAULT_SIGNATURE} or __call__, or deploy one: model = module.{candidates[0]}",
        )
    name = candidates[0]
    return _source(functions[name], (module,), example, f"{description} (function {name})")


def _description(module: Any) -> str:
    """The kind and the name of a module; one that does not call `super().__init__()` has no name."""
    kind = type(module).__name__
    name = getattr(module, "_name", None)
    return kind if name is None else f"{kind} {name!r}"


def _source(function: Any, tracked: tuple[object, ...], example: object, description: str) -> ExportSource:
    concrete = _concrete(function, example, description)
    structure = _parameters(concrete)
    parts = [part for _, part in leaves(structure)]
    found = [part for part in parts if _is_tensor(part, description)]
    if not found:
        raise ModelNotServable(f"{description} takes no tensors", hint=_SIGNATURE_HINT)
    names = unique([spec.name or f"input_{position}" for position, spec in enumerate(found)])
    specs = [
        TensorSpec(name, spec.dtype.name, None if spec.shape.rank is None else tuple(spec.shape.as_list()))
        for name, spec in zip(names, found, strict=True)
    ]

    def call(*tensors: Any) -> dict[str, Any]:
        given = iter(tensors)
        packed = pack(structure, (next(given) if _is_tensor(part, description) else part for part in parts))
        return name_outputs(concrete(*packed["args"], **packed["kwargs"]))

    args = [one for one in structure["args"] if any(_is_tensor(part, description) for _, part in leaves(one))]
    by_keyword = any(_is_tensor(part, description) for _, part in leaves(structure["kwargs"]))
    order = names if not by_keyword and is_list(args[0] if len(args) == 1 else args) else ()
    return ExportSource(description=description, inputs=tuple(specs), call=call, tracked=tracked, order=order)


def _concrete(function: Any, example: object, description: str) -> Any:
    """The one trace that is served."""
    if not hasattr(function, "get_concrete_function"):
        return function
    arguments: dict[str, Any] = {}
    if function.input_signature is None:
        if example is None:
            raise ModelNotServable(f"{description} has no input signature", hint=_SIGNATURE_HINT)
        arguments = _arguments(function, example, description)
    try:
        return function.get_concrete_function(**arguments)
    except Exception as error:
        raise ExportFailed(
            f"{description} cannot be traced: {innermost(error)}",
            hint="call it once on a batch in a cell: TensorFlow then shows the line that fails",
        ) from error


def _arguments(function: Any, example: object, description: str) -> dict[str, Any]:
    """Parameter -> `tf.TensorSpec`, read off a batch."""
    import tensorflow as tf

    found = inspect.signature(function.python_function).parameters
    parameters = [name for name in found if name != "self"]
    required = [name for name in parameters if found[name].default is inspect.Parameter.empty]
    named = columns_of(example)
    if named is not None and set(required) <= set(named) <= set(parameters):
        values = {name: named[name] for name in parameters if name in named}
    elif len(required) == 1 or len(parameters) == 1:
        values = {parameters[0]: example}
    elif isinstance(example, list | tuple) and len(required) <= len(example) <= len(parameters):
        values = dict(zip(parameters, example, strict=False))
    else:
        raise ModelNotServable(
            f"{description} takes {', '.join(parameters) or 'nothing'}, and the example does not fit",
            hint=f"give a dict with the keys {', '.join(parameters)}",
        )
    arguments = {name: specs_of(value) for name, value in values.items()}
    specs = [tf.TensorSpec(spec.shape, spec.dtype, name="_".join(map(str, path))) for path, spec in leaves(arguments)]
    return pack(arguments, specs)  # type: ignore[no-any-return]  # a structure packs into one of the same form


def _parameters(concrete: Any) -> dict[str, Any]:
    """What a trace takes: specs in the place of tensors; arguments of other kinds as it was made with them."""
    args, kwargs = concrete.structured_input_signature
    types = {name: one.type_constraint for name, one in concrete.function_type.parameters.items()}

    def value(name: str, given: Any) -> Any:
        # TensorFlow keeps what is neither a tensor nor a plain value, a function for instance, in the type only.
        is_kept_there = type(given).__name__ == "UnknownArgument"
        return types[name].placeholder_value(None) if is_kept_there and name in types else given

    return {
        "args": [value(name, given) for name, given in zip(types, args, strict=False)],
        "kwargs": {name: value(name, given) for name, given in kwargs.items()},
    }


def _is_tensor(part: Any, description: str) -> bool:
    """Whether a part of what a trace takes is a tensor, and no value that it was made with."""
    import tensorflow as tf

    if isinstance(part, tf.TypeSpec) and not isinstance(part, tf.TensorSpec):
        kind = type(part).__name__.removesuffix("Spec")
        raise ModelNotServable(
            f"{description} takes {part!r}, a {kind}; requests carry dense tensors",
            hint="wrap it in a tf.function that takes dense tensors only",
        )
    return isinstance(part, tf.TensorSpec)


def _functions_of(module: Any) -> dict[str, Any]:
    """The module's own `tf.function`s by name; those of `tf.Module` itself and of its submodules are left out."""
    names = dict.fromkeys([*vars(module), *(name for kind in type(module).__mro__ for name in vars(kind))])
    found = {}
    for name in names:
        # A property would run the user's code; a tf.function in a class is looked up without that.
        if isinstance(inspect.getattr_static(module, name, None), property):
            continue
        value = getattr(module, name, None)
        if is_tf_function(value):
            found[name] = value
    return found


def owners(function: Any) -> tuple[object, ...]:
    """The module that a function is a method of, and modules, layers and tables that its code refers to by name.

    Variables need no owner, they are found through the trace; tables have to be reached through an object.
    """
    import tensorflow as tf

    python_function = getattr(function, "python_function", None)
    bound_to = getattr(inspect.unwrap(python_function), "__self__", None) if python_function else None
    # TensorFlow binds a method to a stand-in that has the module as its target.
    candidates = [getattr(bound_to, "target", bound_to)]
    with contextlib.suppress(TypeError):
        variables = inspect.getclosurevars(inspect.unwrap(python_function))  # type: ignore[arg-type]  # see suppress
        candidates += [*variables.nonlocals.values(), *variables.globals.values()]
    kinds = (tf.Module, tf.saved_model.experimental.TrackableResource)
    return tuple(value for value in candidates if isinstance(value, kinds) or is_built_keras_object(value))


def _name_of(function: Any) -> str:
    name = getattr(function, "__name__", None) or getattr(function, "name", "") or "function"
    return name.decode() if isinstance(name, bytes) else str(name)
