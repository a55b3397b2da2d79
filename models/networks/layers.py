"""A network's first convolution and its head, found by walking its modules."""

from torch import nn


def first_convolution(network: nn.Module) -> tuple[str, nn.Conv2d]:
    """The name and module of the first convolution, which sees the image. Raises ValueError if there is none."""
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            return name, module
    raise ValueError(f"{type(network).__name__} has no convolution")


def head_name(network: nn.Module) -> str:
    """The name of the last layer with weights, which turns features into classes."""
    names = [name for name, module in network.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    if not names:
        raise ValueError(f"{type(network).__name__} has no layer with weights")
    return str(names[-1])


def head_of(network: nn.Module) -> nn.Conv2d | nn.Linear:
    """The last layer with weights; everything else is the backbone."""
    head = network.get_submodule(head_name(network))
    assert isinstance(head, nn.Conv2d | nn.Linear)
    return head
