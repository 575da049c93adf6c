"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from restore.atomic import atomic_output
from restore.errors import OutputError


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
@pytest.mark.parametrize("through_link", [False, True])
def test_what_is_no_file_is_not_replaced(through_link: bool, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.png"
    os.mkfifo(pipe)
    path = pipe
    if through_link:
        path = tmp_path / "link.png"
        path.symlink_to(pipe)
    with (
        pytest.raises(OutputError, match=f"^{path}: .*{pipe} is a device or a pipe; name a file"),
        atomic_output(path),
    ):
        pass
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert set(tmp_path.iterdir()) == {pipe, path}
