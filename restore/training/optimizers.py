"""Optimizers by the names of option files; PyTorch's in their fused form, one launch for all."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, cast, overload

import torch
from torch import Tensor, nn

from restore.training.schedules import Schedule
from restore.training.train_options import OptimOptions


def build_optimizer(
    options: OptimOptions, parameters: Iterable[nn.Parameter], *, fused: bool = True
) -> torch.optim.Optimizer:
    """The optimizer that an option file names.

    Args:
        options: PyTorch's defaults stand for what is left out.
        parameters: those that are trained.
        fused: False for parameters that are spread over processes, whose form is another.
    """
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    fused = fused and all(parameter.device.type in ("cpu", "cuda") for parameter in trained)
    lr, decay = options.lr, options.weight_decay
    if options.type == "SGD":
        return torch.optim.SGD(
            trained,
            lr,
            momentum=options.momentum,
            weight_decay=decay or 0.0,
            nesterov=options.nesterov,
            fused=fused,
        )
    if options.type == "Adam":
        return torch.optim.Adam(
            trained, lr, options.betas, options.eps, weight_decay=decay or 0.0, fused=fused
        )
    decay = 0.01 if decay is None else decay
    if options.type == "AdamW":
        return torch.optim.AdamW(
            trained, lr, options.betas, options.eps, weight_decay=decay, fused=fused
        )
    return ScheduleFreeAdamW(trained, lr, options.betas, options.eps, decay)


def set_rates(
    optimizer: torch.optim.Optimizer, base: float, rule: Schedule, iteration: int
) -> float:
    """Set the learning rate of an iteration, and return it."""
    rate = rule(base, iteration)
    for group in optimizer.param_groups:
        group["lr"] = rate
    return rate


class ScheduleFreeAdamW(torch.optim.Optimizer):
    """AdamW whose averaged iterate takes the place of a schedule.

    Source: Defazio et al., "The Road Less Scheduled", arXiv:2405.15682, algorithm 1: gradients are
    taken at y = (1 - beta1) z + beta1 x, the fast iterate z goes down, and x is the mean of all z,
    weighted by the squared rates. The parameters hold y while training; results are of x, which
    `averages` gives. Both are kept, so that reading x changes nothing.

    Args:
        params: those that are trained.
        lr: rate; a warm-up may change it from step to step.
        betas: beta1 of the interpolation, beta2 of the squared gradients' mean.
        eps: added to the root of that mean.
        weight_decay: taken at y, times the rate.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(
            params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        )
        for group in self.param_groups:
            group["steps"] = 0
            group["weight_sum"] = 0.0
        for parameter in self._parameters():
            self.state[parameter] = {
                "z": parameter.detach().clone(),
                "x": parameter.detach().clone(),
                "square": torch.zeros_like(parameter),
            }

    def _parameters(self) -> list[nn.Parameter]:
        return [parameter for group in self.param_groups for parameter in group["params"]]

    def averages(self) -> dict[nn.Parameter, Tensor]:
        """x of each parameter."""
        return {parameter: self.state[parameter]["x"] for parameter in self._parameters()}

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One step; parameters without a gradient stay."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            self._step_group(group)
        return loss

    def _step_group(self, group: dict[str, Any]) -> None:
        moved = [parameter for parameter in group["params"] if parameter.grad is not None]
        if not moved:
            return
        lr, (beta1, beta2) = group["lr"], group["betas"]
        group["steps"] += 1
        group["weight_sum"] += lr**2
        share = lr**2 / group["weight_sum"] if group["weight_sum"] else 0.0
        y = cast(list[Tensor], moved)
        grads = [cast(Tensor, parameter.grad) for parameter in moved]
        z, x, square = (
            [self.state[parameter][name] for parameter in moved] for name in ("z", "x", "square")
        )
        torch._foreach_mul_(square, beta2)
        torch._foreach_addcmul_(square, grads, grads, value=1 - beta2)
        scale = torch._foreach_div(square, 1 - beta2 ** group["steps"])
        torch._foreach_sqrt_(scale)
        torch._foreach_add_(scale, group["eps"])
        torch._foreach_addcdiv_(z, grads, scale, value=-lr)
        if group["weight_decay"]:
            torch._foreach_add_(z, y, alpha=-lr * group["weight_decay"])
        torch._foreach_lerp_(x, z, share)
        torch._foreach_copy_(y, z)
        torch._foreach_lerp_(y, x, beta1)
