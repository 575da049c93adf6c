"""Train one of the small models that come with this package, on one CPU core.

    python scripts/train_builtin.py options/builtin_x2.yml --data photos --work train/x2

`--data` holds `train/` and `valid/` with photographs (jpg or png). Low-resolution sides are made
in advance by the package's MATLAB-exact bicubic. `--work` receives the checkpoint, which `--resume`
continues from, and log.csv; the finished weights go to restore/weights/<name>.safetensors.

The learning rate follows the share of the budget that is used up: of `steps` or of `--minutes`,
whichever is further. Minutes are processor time, so a pause or a busy machine costs no training.
"""

from __future__ import annotations

import argparse
import copy
import csv
import dataclasses
import json
import logging
import math
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import yaml
from safetensors.torch import load_file, save
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # a checkout runs without being installed

from builtin_photos import Pair, middle, random_batch, read_pairs, to_tensor  # noqa: E402

from restore import __version__  # noqa: E402
from restore.archs.swinir import SwinIR, SwinIRConfig  # noqa: E402
from restore.atomic import atomic_output  # noqa: E402
from restore.checkpoint import MARK  # noqa: E402
from restore.errors import RestoreError, UsageError  # noqa: E402
from restore.metrics import psnr  # noqa: E402
from restore.resizing import resize_weights  # noqa: E402

Judges = dict[str, list[Pair]]  # name of a column to the images behind it

CHECKPOINT = "checkpoint.pt"
# the options that the weight file repeats
FACTS = ("seed", "batch", "patch", "tries", "lr", "lr_min", "warmup", "ema", "bfloat16")
TAIL = "upsample.0"  # the only parameters whose shape depends on the scale
# what YAML gives for each annotation of Options
YAML_KINDS: dict[str, type | tuple[type, ...]]
YAML_KINDS = {"int": int, "float": (int, float), "bool": bool, "str": str, "dict[str, Any]": dict}
VALID_CROP = 256  # side of the high-resolution crop taken from the middle of each validation image

log = logging.getLogger("train_builtin")


@dataclass(frozen=True)
class Options:
    """One options file: every key must be given."""

    name: str  # of the weight file
    scale: int
    seed: int
    network_g: dict[str, Any]  # official constructor names, and `type`
    batch: int
    patch: int  # side of the low-resolution crops
    tries: int  # random crops of which the one with most detail is taken
    steps: int  # an upper bound where --minutes is given
    lr: float  # after the warm-up
    lr_min: float  # at the end
    warmup: int  # steps
    ema: float  # share of the old average kept each step
    grad_clip: float  # largest norm of the gradient of all parameters
    bfloat16: bool  # mixed precision: faster where the processor has such instructions
    log_every: int  # steps
    valid_every: int  # steps; also the distance of checkpoints
    licence: str  # of the weights
    data_note: str  # what the model card says of the training images


def read_options(path: Path) -> Options:
    """Read a YAML options file; unknown, missing or mistyped keys are refused."""
    found = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(found, dict):
        raise UsageError(f"{path}: holds no `key: value` lines")
    expected = {field.name: str(field.type) for field in dataclasses.fields(Options)}
    if wrong := found.keys() ^ expected.keys():
        unknown, missing = sorted(wrong & found.keys()), sorted(wrong & expected.keys())
        raise UsageError(f"{path}: unknown keys {unknown}, missing keys {missing}")
    for key, kind in expected.items():
        if not isinstance(found[key], YAML_KINDS[kind]):
            # YAML reads 1e-3 as text; 0.001 and 1.0e-3 are numbers
            raise UsageError(f"{path}: {key} is {found[key]!r}; expected {kind}")
    return Options(**found)


def build(options: Options) -> SwinIR:
    """The network of the options file, with fresh weights."""
    config = dict(options.network_g)
    kind = config.pop("type", None)
    if kind != "SwinIR":
        raise UsageError(f"network_g: type is {kind!r}; this script trains SwinIR")
    if config.get("upscale") != options.scale:
        raise UsageError(f"network_g: upscale is {config.get('upscale')}, scale is {options.scale}")
    return SwinIR(SwinIRConfig().replaced(config, "network_g"))


def learning_rate(options: Options, step: int, progress: float) -> float:
    """Linear warm-up, then half a cosine over the budget."""
    ramp = min(1.0, (step + 1) / max(1, options.warmup))
    fall = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return ramp * (options.lr_min + (options.lr - options.lr_min) * fall)


@torch.no_grad()
def update_average(average: nn.Module, net: nn.Module, keep: float, step: int) -> None:
    """Exponential moving average; the first steps, far from any end, are forgotten sooner."""
    keep = min(keep, (1 + step) / (10 + step))
    for old, new in zip(average.parameters(), net.parameters(), strict=True):
        old.lerp_(new, 1 - keep)


@torch.no_grad()
def mean_psnr(net: nn.Module, pairs: list[Pair], scale: int) -> float:
    """Mean Y-PSNR of the rounded results, border of `scale` left out; in dB."""
    net.eval()
    total = 0.0
    for low, high in pairs:
        result = net(to_tensor(low[None]))[0].clamp(0, 1).mul(255).round().byte()
        total += psnr(result.permute(1, 2, 0).numpy(), high, crop_border=scale, y_channel=True)
    net.train()
    return round(total / len(pairs), 3)


@dataclass
class Run:
    """Everything that a resumed run must have back."""

    net: SwinIR
    average: SwinIR  # EMA of the parameters: what is evaluated and shipped
    optimizer: torch.optim.Adam
    random: np.random.Generator
    step: int = 0
    minutes: float = 0.0  # processor time per thread, of training steps only

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        return {
            "net": self.net.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "random": self.random.bit_generator.state,
            "torch_random": torch.get_rng_state(),
            "step": self.step,
            "minutes": self.minutes,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to where `state` was taken."""
        self.net.load_state_dict(state["net"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.random.bit_generator.state = state["random"]
        torch.set_rng_state(state["torch_random"])
        self.step, self.minutes = state["step"], state["minutes"]


@torch.no_grad()
def begin_as_bicubic(net: SwinIR) -> None:
    """Set first convolution and tail so that they enlarge as bicubic does, and mute the body.

    The first 27 features become the pixel and its neighbours, so that the 5 x 5 pixels under the
    two convolutions hold the bicubic taps. A thousand steps of learning to copy are saved.
    """
    scale = net.upscale
    table = resize_weights(8, 8 * scale, scale)
    taps = torch.zeros(scale, 5, dtype=torch.float64)  # of each output phase, around its pixel
    for phase in range(scale):
        at = 4 * scale + phase
        index = torch.from_numpy(table.indices[at] - 2)  # the middle one of the 5 is pixel 4
        taps[phase].index_add_(0, index, torch.from_numpy(table.weights[at]))
    near = torch.arange(3)
    both = near[:, None] + near  # [3, 3]: place under the first convolution plus under the tail
    split = taps[:, both] / (3 - (both - 2).abs())  # [s, 3, 3]: each tap shared out evenly
    tail = torch.einsum("ydi,xej,cf->cyxfdeij", split, split, torch.eye(3, dtype=taps.dtype))
    parameters = dict(net.named_parameters())
    for name, parameter in parameters.items():
        if name.startswith(("conv_first.bias", "conv_after_body", TAIL)):
            parameter.zero_()
    parameters["conv_first.weight"][:27] = torch.eye(27).view(27, 3, 3, 3)
    parameters[f"{TAIL}.weight"][:, :27] = tail.reshape(3 * scale**2, 27, 3, 3).float()


def begin_from(net: SwinIR, path: Path) -> None:
    """Take over the model of another scale; each pixel of its tail fills a square of ours."""
    state = {key: value.float() for key, value in load_file(path).items()}
    if wrong := state.keys() ^ net.state_dict().keys():
        raise UsageError(f"{path}: does not fit network_g: {sorted(wrong)}")
    for key in (f"{TAIL}.weight", f"{TAIL}.bias"):
        old = math.isqrt(len(state[key]) // 3)
        if net.upscale % old:
            raise UsageError(f"{path}: is for x{old}, of which x{net.upscale} is no multiple")
        tail = state[key].unflatten(0, (3, old, old))
        for axis in (1, 2):
            tail = tail.repeat_interleave(net.upscale // old, axis)
        state[key] = tail.flatten(0, 2)
    net.load_state_dict(state)


def start(options: Options, init: Path | None) -> Run:
    """A run at step 0, from the bicubic function or from the weights of another scale."""
    torch.manual_seed(options.seed)
    net = build(options)
    if init is None:
        begin_as_bicubic(net)
    else:
        begin_from(net, init)
    average = copy.deepcopy(net).requires_grad_(False)
    optimizer = torch.optim.Adam(net.parameters(), lr=options.lr, betas=(0.9, 0.99))
    return Run(net, average, optimizer, np.random.default_rng(options.seed))


def train(
    run: Run, options: Options, pairs: list[Pair], minutes: float, threads: int
) -> Iterator[tuple[float, float]]:
    """Train to the end of the budget; yields (loss, learning rate) after each step."""
    while (progress := max(run.step / options.steps, run.minutes / minutes)) < 1:
        began = time.process_time()
        rate = learning_rate(options, run.step, progress)
        for group in run.optimizer.param_groups:
            group["lr"] = rate
        low, high = random_batch(
            pairs, options.scale, options.patch, options.batch, options.tries, run.random
        )
        with torch.autocast("cpu", torch.bfloat16, enabled=options.bfloat16):
            result = run.net(low)
        loss = F.l1_loss(result.float(), high)
        run.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(run.net.parameters(), options.grad_clip)
        run.optimizer.step()
        update_average(run.average, run.net, options.ema, run.step)
        run.step += 1
        run.minutes += (time.process_time() - began) / 60 / threads
        yield loss.item(), rate


def save_checkpoint(run: Run, path: Path) -> None:
    """All or nothing: a run killed here leaves the previous checkpoint."""
    with atomic_output(path) as file:
        torch.save(run.state(), file)


def stored(average: SwinIR) -> dict[str, Tensor]:
    """The tensors of the weight file: parameters only, in float16."""
    return {k: p.detach().half().contiguous() for k, p in average.named_parameters()}


def write_weights(
    options: Options, tensors: dict[str, Tensor], facts: dict[str, Any], path: Path
) -> None:
    """Write the safetensors file; its metadata say what it is and how it was made."""
    config = {k: v for k, v in options.network_g.items() if k != "type"}
    metadata = {
        "format": "pt",
        MARK: __version__,
        "name": options.name,
        "arch": options.network_g["type"],
        "config": json.dumps(config),
        "licence": options.licence,
        "training": json.dumps(facts),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_output(path) as file:
        file.write(save(tensors, metadata))


def append_row(path: Path, row: dict[str, float | int | str]) -> None:
    """Add a line to a CSV file; the first also writes the heads of the columns."""
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, row)
        if file.tell() == 0:
            writer.writeheader()
        writer.writerow(row)


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("options", type=Path, help="YAML file, such as options/builtin_x2.yml")
    parser.add_argument("--data", type=Path, required=True, help="folder with train/ and valid/")
    parser.add_argument("--work", type=Path, required=True, help="folder for checkpoint and log")
    parser.add_argument("--minutes", type=float, default=math.inf, help="processor time to spend")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in --work")
    parser.add_argument("--init", type=Path, help="weights of another scale to start from")
    parser.add_argument("--set5", type=Path, help="folder of the Set5 HR images, to report on")
    parser.add_argument("--out", type=Path, help="weight file (default: restore/weights/<name>)")
    return parser.parse_args()


def fit(
    run: Run, options: Options, args: argparse.Namespace, pairs: list[Pair], judges: Judges
) -> None:
    """Train to the end of the budget, now and then logging, judging and saving."""
    losses: list[float] = []
    for loss, rate in train(run, options, pairs, args.minutes, args.threads):
        losses.append(loss)
        judging = run.step % options.valid_every == 0
        if not judging and run.step % options.log_every:
            continue
        row: dict[str, float | int | str] = {
            "step": run.step,
            "minutes": round(run.minutes, 3),
            "loss": round(float(np.mean(losses)), 6),
            "lr": float(f"{rate:.3g}"),
        }
        for name, judge in judges.items():
            row[name] = mean_psnr(run.average, judge, options.scale) if judging else ""
        losses.clear()
        append_row(args.work / "log.csv", row)
        log.info(" ".join(f"{key}={value}" for key, value in row.items()))
        if judging:
            save_checkpoint(run, args.work / CHECKPOINT)
    save_checkpoint(run, args.work / CHECKPOINT)


def finish(
    run: Run, options: Options, args: argparse.Namespace, images: int, judges: Judges
) -> None:
    """Round the averaged weights as they are stored, judge them once more and write the file."""
    tensors = stored(run.average)
    for key, parameter in run.average.named_parameters():
        parameter.data.copy_(tensors[key])
    facts = {
        "data": options.data_note,
        "images": images,
        "steps": run.step,
        "minutes": round(run.minutes, 1),
        "threads": args.threads,
        "init": args.init.stem if args.init else None,
        **{key: getattr(options, key) for key in FACTS},
        **{f"{k}_psnr_y": mean_psnr(run.average, v, options.scale) for k, v in judges.items()},
    }
    path = args.out or ROOT / "restore" / "weights" / f"{options.name}.safetensors"
    write_weights(options, tensors, facts, path)
    log.info("%s: %s", path, json.dumps(facts))


def main() -> None:
    """Read, train, judge, write."""
    args = arguments()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    torch.set_num_threads(args.threads)
    options = read_options(args.options)
    run = start(options, args.init)
    args.work.mkdir(parents=True, exist_ok=True)
    checkpoint = args.work / CHECKPOINT
    if args.resume:
        run.restore(torch.load(checkpoint, weights_only=True))
    elif checkpoint.exists():
        raise UsageError(f"{checkpoint}: exists; give --resume, or another --work")

    pairs = read_pairs(args.data / "train", options.scale, at_least=options.patch)
    valid = read_pairs(args.data / "valid", options.scale)
    judges = {"valid": [middle(pair, VALID_CROP, options.scale) for pair in valid]}
    if args.set5:
        judges["set5"] = read_pairs(args.set5, options.scale)
    log.info("%s: %d images, from step %d", options.name, len(pairs), run.step)
    fit(run, options, args, pairs, judges)
    finish(run, options, args, len(pairs), judges)


if __name__ == "__main__":
    try:
        main()
    except RestoreError as error:
        sys.exit(f"train_builtin: {error}")
