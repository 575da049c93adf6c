"""Compiles the kernels that a call would launch, for a GPU that need not be there.

A test names calls by a module and keys of its dict `CALLS`, whose values take no arguments and call
ops with `backend="triton"` on tensors of the CPU (forward, and `backward()` if wanted). `compiled`
runs them in a process of its own, where Triton is told that there is a GPU, and where no kernel is
launched: results are garbage, but every kernel is compiled with the arguments, sizes and constants
of a real call. It gives what ptxas says of each.

    reports = compiled("attention_calls", ["HAT bfloat16", "HAT float32 tf32"], capability=90)
    assert all(report.spilled == 0 for report in reports["HAT bfloat16"])

With " tf32" at its end a key that the module does not have itself is the call before it, made where
the user lets products of float32 be rounded.

By hand: `python tests/kernels/compiled.py 90 attention_calls [key ...]`.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# bytes that a program may share, by compute capability: of an A100 and of an H100
SHARED = {80: 166_912, 90: 232_448}
HERE = Path(__file__).resolve().parent
PATHS = (HERE, HERE.parent, HERE.parents[1])  # of the modules of calls, of tests, of `restore`


@dataclass(frozen=True)
class Report:
    """One compiled kernel."""

    module: str  # that it is defined in, of `kernels/`
    kernel: str
    registers: int  # of a thread, at most 255
    spilled: int  # bytes of a thread's memory in place of registers
    shared: int  # bytes of a program
    warps: int
    stages: int
    constants: str  # its integers and flags, for messages

    @property
    def name(self) -> str:
        """Of the kernel and where it is defined."""
        return f"{self.module}.{self.kernel}"


def compiled(module: str, keys: Iterable[str], capability: int) -> dict[str, list[Report]]:
    """The kernels of some calls, in the order of their launches, each once.

    Args:
        module: beside this file.
        keys: of its `CALLS`.
        capability: 80, 90, ...
    """
    return dict(compiled_in_turn(module, keys, capability))


def compiled_in_turn(
    module: str, keys: Iterable[str], capability: int
) -> Iterator[tuple[str, list[Report]]]:
    """The same, a call as soon as it is done."""
    environment = {key: text for key, text in os.environ.items() if key != "TRITON_INTERPRET"}
    command = [sys.executable, __file__, str(capability), module, *keys]
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True
        ) as process,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            key, reports = json.loads(line)
            yield key, [Report(**report) for report in reports]
        if process.wait():
            errors.seek(0)
            raise AssertionError(f"{module}: a kernel does not compile\n{errors.read()[-8000:]}")


def _compile(
    calls: dict[str, Callable[[], object]], capability: int
) -> Iterator[tuple[str, list[Report]]]:
    """The same in this process, whose Triton launches nothing from here on."""
    from triton.runtime import driver
    from triton.runtime.jit import JITFunction

    from restore.kernels import dispatch, fused_host

    fused_host.shared_memory = lambda x: SHARED[capability]
    driver.set_active(_absent_gpu(capability))
    dispatch.INTERPRETED = True  # so that the ops take tensors of the CPU
    run = JITFunction.run
    reports: list[Report] = []

    def compile_only(kernel: Any, *args: Any, **kwargs: Any) -> Any:
        done = run(kernel, *args, **{**kwargs, "warmup": True})
        report = _report(done)
        if report not in reports:
            reports.append(report)
        return done

    JITFunction.run = compile_only
    for key, call in calls.items():
        reports.clear()
        call()
        yield key, list(reports)


def _call(calls: dict[str, Callable[[], object]], key: str) -> Callable[[], object]:
    """What a key stands for, see the top of this file."""
    name = key.removesuffix(" tf32")
    if key in calls or name == key:
        return calls[key]

    def rounded() -> None:
        import torch

        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("high")
        try:
            calls[name]()
        finally:
            torch.set_float32_matmul_precision(before)

    return rounded


def _absent_gpu(capability: int) -> Any:
    from triton.backends.compiler import GPUTarget

    class Driver:
        """What compiling asks of a driver."""

        def get_current_target(self) -> Any:
            return GPUTarget("cuda", capability, 32)

        def get_current_device(self) -> int:
            return 0

        def get_current_stream(self, device: int) -> int:
            return 0

    return Driver()


def _report(kernel: Any) -> Report:
    registers, spilled = _resources(kernel.asm["cubin"])
    constants = {
        kernel.src.fn.arg_names[path[0]]: value
        for path, value in kernel.src.constants.items()
        if isinstance(value, int)
    }
    return Report(
        module=kernel.src.fn.module.rpartition(".")[2],
        kernel=kernel.metadata.name,
        registers=registers,
        spilled=spilled,
        shared=kernel.metadata.shared,
        warps=kernel.metadata.num_warps,
        stages=kernel.metadata.num_stages,
        constants=" ".join(f"{name}={int(value)}" for name, value in sorted(constants.items())),
    )


def _resources(cubin: bytes) -> tuple[int, int]:
    """Registers, and bytes of stack and local memory, by NVIDIA's cuobjdump."""
    import triton

    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [str(tool), "-res-usage", file.name]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    registers, stack, local = (
        int(re.search(rf"{name}:(\d+)", text)[1]) for name in ("REG", "STACK", "LOCAL")
    )
    return registers, stack + local


def main() -> None:
    """Write the reports as JSON, a call on a line, or as a table where a person looks."""
    sys.path[:0] = map(str, PATHS)
    capability, module, *keys = sys.argv[1:]
    calls = importlib.import_module(module).CALLS
    wanted = {key: _call(calls, key) for key in keys or calls}
    for key, reports in _compile(wanted, int(capability)):
        if not sys.stdout.isatty():
            line = json.dumps([key, [dataclasses.asdict(report) for report in reports]])
            sys.stdout.write(line + "\n")
            sys.stdout.flush()
            continue
        for r in reports:
            sys.stdout.write(
                f"{key:40} {r.kernel:24} registers {r.registers:3} spilled {r.spilled:4} "
                f"shared {r.shared:6} warps {r.warps} {r.constants}\n"
            )


if __name__ == "__main__":
    main()
