"""What is not converted, and what to do instead: one sentence for each operation, whatever it is called."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jaxsnn.errors import UserError

_OTHER_ACTIVATION = "train with ReLU or ReLU6 in its place: spiking neurons pass on a rectified sum"
_NO_BATCH = "use BatchNorm in its place: it changes with every input, so it cannot be folded into weights"
_SENTENCES = {
    "softmax": "return the logits themselves: the largest score decides, with or without it",
    "sigmoid": "return the logits themselves if it is the last operation, otherwise train with ReLU in its place",
    "hardsigmoid hardswish swish silu gelu mish tanh elu selu celu softplus": _OTHER_ACTIVATION,
    "leakyrelu prelu rrelu thresholdedrelu": "train with ReLU in its place: neurons pass on nothing below zero",
    "layernorm groupnorm instancenorm rmsnorm layernormalization": _NO_BATCH,
    "groupnormalization instancenormalization localresponsenorm lrn": _NO_BATCH,
    "convtranspose": "use a convolution: transposed ones are not converted",
    "conv3d maxpool3d avgpool3d": "only one and two dimensions are converted",
    "upsample interpolate resize": "images cannot grow inside the network: take it out",
    "lstm gru rnn": "recurrent layers are not converted",
    "attention": "it multiplies activations with one another, which no weight can",
    "channelshuffle pixelshuffle": "channels cannot be cut apart and shuffled: train without it",
}
CONVERTED = (
    "convolutions, dense maps, BatchNorm, ReLU, ReLU6, average pools, sums, concatenation of channels, padding, "
    "flatten and reshape, and multiplication or addition of constants"
)


def refuse(operation: str, name: str) -> UserError:
    """The error for an operation that is not converted, at ``name`` in the model."""
    plain = operation.lower().replace("_", "")
    for words, advice in _SENTENCES.items():
        if any(word in plain for word in words.split()):
            return UserError(f"{name} is {operation}, which is not converted: {advice}")
    return UserError(f"{name} is {operation}, which is not converted; converted are {CONVERTED}")


@contextmanager
def reading(path: Path, what: str) -> Iterator[None]:
    """Turn what a file that is not as it should be makes Python raise into one sentence; ``what`` it should be."""
    try:
        yield
    except UserError as error:
        text = str(error)
        raise error if str(path) in text else UserError(f"{path}: {text}") from error
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise UserError(f"{path} is not {what}, or is damaged ({reason}): export it again") from error
