"""From the spec's `optimizer` to torch's, with the head and the rest of the network in groups of their own."""

from typing import Any

import torch
import torch._dynamo  # optimizers import it when first built, which takes 1.4 s: a process forked to train has it now
from torch import nn

from models.spec.training import AdamSpec, AdamWSpec, FineTuningSpec, OptimizerSpec, RmspropSpec, SgdSpec

CLASSES: dict[type, type[torch.optim.Optimizer]] = {
    SgdSpec: torch.optim.SGD,
    AdamSpec: torch.optim.Adam,
    AdamWSpec: torch.optim.AdamW,
    RmspropSpec: torch.optim.RMSprop,
}
WITHOUT_FUSED = (RmspropSpec,)


def build_optimizer(
    spec: OptimizerSpec, network: nn.Module, head: nn.Module, fine_tuning: FineTuningSpec, *, implementation: str
) -> torch.optim.Optimizer:
    """The optimizer of everything that may ever be trained.

    Body and head are groups of their own where fine-tuning treats them differently. Each group keeps its `base_lr`,
    which the schedule multiplies; a body whose rate is 0 is left out. `implementation` is fused, foreach or forloop;
    what torch does not fuse takes foreach.
    """
    body, top = split_parameters(network, head)
    parts = [(body + top, spec.lr)]
    if fine_tuning.backbone_lr_factor != 1 or fine_tuning.freeze_backbone_epochs > 0:
        parts = [(body, spec.lr * fine_tuning.backbone_lr_factor), (top, spec.lr)]
    groups = [{"params": parameters, "lr": lr, "base_lr": lr} for parameters, lr in parts if parameters and lr > 0]
    options: dict[str, Any] = spec.model_dump(exclude={"name", "lr"})
    if implementation == "fused" and isinstance(spec, WITHOUT_FUSED):
        implementation = "foreach"
    options |= {"fused": True} if implementation == "fused" else {"foreach": implementation == "foreach"}
    return CLASSES[type(spec)](groups, **options)


def split_parameters(network: nn.Module, head: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """The parameters that are trained, those of the body and those of the head."""
    in_head = {id(parameter) for parameter in head.parameters()}
    trainable = [parameter for parameter in network.parameters() if parameter.requires_grad]
    return [p for p in trainable if id(p) not in in_head], [p for p in trainable if id(p) in in_head]


class Freezing:
    """Holds back the body of a network while its new head learns.

    Frozen parameters get no gradient, and frozen batch normalisation keeps its statistics: a body that is not trained
    must not drift by being looked at.
    """

    def __init__(self, network: nn.Module, head: nn.Module, spec: FineTuningSpec) -> None:
        self.network = network
        self.spec = spec
        self.body, _ = split_parameters(network, head)
        self.norms = [
            module
            for module in network.modules()
            if isinstance(module, nn.modules.batchnorm._NormBase) and module is not head
        ]

    def is_frozen(self, epoch: int) -> bool:
        """Whether the body is held back in this epoch."""
        return self.spec.backbone_lr_factor == 0 or epoch <= self.spec.freeze_backbone_epochs

    def set_training_mode(self, epoch: int) -> None:
        """Put the network into the mode that this epoch trains in."""
        frozen = self.is_frozen(epoch)
        self.network.train()
        for parameter in self.body:
            parameter.requires_grad_(not frozen)
            if frozen:
                parameter.grad = None
        if frozen:
            for norm in self.norms:
                norm.eval()
