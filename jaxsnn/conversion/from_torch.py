"""A live PyTorch module as a graph, traced by ``torch.export`` in inference mode."""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from jaxsnn.conversion.aten import Call, Ref, Translator
from jaxsnn.conversion.graph import Graph
from jaxsnn.errors import UserError

BATCH = 2
"""Images in the traced batch: not 1, so that a view which mixes images with one another shows."""


def graph_of_module(module: Any, input_shape: Sequence[int]) -> Graph:
    """The graph of a ``torch.nn.Module`` for inputs (N, *input_shape).

    The module is traced in inference mode and left as it was: nothing in it changes.

    Args:
        input_shape: (C, H, W), (C, L) or (F,), as the module takes it, without the batch.

    Raises:
        UserError: PyTorch cannot trace the module, or it does something that is not converted.
    """
    import torch

    x = torch.zeros(BATCH, *input_shape, **_kind_of(module))
    with _inference_mode_of(module), _quiet(), torch.no_grad():
        try:
            program = torch.export.export(module, (x,))
        except Exception as error:  # whatever the module or the tracer raises
            reason = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
            raise UserError(
                f"PyTorch cannot trace {type(module).__name__} for an input of shape {tuple(x.shape)} ({reason}): "
                "give input_shape as the module takes it, without the batch, and keep decisions that depend on "
                "values out of forward"
            ) from error
    return graph_of_program(program, tuple(x.shape))


def module_logits(module: Any, x: np.ndarray) -> np.ndarray:
    """What the module itself makes of ``x`` in inference mode, (N, classes)."""
    import torch

    with _inference_mode_of(module), torch.no_grad():
        return module(torch.from_numpy(x).to(**_kind_of(module))).float().cpu().numpy()


def _kind_of(module: Any) -> dict[str, Any]:
    """Type and device of the module's parameters."""
    first = next((p for p in module.parameters() if p.is_floating_point()), None)
    return {} if first is None else {"dtype": first.dtype, "device": first.device}


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the tracer logs, which is said again in the error's own sentence."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


@contextmanager
def _inference_mode_of(module: Any) -> Iterator[None]:
    training = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, was in training:
            part.training = was


def graph_of_program(program: Any, shape: tuple[int, ...]) -> Graph:
    """The graph of a ``torch.export.ExportedProgram`` for an input of ``shape``, the batch included."""
    import torch

    signature = program.graph_signature
    constants: dict[str, tuple[str, np.ndarray]] = {}
    inputs = []
    for spec in signature.input_specs:
        name = spec.arg.name
        if spec.kind == torch.export.graph_signature.InputKind.USER_INPUT:
            inputs.append(name)
        elif spec.target in program.state_dict:
            constants[name] = (spec.target, _to_numpy(program.state_dict[spec.target], spec.target))
        elif spec.target in program.constants:
            constants[name] = (spec.target, _to_numpy(program.constants[spec.target], spec.target))
    if len(inputs) != 1:
        raise UserError(f"the model takes {len(inputs)} inputs, expected one: the image")
    if len(signature.user_outputs) != 1 or not isinstance(signature.user_outputs[0], str):
        raise UserError(f"the model returns {len(signature.user_outputs)} values, expected one: the logits")
    calls = [_call(torch, node) for node in program.graph.nodes if node.op == "call_function"]
    return Translator(shape, inputs[0], constants).run(calls, signature.user_outputs[0])


def _call(torch: Any, node: Any) -> Call:
    if isinstance(node.target, torch._ops.OpOverload):
        schema = node.target._schema.arguments
        given = dict(zip((argument.name for argument in schema), node.args)) | dict(node.kwargs)
        target = f"{node.target.overloadpacket.__name__}.{node.target._overloadname}"
    else:
        given = {"input": node.args[0], **{f"argument{k}": v for k, v in enumerate(node.args[1:], 1)}}
        target = getattr(node.target, "__name__", str(node.target))
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    module = stack[-1][0] if stack else ""
    arguments = {key: torch.fx.node.map_arg(value, lambda n: Ref(n.name)) for key, value in given.items()}
    return Call(target, arguments, (node.name,), module)


def _to_numpy(tensor: Any, name: str) -> np.ndarray:
    try:
        plain = tensor.detach().cpu()
        return (plain.float() if plain.is_floating_point() else plain).numpy()
    except (TypeError, RuntimeError) as error:
        raise UserError(f"{name} is a {tensor.layout} tensor of {tensor.dtype}, expected plain numbers") from error
