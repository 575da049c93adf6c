"""Edits that leave a layer's `forward` alone, and transforms of PyTorch around whole networks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import MethodType
from typing import Any

import pytest
import torch
from golden_data import small_cases
from test_golden import SINGLE, load_tiny, off
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.func import functional_call, jvp, stack_module_state, vmap
from torch.nn.modules.module import register_module_forward_hook

from restore.archs import ARCHS
from restore.archs._blocks import PositionMlp
from restore.archs._swin import SwinBlock

pytestmark = pytest.mark.filterwarnings("ignore")  # of torch's own tracing
every_arch = pytest.mark.parametrize("arch", [spec.name for spec in ARCHS])
WITH_POSITIONS = ("HiT_SRF", "CAT")  # networks whose biases are remembered


def net_and_image(arch: str) -> tuple[nn.Module, Tensor]:
    case = small_cases(arch)[0]
    return load_tiny(case, "fp32").module, case.image("a")


def called(net: nn.Module, x: Tensor) -> Tensor:
    """What the network gives where every module is called."""
    handle = register_module_forward_hook(lambda *_: None)
    try:
        y: Tensor = net(x)
    finally:
        handle.remove()
    return y


def close(y: Tensor, wanted: Tensor) -> bool:
    return off(y, wanted) <= SINGLE * wanted.abs().max().item()


class Centred(nn.Conv2d):
    """A convolution of its weight without the mean, as weight standardisation writes it."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        centred = weight - weight.mean((1, 2, 3), keepdim=True)
        return super()._conv_forward(input, centred, bias)


class Louder(nn.Linear):
    """A layer that is changed where it is called."""

    def __call__(self, *given: Any) -> Tensor:
        y: Tensor = super().__call__(*given)
        return y * 1.5


def circular(conv: nn.Conv2d, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    sides = [side for side in reversed(conv.padding) for _ in range(2)]
    padded = nn.functional.pad(x, sides, mode="circular")
    return nn.functional.conv2d(padded, weight, bias, conv.stride, 0, 1, conv.groups)


def to_class(old: type[nn.Module], new: type[nn.Module]) -> Callable[[nn.Module], None]:
    def edit(module: nn.Module) -> None:
        if type(module) is old:
            module.__class__ = new

    return edit


def to_circular(module: nn.Module) -> None:
    if type(module) is nn.Conv2d and module.stride == (1, 1):
        module._conv_forward = MethodType(circular, module)  # type: ignore[method-assign]


@every_arch
@pytest.mark.parametrize(
    "edit",
    [to_class(nn.Conv2d, Centred), to_class(nn.Linear, Louder), to_circular],
    ids=["convolutions of another weight", "layers called otherwise", "circular convolutions"],
)
@torch.inference_mode()
def test_edits_beside_forward_are_obeyed(arch: str, edit: Callable[[nn.Module], None]) -> None:
    net, x = net_and_image(arch)
    before = net(x)
    net.apply(edit)
    wanted = called(net, x)
    assert off(before, wanted) > SINGLE  # the edit does something
    assert close(net(x), wanted)


@every_arch
@pytest.mark.parametrize("kind", [nn.Linear, nn.LayerNorm, nn.Conv2d, nn.GELU])
@torch.inference_mode()
def test_a_forward_put_into_a_class_of_pytorch_is_run(
    arch: str, kind: type[nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    net, x = net_and_image(arch)
    layers = [module for module in net.modules() if type(module) is kind]
    real, calls = kind.forward, set()

    def seen(module: nn.Module, *given: Any) -> Any:
        calls.add(module)
        return real(module, *given)

    monkeypatch.setattr(kind, "forward", seen)
    net(x)
    assert calls == set(layers)


class Quantised(Tensor):
    """A weight that says itself how it is multiplied."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        y = super().__torch_function__(func, types, args, kwargs or {})
        return y.as_subclass(Tensor) * 1.5 if func is nn.functional.linear else y


@pytest.mark.parametrize("arch", ["SwinIR", "SRFormer", "HiT_SIR", "ATD"])
@torch.inference_mode()
def test_weights_of_a_kind_of_their_own_multiply_as_it_says(arch: str) -> None:
    net, x = net_and_image(arch)
    for module in net.modules():
        if isinstance(module, nn.Linear):
            module.weight = nn.Parameter(module.weight.as_subclass(Quantised), False)
    assert close(net(x), called(net, x))


@pytest.fixture
def pos() -> PositionMlp:
    torch.manual_seed(0)
    return PositionMlp(4, 2)


def without_biases(pos: PositionMlp) -> None:
    for module in pos.modules():
        if isinstance(module, (nn.Linear, nn.LayerNorm)):
            module.bias = None  # type: ignore[assignment]


def with_shared_layers(pos: PositionMlp) -> None:
    pos.pos2 = pos.pos1


def with_another_eps(pos: PositionMlp) -> None:
    pos.pos3[0].eps = 0.5


@pytest.mark.parametrize("edit", [without_biases, with_shared_layers, with_another_eps])
@torch.no_grad()
def test_biases_of_positions_follow_edits(
    pos: PositionMlp, edit: Callable[[PositionMlp], None]
) -> None:
    edit(pos)
    assert close(pos((4, 4)), called(pos, (4, 4)))  # type: ignore[arg-type]


@pytest.mark.parametrize("arch", WITH_POSITIONS)
@torch.no_grad()
def test_an_eps_edited_after_a_call_counts(arch: str) -> None:
    net, x = net_and_image(arch)
    before = net(x)
    for module in net.modules():
        if isinstance(module, PositionMlp):
            for part in (module.pos1, module.pos2, module.pos3):
                part[0].eps = 0.3
    assert off(net(x), before) > SINGLE
    assert close(net(x), called(net, x))


@pytest.fixture
def tensors() -> Iterator[None]:
    """Tests of what is remembered begin and end without a gradient being wanted."""
    with torch.no_grad():
        yield


@pytest.mark.parametrize("arch", WITH_POSITIONS)
@pytest.mark.usefixtures("tensors")
class TestRemembered:
    """Nothing of a transform is kept, and nothing kept is given to one."""

    def test_forward_derivatives(self, arch: str) -> None:
        net, x = net_and_image(arch)
        parameters = {k: v.detach() for k, v in net.named_parameters()}
        tangents = {k: torch.ones_like(v) for k, v in parameters.items()}

        def derivative() -> Tensor:
            y: Tensor = jvp(lambda p: functional_call(net, p, (x,)), (parameters,), (tangents,))[1]
            return y

        before = net(x)
        found = derivative()
        with torch.enable_grad():
            assert close(found, derivative())
        assert torch.equal(net(x), before)

    def test_an_ensemble(self, arch: str) -> None:
        nets = [net_and_image(arch)[0] for _ in range(2)]
        x = net_and_image(arch)[1]
        for parameter in nets[1].parameters():
            parameter.mul_(1.1)
        parameters, buffers = stack_module_state(nets)  # type: ignore[arg-type]
        y = vmap(lambda p, b: functional_call(nets[0], (p, b), (x,)))(parameters, buffers)
        assert all(close(its, net(x)) for its, net in zip(y, nets, strict=True))

    def test_tensors_without_values(self, arch: str) -> None:
        net, x = net_and_image(arch)
        before = net(x)
        with FakeTensorMode(allow_non_fake_inputs=True) as mode:
            assert net(mode.from_tensor(x)).shape == before.shape
        assert torch.equal(net(x), before)


@torch.no_grad()
def test_a_trace_holds_the_computation_of_position_biases() -> None:
    net, x = net_and_image("CAT")
    net(x)
    traced = torch.jit.trace(net, x, check_trace=False)
    for parameter in net.parameters():
        parameter.mul_(1.3)
    assert close(traced(x), net(x))


@pytest.mark.parametrize("arch", ["SwinIR", "HAT"])
def test_an_ensemble_has_gradients(arch: str) -> None:
    net, x = net_and_image(arch)
    parameters, buffers = stack_module_state([net, net])  # type: ignore[list-item]
    y = vmap(lambda p, b: functional_call(net, (p, b), (x,)))(parameters, buffers)
    y.square().sum().backward()
    net(x).square().sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        stacked = parameters[name].grad
        assert close(stacked[0], parameter.grad), name
        assert close(stacked[1], parameter.grad), name


@torch.no_grad()
def test_a_compiled_block_sees_a_forward_that_is_replaced_later() -> None:
    block, x = SwinBlock(12, 2, 4, 2, 8).eval(), torch.rand(1, 8, 8, 12)
    compiled = torch.compile(block, backend="eager")
    before, layer = compiled(x), block.mlp.fc1
    layer.forward = lambda y: 1.3 * nn.Linear.forward(layer, y)  # type: ignore[method-assign]
    assert close(compiled(x), block(x))
    assert off(block(x), before) > SINGLE
