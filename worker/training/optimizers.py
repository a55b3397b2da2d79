"""Builds torch's optimizer from the spec, with separate groups for the head and the body of the network."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch._dynamo  # optimizers import it when first built, which takes 1.4 s: a process forked to train has it now
from torch import nn

from models.networks.freezing import frozen_names
from models.spec.training import AdamSpec, AdamWSpec, FineTuningSpec, OptimizerSpec, RmspropSpec, SgdSpec

CLASSES: dict[type, type[torch.optim.Optimizer]] = {
    SgdSpec: torch.optim.SGD,
    AdamSpec: torch.optim.Adam,
    AdamWSpec: torch.optim.AdamW,
    RmspropSpec: torch.optim.RMSprop,
}
WITHOUT_FUSED = (RmspropSpec,)


class DirectSGD(torch.optim.SGD):
    """torch's fused SGD on a CPU without the overhead around its kernel: the same weights to the bit.

    Hooks, the profiler's records and the grouping by device and type take 65 of a step's 100 microseconds.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update the parameters that have a gradient."""
        taken = [
            [parameter for parameter in group["params"] if parameter.grad is not None] for group in self.param_groups
        ]
        buffers = [[self.state[parameter].get("momentum_buffer") for parameter in parameters] for parameters in taken]
        if any(buffer is None for group in buffers for buffer in group):
            super().step(closure)  # the first step, which makes the buffers, or one without momentum
            return
        for group, parameters, momenta in zip(self.param_groups, taken, buffers, strict=True):
            if not parameters:
                continue
            torch._fused_sgd_(
                parameters,
                [parameter.grad for parameter in parameters],
                momenta,
                lr=group["lr"],
                momentum=group["momentum"],
                weight_decay=group["weight_decay"],
                dampening=group["dampening"],
                nesterov=group["nesterov"],
                maximize=group["maximize"],
                is_first_step=False,
                grad_scale=getattr(self, "grad_scale", None),
                found_inf=getattr(self, "found_inf", None),
            )

    step.hooked = True  # type: ignore[attr-defined]  # or torch.optim.Optimizer wraps it

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Set the gradients to None."""
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad = None


def build_optimizer(
    spec: OptimizerSpec, network: nn.Module, head: nn.Module, fine_tuning: FineTuningSpec, *, implementation: str
) -> torch.optim.Optimizer:
    """Build the optimizer of all parameters that are trained in any epoch.

    Body and head are groups of their own where fine-tuning treats them differently. Each group keeps its `base_lr`,
    which the schedule multiplies; a body whose rate is 0 is left out. `implementation` is direct, fused, foreach or
    forloop; direct is fused with DirectSGD for SGD; optimizers that torch cannot fuse use foreach.
    """
    body, top = split_parameters(network, head)
    parts = [(body + top, spec.lr)]
    if fine_tuning.backbone_lr_factor != 1 or fine_tuning.freeze_backbone_epochs > 0:
        parts = [(body, spec.lr * fine_tuning.backbone_lr_factor), (top, spec.lr)]
    groups = [{"params": parameters, "lr": lr, "base_lr": lr} for parameters, lr in parts if parameters and lr > 0]
    options: dict[str, Any] = spec.model_dump(exclude={"name", "lr"})
    fused = implementation in ("direct", "fused") and not isinstance(spec, WITHOUT_FUSED)
    options |= {"fused": True} if fused else {"foreach": implementation != "forloop"}
    direct = implementation == "direct" and isinstance(spec, SgdSpec)
    return (DirectSGD if direct else CLASSES[type(spec)])(groups, **options)


def split_parameters(network: nn.Module, head: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """The parameters that are trained, those of the body and those of the head."""
    in_head = {id(parameter) for parameter in head.parameters()}
    trainable = [parameter for parameter in network.parameters() if parameter.requires_grad]
    return [p for p in trainable if id(p) not in in_head], [p for p in trainable if id(p) in in_head]


class Freezing:
    """Freezes parameters by pattern for good, and the body of a network in the first epochs, while its new head learns.

    Frozen parameters get no gradient, and frozen batch normalisation keeps its statistics: forward
    passes must not change a body that is not trained.
    """

    def __init__(self, network: nn.Module, head: nn.Module, spec: FineTuningSpec) -> None:
        self.network = network
        self.spec = spec
        self.always = freeze_by_pattern(network, spec.freeze)
        """Normalisation layers whose parameters are frozen by pattern."""
        self.body, _ = split_parameters(network, head)
        self.norms = [
            module
            for module in network.modules()
            if isinstance(module, nn.modules.batchnorm._NormBase) and module is not head
        ]

    def is_frozen(self, epoch: int) -> bool:
        """Whether the body is frozen in this epoch."""
        return self.spec.backbone_lr_factor == 0 or epoch <= self.spec.freeze_backbone_epochs

    def set_training_mode(self, epoch: int) -> None:
        """Set the network's mode for training in this epoch."""
        frozen = self.is_frozen(epoch)
        self.network.train()
        for parameter in self.body:
            parameter.requires_grad_(not frozen)
            if frozen:
                parameter.grad = None
        for norm in self.norms if frozen else self.always:
            norm.eval()


def freeze_by_pattern(network: nn.Module, patterns: Sequence[str]) -> list[nn.Module]:
    """Freeze the parameters that the patterns name. Returns the normalisation layers that have none left to train."""
    names = [name for name, parameter in network.named_parameters() if parameter.requires_grad]
    frozen = frozen_names(names, patterns)
    for name in frozen:
        network.get_parameter(name).requires_grad_(False)
    norms = [
        (name, module) for name, module in network.named_modules() if isinstance(module, nn.modules.batchnorm._NormBase)
    ]
    return [module for name, module in norms if frozen_names([f"{name}.weight", f"{name}.running_mean"], patterns)]
