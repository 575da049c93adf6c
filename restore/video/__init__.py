"""Videos through a model, frame by frame, with the programs ffmpeg and ffprobe.

`probing` says what a file is, `scanning` when each of its frames is shown; `planning` chooses codec
and container; `run` is one video from end to end: it reads frames (`reading`), restores them
(`computing`), writes them as segments (`writing`) into a working folder that a later run goes on
from (`journal`), and joins these with the sound and everything else of the source (`assembly`).
"""

from __future__ import annotations
