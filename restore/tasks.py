"""The tasks that networks are made for, under the names that options, cards and tables have."""

from __future__ import annotations

from typing import Literal, get_args

Task = Literal["sr", "denoise", "jpeg", "real-denoise", "deblur"]
TASKS: tuple[Task, ...] = get_args(Task)
# whose low-quality side nobody can make: their sets hold both
PAIRED: tuple[Task, ...] = ("real-denoise", "deblur")
WORDS: dict[Task, str] = {
    "sr": "super-resolution",
    "denoise": "denoising of Gaussian noise",
    "jpeg": "removal of JPEG artefacts",
    "real-denoise": "denoising of cameras' noise",
    "deblur": "deblurring",
}
# how the tasks of published models begin, the longer beginning first
_BEGINNINGS: tuple[tuple[str, Task], ...] = (
    ("real-world denoising", "real-denoise"),
    ("denoising", "denoise"),
    ("jpeg", "jpeg"),
    ("motion deblurring", "deblur"),
)


def published_tasks(told: str) -> tuple[Task, ...]:
    """The tasks of networks that enlarge nothing, of what official.yml says of one of them."""
    parts = [part.strip().lower() for part in told.split(",")]
    found = [next((t for b, t in _BEGINNINGS if part.startswith(b)), None) for part in parts]
    return tuple(dict.fromkeys(task for task in found if task is not None))
