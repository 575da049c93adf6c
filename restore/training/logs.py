"""What a run tells: a live line, a log file, CSV, TensorBoard, and at the end curves and a page."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from restore.atomic import atomic_output, writing
from restore.errors import UsageError
from restore.training.experiment import Folders
from restore.training.options import Options
from restore.training.plots import Panel, draw
from restore.training.tables import Table
from restore.training.validation import Best, Scores, briefly, exactly

log = logging.getLogger("restore.training")

# of the axes of scores: what moves less looks flat
LEAST_SPAN = {"psnr": 0.01, "ssim": 1e-4, "lpips": 1e-4, "niqe": 1e-3}


class Meter:
    """Means of losses since they were last taken, kept on the device so that nothing waits."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def add(self, losses: Mapping[str, Tensor]) -> None:
        """Take the losses of a step."""
        for name, value in losses.items():
            value = value.detach().double()
            self._sums[name] = self._sums[name] + value if name in self._sums else value
            self._counts[name] = self._counts.get(name, 0) + 1

    def take(self) -> dict[str, Tensor]:
        """The means, on the CPU; the next ones begin."""
        names = list(self._sums)
        values = torch.stack([self._sums[name] / self._counts[name] for name in names]).cpu()
        self._sums, self._counts = {}, {}
        return dict(zip(names, values, strict=True))

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs to give the same means."""
        return {
            "sums": {name: value.cpu() for name, value in self._sums.items()},
            "counts": dict(self._counts),
        }

    def load_state_dict(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Go on from `state_dict`."""
        self._sums = {name: value.to(device) for name, value in state["sums"].items()}
        self._counts = dict(state["counts"])


class Clock:
    """How fast the run is since the last line, and how much of the time it waited for data."""

    def __init__(self) -> None:
        self._begun = self._since = time.perf_counter()
        self._images, self._waited = 0, 0.0

    def waited(self, seconds: float, images: int) -> None:
        """A batch of so many images came after a wait."""
        self._waited += seconds
        self._images += images

    def take(self) -> tuple[float, float]:
        """Images per second and the share of waiting, since the last call."""
        now = time.perf_counter()
        passed = max(now - self._since, 1e-9)
        rate, share = self._images / passed, self._waited / passed
        self._since, self._images, self._waited = now, 0, 0.0
        return rate, share

    def pause(self, seconds: float) -> None:
        """Leave out what was no training: validation, checkpoints."""
        self._since += seconds

    def seconds(self) -> float:
        """Since the beginning."""
        return time.perf_counter() - self._begun


class Silence:
    """What the other processes tell of a run: nothing."""

    def step(self) -> None:
        """An iteration is done."""

    def losses(
        self, iteration: int, means: Mapping[str, float], lr: float, speed: tuple[float, float]
    ) -> None:
        """Mean losses since the last call, learning rate, images/s and share of waiting."""

    def scores(self, iteration: int, scores: Scores, best: Best) -> None:
        """The means of a validation."""

    def finish(self, best: Best, lines: list[str]) -> None:
        """The run came to its end."""

    def close(self) -> None:
        """The run is over, for whatever reason."""


class Journal(Silence):
    """All that the first process writes of a run, beside weights and states.

    Args:
        options: of the run.
        folders: where to.
        resumed: the iteration that it goes on from; 0: it begins.
    """

    def __init__(self, options: Options, folders: Folders, resumed: int) -> None:
        self._options, self._folders, self._first = options, folders, resumed
        self._total = options.train.total_iter if options.train else 0
        self._clock = time.perf_counter()
        self.train = Table(folders.root / "train.csv", resumed)
        # a resumed run validates again at its first iteration
        self.val = Table(folders.root / "val.csv", resumed, before=True)
        stamp = time.strftime("%Y%m%d_%H%M%S")
        with writing(folders.root):
            file = folders.root / f"train_{options.name}_{stamp}.log"
            self._handlers: list[logging.Handler] = [logging.FileHandler(file, encoding="utf-8")]
        self._bar = None
        if sys.stderr.isatty():
            self._bar = tqdm(total=self._total, initial=resumed, unit="it", dynamic_ncols=True)
            self._handlers.append(_AboveBar())
        else:
            self._handlers.append(logging.StreamHandler())
        for handler in self._handlers:
            handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
            log.addHandler(handler)
        log.setLevel(logging.INFO)
        log.propagate = False
        self._board = _board(options, folders, resumed)

    def step(self) -> None:
        """An iteration is done."""
        if self._bar is not None:
            self._bar.update()

    def losses(
        self, iteration: int, means: Mapping[str, float], lr: float, speed: tuple[float, float]
    ) -> None:
        """A line of the log: mean losses since the last one, rate, images/s, share of waiting."""
        rate, waiting = speed
        done = iteration - self._first
        left = (time.perf_counter() - self._clock) / max(done, 1) * (self._total - iteration)
        told = "  ".join(f"{name} {value:.4e}" for name, value in means.items())
        log.info(
            "iter %s/%s  lr %.3e  %s  %.1f images/s  data wait %.0f%%  ETA %s",
            *(f"{iteration:,}", f"{self._total:,}", lr, told, rate, 100 * waiting),
            timedelta(seconds=int(left)),
        )
        self.train.add(
            {"iter": iteration, "lr": lr, "images_per_s": rate, "data_wait": waiting, **means}
        )
        if self._bar is not None:
            self._bar.set_postfix_str(f"lr {lr:.2e} {told} {rate:.1f} images/s wait {waiting:.0%}")
        for name, value in {**means, "lr": lr, "images_per_s": rate}.items():
            self._on_board(f"losses/{name}" if name.startswith("l_") else name, value, iteration)

    def _on_board(self, name: str, value: float, iteration: int) -> None:
        if self._board is not None:
            with writing(self._folders.tensorboard):
                self._board.add_scalar(name, value, iteration)

    def scores(self, iteration: int, scores: Scores, best: Best) -> None:
        """The means of a validation."""
        parts = []
        for metric, value in scores.means().items():
            top, at = best.found[scores.name][metric]
            kind = best.kind(metric)
            parts.append(f"{metric} {briefly(kind, value)} (best {briefly(kind, top)} at {at:,})")
            cell = exactly(kind, value)
            self.val.add(
                {"iter": iteration, "dataset": scores.name, "metric": metric, "value": cell}
            )
            self._on_board(f"metrics/{scores.name}/{metric}", value, iteration)
        told = "  ".join(parts) or "no metrics (val: metrics)"
        log.info("iter %s  %s: %s", f"{iteration:,}", scores.name, told)

    def finish(self, best: Best, lines: list[str]) -> None:
        """Draw the curves and write the page; OutputError where they cannot be written."""
        names = [name for name in (self.train.rows or [{}])[0] if name.startswith("l_")]
        panels = [Panel("losses", {n: self.train.points(n) for n in names}, logarithmic=True)]
        for dataset, metrics in best.found.items():
            for metric in metrics:
                curve = self.val.points("value", dataset=dataset, metric=metric)
                least = LEAST_SPAN[best.kind(metric).type]
                panels.append(Panel(f"{dataset}: {metric}", {metric: curve}, least_span=least))
        panels.append(Panel("learning rate", {"lr": self.train.points("lr")}))
        draw(self._folders.root / "curves.png", panels)
        page = [f"# {self._options.name}", "", *lines, "", "![curves](curves.png)", ""]
        if best.found:
            page += ["| set | metric | best | iteration |", "|-|-|-|-|"]
            page += [
                f"| {dataset} | {metric} | {briefly(best.kind(metric), value)} | {at:,} |"
                for dataset, metrics in best.found.items()
                for metric, (value, at) in metrics.items()
            ]
        path = self._folders.root / "summary.md"
        with atomic_output(path) as file, writing(path):
            file.write("\n".join([*page, ""]).encode())

    def close(self) -> None:
        """Let go of the screen and the files."""
        if self._bar is not None:
            self._bar.close()
        for handler in self._handlers:
            log.removeHandler(handler)
            handler.close()
        if self._board is not None:
            self._board.close()


class _AboveBar(logging.Handler):
    """Log lines above the live one."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line."""
        tqdm.write(self.format(record), file=sys.stderr)


def _board(options: Options, folders: Folders, resumed: int) -> Any:
    """TensorBoard's writer, with wandb behind it where asked for; None without."""
    if not options.logger.use_tb_logger or "debug" in options.name:
        return None
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        if options.logger.wandb.project is not None:
            raise UsageError(
                f"{options.logger.wandb.where('project')}: wandb takes what is written for "
                "TensorBoard, which is not installed; pip install 'restore-sr[train]' wandb, or "
                "leave logger: wandb out"
            ) from error
        log.warning(
            "TensorBoard is not installed, so nothing is written for it: "
            "pip install 'restore-sr[train]', or set use_tb_logger: false"
        )
        return None
    if options.logger.wandb.project is not None:
        try:
            import wandb
        except ImportError as error:
            raise UsageError(
                f"{options.logger.wandb.where('project')}: wandb cannot be imported ({error}); "
                "pip install wandb, or leave logger: wandb out"
            ) from error
        known = options.logger.wandb.resume_id
        try:
            wandb.init(
                id=known,
                resume="allow" if known else "never",
                name=options.name,
                project=options.logger.wandb.project,
                sync_tensorboard=True,
            )
        except wandb.Error as error:
            raise UsageError(
                f"{options.logger.wandb.where('project')}: wandb does not begin: {error}; run "
                "`wandb login`, or set WANDB_MODE=offline in the environment, or leave wandb out"
            ) from error
    # what an interrupted run wrote beyond its last state is left out
    purge = resumed + 1 if resumed else None
    with writing(folders.tensorboard):
        return SummaryWriter(str(folders.tensorboard), purge_step=purge)
