"""What this installation is and can do, and whether it computes what it should."""

from __future__ import annotations

import importlib.metadata
import platform
from pathlib import Path
from typing import Any

import cv2
import torch

import restore
from restore.archs.swinir import SPEC, SwinIRConfig
from restore.commands.code_paths import code_paths
from restore.commands.info import file_size
from restore.commands.text import plural
from restore.devices import available
from restore.errors import UsageError
from restore.loading import builtin_names
from restore.model import Model
from restore.upscaling import memory
from restore.video.programs import find_tools

PACKAGES = ("numpy", "pillow", "pyyaml", "safetensors", "tifffile", "tqdm", "psutil")
TOLERANCE = 0.5 / 255  # of values in 0..1: half a step of 8 bits, what rounding hides
Facts = dict[str, Any]


def examine() -> Facts:
    """Versions, machine, devices, code paths, built-in models, and a self-test of each device.

    Returns:
        What --json writes; under "self_test" the verdict of each device, "ok" or what is wrong.
    """
    names = available()
    return {
        "versions": {
            "restore": restore.__version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "opencv": cv2.__version__,  # of whichever of its packages is installed
            "ffmpeg": _ffmpeg(),
            **{name: _version(name) for name in PACKAGES},
        },
        "machine": {
            "system": platform.platform(),
            "processor": _processor(),
            "instructions": torch.backends.cpu.get_cpu_capability(),
            "threads": torch.get_num_threads(),
            "memory_free": memory.free_bytes(torch.device("cpu")),
        },
        "devices": {name: _device(torch.device(name)) for name in names},
        "code_paths": {name: code_paths(torch.device(name)) for name in names},
        "builtin_models": builtin_names(),
        "self_test": {name: self_test(torch.device(name)) for name in names},
    }


def healthy(facts: Facts) -> bool:
    """Whether every device passed the self-test."""
    return all(verdict == "ok" for verdict in facts["self_test"].values())


def self_test(device: torch.device) -> str:
    """Run a small network with fixed weights on a device and compare with float64 on the CPU.

    Returns:
        "ok", or what went wrong. The two may differ by half a step of 8 bits.
    """
    config = SwinIRConfig(embed_dim=12, depths=(2,), num_heads=(2,), upscale=2)
    net = SPEC.build(config)
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in net.parameters():
            drawn = torch.randn(parameter.shape, generator=random) * 0.05
            parameter.copy_(parameter + drawn)
    x = torch.rand(1, 3, 17, 24, generator=random)  # no multiple of the window: padding runs too
    model = Model(SPEC, config, net.eval(), name="self-test")
    try:
        with torch.inference_mode():
            got = model.to(device)(x.to(device)).cpu().double()
            model.to("cpu").module.double()  # in this order: not every device has float64
            truth = model(x.double())
    # a broken driver can raise anything, and saying so is what this is for
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else "no message"
        return f"failed: {type(error).__name__}: {reason}"
    worst = float((got - truth).abs().max())
    if worst <= TOLERANCE:
        return "ok"
    return f"failed: results differ from the CPU's by {worst:.3g}; at most {TOLERANCE:.3g} expected"


def _ffmpeg() -> str:
    try:
        return find_tools().version
    except UsageError:
        return "not installed or too old; videos need it"


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed under this name"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    named = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.machine()


def _device(device: torch.device) -> Facts:
    facts: Facts = {"memory_free": memory.free_bytes(device)}
    if device.type == "cuda":
        about = torch.cuda.get_device_properties(device)
        facts["name"] = about.name
        facts["capability"] = f"{about.major}.{about.minor}"
        facts["memory"] = about.total_memory
    elif device.type == "mps":
        facts["name"] = "Apple GPU (Metal)"
    return facts


def lines_of(facts: Facts) -> list[str]:
    """The same for people."""
    machine = facts["machine"]
    shown = ["versions", *(f"  {name} {v}" for name, v in facts["versions"].items())]
    shown += [
        "machine",
        f"  {machine['system']}",
        f"  {machine['processor']}, {machine['instructions']}, "
        f"{plural(machine['threads'], 'thread')}",
        f"  {file_size(machine['memory_free'])} of memory free",
    ]
    for name, device in facts["devices"].items():
        about = [str(device[key]) for key in ("name",) if key in device]
        about += [f"capability {device['capability']}"] if "capability" in device else []
        about += [f"{file_size(device['memory'])} of memory"] if "memory" in device else []
        about.append(f"{file_size(device['memory_free'])} free")
        shown += [f"device {name}: {', '.join(about)}"]
        shown += [f"  {op}: {path}" for op, path in facts["code_paths"][name].items()]
        shown += [f"  self-test: {facts['self_test'][name]}"]
    models = ", ".join(facts["builtin_models"])
    shown += [f"built-in models: {models or 'none; give weight files with --model_path'}"]
    return shown
