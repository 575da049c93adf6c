"""Layers inside of blocks: what is in their place is called, and who watches them sees every call.

On the small networks of tests/golden, so every architecture is tested by being there.
"""

from __future__ import annotations

import copy
import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest
import torch
from golden_data import Tiny, cotangent, small_cases
from test_golden import EXACT, SINGLE, load_tiny, off, run
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook
from torch.nn.utils import parametrize, prune

from restore.archs import ARCHS
from restore.archs._blocks import Blocks
from restore.archs._plain import plain
from restore.archs._swin import SwinBlock

every_arch = pytest.mark.parametrize("arch", [spec.name for spec in ARCHS])
# lists have no calls, and the authors too add an embedding's whole weight
NEVER_CALLED = (nn.ModuleList, nn.Embedding)


def names_of_one_of_each_kind(net: nn.Module) -> list[str]:
    """The last module of every kind that is called, known by the end of its name, numbers aside."""
    named = {n: m for n, m in net.named_modules() if n and not isinstance(m, NEVER_CALLED)}
    return list({re.sub(r"\d+", "#", ".".join(n.split(".")[-2:])): n for n in named}.values())


def linears(net: nn.Module) -> list[tuple[str, nn.Linear]]:
    return [(name, m) for name, m in net.named_modules() if isinstance(m, nn.Linear)]


def smallest(arch: str, dtype: str = "fp64") -> tuple[Tiny, nn.Module]:
    case = small_cases(arch)[0]
    return case, load_tiny(case, dtype).module


@every_arch
def test_modules_called_one_by_one_give_the_authors_numbers(arch: str) -> None:
    """A hook on all modules of a process leaves nothing to be fused."""
    case = small_cases(arch)[0]
    model = load_tiny(case, "fp64")
    calls: Counter[nn.Module] = Counter()
    handle = register_module_forward_hook(lambda module, _, __: calls.update([module]))
    try:
        y, gx, gradients = run(model, case, "a", torch.float64)
    finally:
        handle.remove()
    stored = case.tensor("y_a")
    scale = 1.0 if stored.dtype == torch.float64 else 1e4 * stored.abs().max().item()
    assert off(y, stored) <= EXACT * scale
    if "gx_a" in case.numbers:
        assert off(gx, case.tensor("gx_a")) <= EXACT
    for key, wanted in case.gradients("a").items():
        assert off(gradients[key], wanted) <= EXACT * max(1, wanted.abs().max().item()), key
    for part, module in model.module.named_modules():
        # behind both layers of an MLP, both halves of a block; for both directions of bigrams
        twice = part.endswith((".drop", ".drop_path")) or ".ngram_attn" in part
        assert calls[module] == (0 if isinstance(module, NEVER_CALLED) else 1 + twice), part


@every_arch
def test_modules_called_one_by_one_in_half_precision(arch: str) -> None:
    case = small_cases(arch)[0]
    model, x = load_tiny(case, "bf16"), case.image("a")
    with torch.inference_mode():
        fused = model(x)
        handle = register_module_forward_hook(lambda *_: None)
        try:
            y = model(x)
        finally:
            handle.remove()
    assert y.dtype == fused.dtype
    # three digits of each product, through a dozen layers
    assert off(y, fused) <= 0.1 * fused.abs().max().item()


@every_arch
def test_a_hook_on_any_module_fires_and_changes_nothing(arch: str) -> None:
    case = small_cases(arch)[0]
    model = load_tiny(case, "fp32")
    x = case.image("a")
    with torch.inference_mode():
        wanted = model(x)
        for name in names_of_one_of_each_kind(model.module):
            kept: list[tuple[Tensor, Tensor]] = []

            def keep(_: nn.Module, given: Any, y: Any, kept: Any = kept) -> None:
                maps = (m for m in (*given, *(y if isinstance(y, tuple) else (y,))))
                kept += [(m, m.clone()) for m in maps if isinstance(m, Tensor)]

            handle = model.module.get_submodule(name).register_forward_hook(keep)
            y = model(x)
            handle.remove()
            assert kept, name
            assert all(torch.equal(now, then) for now, then in kept), name  # nothing overwritten
            assert off(y, wanted) <= SINGLE * wanted.abs().max().item(), name
        assert torch.equal(model(x), wanted)


class Wrapped(nn.Module):
    """A linear layer with a low-rank change beside it, as adapters have it."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.a, self.b = low_rank(base)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.base(x) + x @ self.a.T @ self.b.T
        return y


class Subclass(nn.Linear):
    """The same as a kind of linear layer."""

    a: nn.Parameter
    b: nn.Parameter

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + x @ self.a.T @ self.b.T


def low_rank(base: nn.Linear, rank: int = 2) -> tuple[nn.Parameter, nn.Parameter]:
    random = torch.Generator().manual_seed(base.in_features)
    sides = ((rank, base.in_features), (base.out_features, rank))
    a, b = (0.2 * torch.randn(side, generator=random, dtype=torch.float64) for side in sides)
    return nn.Parameter(a.to(base.weight.dtype)), nn.Parameter(b.to(base.weight.dtype))


def wrap(net: nn.Module, name: str, base: nn.Linear) -> nn.Module:
    parent, _, last = name.rpartition(".")
    setattr(net.get_submodule(parent), last, Wrapped(base))
    return net.get_submodule(name)


def subclass(net: nn.Module, name: str, base: nn.Linear) -> nn.Module:
    base.requires_grad_(False)
    base.a, base.b = low_rank(base)
    base.__class__ = Subclass
    return base


@pytest.mark.parametrize("adapt", [wrap, subclass])
@every_arch
def test_adapters_are_as_merged_weights(
    arch: str, adapt: Callable[[nn.Module, str, nn.Linear], nn.Module]
) -> None:
    case, merged = smallest(arch)
    net = copy.deepcopy(merged)
    for parameter in net.parameters():
        parameter.requires_grad_(False)
    adapters: dict[str, Any] = {name: adapt(net, name, base) for name, base in linears(net)}
    for name, linear in linears(merged):
        linear.weight.data += adapters[name].b.detach() @ adapters[name].a.detach()
    x = case.image("a").double()
    y, wanted = net(x), merged(x)
    torch.testing.assert_close(y, wanted, rtol=EXACT, atol=EXACT)
    g = cotangent(tuple(y.shape))
    (y * g).sum().backward()
    (wanted * g).sum().backward()
    for name, linear in linears(merged):
        a, b = adapters[name].a, adapters[name].b
        whole = cast(Tensor, linear.weight.grad)
        # PyTorch gives weights whose result has no influence zeros or nothing
        for got, expected in ((a.grad, b.T @ whole), (b.grad, whole @ a.T)):
            size = max(1.0, expected.abs().max().item())
            assert off(torch.zeros(()) if got is None else got, expected) <= EXACT * size, name
    assert all(p.grad is None for p in net.parameters() if not p.requires_grad)


@every_arch
def test_adapters_in_the_precision_of_inference(arch: str) -> None:
    case, merged = smallest(arch, "fp32")
    net = copy.deepcopy(merged)
    for name, base in linears(net):
        adapter: Any = wrap(net, name, base)
        layer = merged.get_submodule(name)
        cast(nn.Linear, layer).weight.data += adapter.b.detach() @ adapter.a.detach()
    x = case.image("a")
    with torch.inference_mode():
        wanted = merged(x)
        assert off(net(x), wanted) <= 2 * SINGLE * wanted.abs().max().item()


@every_arch
def test_pruned_weights_are_as_dense_ones_with_zeros(arch: str) -> None:
    case, net = smallest(arch)
    x = case.image("a").double()
    torch.manual_seed(0)
    with torch.no_grad():
        before = net(x)
        for _, layer in linears(net):
            prune.random_unstructured(layer, "weight", amount=0.3)
        pruned = net(x)
        for _, layer in linears(net):
            prune.remove(layer, "weight")
        torch.testing.assert_close(pruned, net(x), rtol=EXACT, atol=EXACT)
    assert not torch.allclose(pruned, before, rtol=1e-3, atol=1e-3)


@pytest.mark.filterwarnings("ignore")  # of what PyTorch will move elsewhere
@every_arch
def test_dynamic_quantisation_runs(arch: str) -> None:
    case, net = smallest(arch, "fp32")
    x = case.image("a")
    quantized = torch.ao.quantization.quantize_dynamic(net, {nn.Linear}, dtype=torch.qint8)
    assert not linears(quantized)
    with torch.inference_mode():
        y, exact = quantized(x), net(x)
    assert bool(torch.isfinite(y).all()) and not torch.equal(y, exact)


def watchers(layer: nn.Module) -> Iterator[Callable[[], Any]]:
    """What makes a layer one that has to be called; each gives how to undo it."""
    for register in (
        layer.register_forward_hook,
        layer.register_forward_pre_hook,
        layer.register_full_backward_hook,
        layer.register_full_backward_pre_hook,
    ):
        yield register(lambda *_: None).remove
    yield register_module_forward_hook(lambda *_: None).remove
    for forward in (nn.Linear(3, 3).forward, lambda x: x):
        layer.forward = forward  # type: ignore[assignment]
        yield lambda: delattr(layer, "forward")


def test_which_layers_are_plain() -> None:
    linear = nn.Linear(3, 3)
    assert plain(nn.Linear, linear, None)
    assert not plain(nn.LayerNorm, linear)
    for undo in watchers(linear):
        assert not plain(nn.Linear, linear)
        undo()
        assert plain(nn.Linear, linear)
    parametrize.register_parametrization(linear, "weight", nn.Tanh())
    assert plain(nn.Linear, linear)  # its weight is what it multiplies by
    for other in (nn.GELU("tanh"), nn.Identity(), Wrapped(nn.Linear(3, 3))):
        assert not plain(nn.GELU, other)
    assert not plain(nn.LayerNorm, nn.LayerNorm(3, elementwise_affine=False))
    assert not plain(nn.Conv2d, nn.Conv2d(3, 3, 3))
    assert plain(nn.Conv2d, nn.Conv2d(3, 3, 3, padding=1))


def test_backward_hooks_on_inner_layers_fire() -> None:
    block, seen = SwinBlock(12, 2, 4, 2, 8), []
    block.attn.proj.register_full_backward_hook(lambda _, given, got: seen.append(got[0].shape))
    block(torch.randn(1, 8, 8, 12)).sum().backward()
    assert seen == [(1, 8, 8, 12)]


def test_a_compiled_block_calls_what_was_put_into_it() -> None:
    """Without a break of the graph."""
    block = SwinBlock(12, 2, 4, 2, 8).eval()
    x = torch.randn(1, 8, 8, 12)

    def compiled() -> Tensor:
        torch.compiler.reset()
        y: Tensor = torch.compile(block, backend="aot_eager", fullgraph=True)(x)
        return y

    torch.testing.assert_close(compiled(), block(x))
    adapter: Any = wrap(block, "mlp.fc1", block.mlp.fc1)  # type: ignore[arg-type]
    with torch.no_grad():
        adapter.b += 1
        torch.testing.assert_close(compiled(), block(x))


def test_gradients_do_not_depend_on_recomputing() -> None:
    """With adapters, whose weights alone are trained."""
    grads = []
    for recompute in (False, True):
        case = small_cases("SwinIR")[0]
        model = load_tiny(case, "fp64")
        for blocks in (m for m in model.module.modules() if isinstance(m, Blocks)):
            blocks.use_checkpoint = recompute
        adapters = [wrap(model.module, *named) for named in linears(model.module)]
        model.module.train()
        torch.manual_seed(0)  # of dropped paths
        model.module(case.image("a").double()).square().mean().backward()
        grads.append([p.grad for adapter in adapters for p in adapter.parameters()])
    for one, other in zip(*grads, strict=True):
        assert (one is None) == (other is None)
        assert one is None or (other is not None and torch.equal(one, other))
