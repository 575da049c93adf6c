"""Which pictures belong together: BasicSR's rules, and what is said when they do not hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from restore.datasets.listing import (
    Entry,
    folder_entries,
    listed_entries,
    listed_names,
    match_folders,
    paired_by_list,
    paired_databases,
    paired_folders,
    pictures_in,
)
from restore.errors import UsageError


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((2, 2, 3), np.uint8)).save(path, "PNG")
    return folder


def test_pairs_are_found_by_name(tmp_path: Path) -> None:
    gt, lq = touch(tmp_path / "gt", "b.png", "a.png"), touch(tmp_path / "lq", "a.png", "b.png")
    pairs = paired_folders(gt, lq, "{}")
    assert [(pair.gt.path.name, pair.lq.path.name) for pair in pairs] == [
        ("a.png", "a.png"),
        ("b.png", "b.png"),
    ]


def test_a_template_names_the_low_quality_picture(tmp_path: Path) -> None:
    gt = touch(tmp_path / "gt", "0001.png")
    lq = touch(tmp_path / "lq", "0001x4.png")
    assert [pair.lq.path.name for pair in paired_folders(gt, lq, "{}x4")] == ["0001x4.png"]


def test_another_suffix_is_found(tmp_path: Path) -> None:
    gt, lq = touch(tmp_path / "gt", "a.png"), touch(tmp_path / "lq", "a.jpg")
    assert paired_folders(gt, lq, "{}")[0].lq.path.name == "a.jpg"


def test_the_same_suffix_comes_first(tmp_path: Path) -> None:
    gt, lq = touch(tmp_path / "gt", "a.png"), touch(tmp_path / "lq", "a.jpg", "a.png")
    pairs, gt_alone, lq_alone = match_folders(gt, lq, "{}")
    assert pairs[0].lq.path.name == "a.png"
    assert (gt_alone, lq_alone) == ([], ["a.jpg"])


@pytest.mark.parametrize("template", ["x4", "{0}{1}", "{name}", "{", "{}{}x"])
def test_a_template_without_its_place_is_refused(tmp_path: Path, template: str) -> None:
    folder = touch(tmp_path / "gt", "a.png")
    with pytest.raises(UsageError, match="filename_tmpl is"):
        paired_folders(folder, folder, template)


def test_pictures_alone_are_named_on_both_sides(tmp_path: Path) -> None:
    gt = touch(tmp_path / "gt", *(f"{n}.png" for n in "abcdef"))
    lq = touch(tmp_path / "lq", "a.png", "z.png")
    with pytest.raises(UsageError) as caught:
        paired_folders(gt, lq, "{}")
    message = str(caught.value)
    assert f"5 of {gt} (b.png, c.png, d.png and 2 more)" in message
    assert f"1 of {lq} (z.png)" in message


def test_other_files_and_hidden_ones_do_not_count(tmp_path: Path) -> None:
    folder = touch(tmp_path / "gt", "a.PNG", ".b.png")
    (folder / "Thumbs.db").write_bytes(b"x")
    (folder / "inner").mkdir()
    assert pictures_in(folder) == ["a.PNG"]


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(UsageError, match="holds no picture; of its 1 files none is named like one"):
        folder_entries(tmp_path)
    with pytest.raises(UsageError, match="no such folder"):
        folder_entries(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="is a file"):
        folder_entries(tmp_path / "notes.txt")


def test_links_that_lead_nowhere_count_and_spoil_nothing(tmp_path: Path) -> None:
    folder = touch(tmp_path / "gt", "a.png")
    (folder / "gone.png").symlink_to(tmp_path / "no.png")
    (folder / "self.png").symlink_to("self.png")
    (folder / "again").symlink_to(".")
    assert pictures_in(folder) == ["a.png", "gone.png", "self.png"]


def test_pictures_in_folders_below_are_told(tmp_path: Path) -> None:
    touch(tmp_path / "gt", "day/a.png", "night/b.png")
    with pytest.raises(UsageError, match=r"holds no picture; it has folders \(day, night\)"):
        pictures_in(tmp_path / "gt")


def test_a_list_is_read_by_both_conventions(tmp_path: Path) -> None:
    listed = tmp_path / "list.txt"
    listed.write_text("0001_s001.png (480,480,3)\n\nsub/b.png\nmy photo.png (1,2,3) 1\n")
    assert listed_names(listed) == ["0001_s001.png", "sub/b.png", "my photo.png"]


def test_a_list_names_pairs_and_their_order(tmp_path: Path) -> None:
    gt = touch(tmp_path / "gt", "a.png", "sub/b.png", "c.png")
    lq = touch(tmp_path / "lq", "ax2.png", "bx2.png", "sub/cx2.png")
    listed = tmp_path / "list.txt"
    listed.write_text("sub/b.png (2,2,3)\na.png (2,2,3)\n")
    pairs = paired_by_list(gt, lq, listed, "{}x2")
    # BasicSR looks for lq in the folder itself, whatever folder the list names
    assert [pair.lq for pair in pairs] == [Entry(lq / "bx2.png"), Entry(lq / "ax2.png")]
    touch(lq, "sub/bx2.png")
    assert paired_by_list(gt, lq, listed, "{}x2")[0].lq == Entry(lq / "sub" / "bx2.png")


def test_a_list_must_not_name_what_is_not_there(tmp_path: Path) -> None:
    gt = touch(tmp_path / "gt", "a.png")
    listed = tmp_path / "list.txt"
    listed.write_text("a.png\nb.png\n")
    with pytest.raises(UsageError, match=r"names 1 of 2 files that are not there: .*b\.png"):
        listed_entries(gt, listed)
    listed.write_text("\n")
    with pytest.raises(UsageError, match="names no picture"):
        listed_entries(gt, listed)
    listed.write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="not text in UTF-8"):
        listed_entries(gt, listed)


def test_data_bases_are_known_by_their_names(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"NAME\.lmdb is expected"):
        paired_databases(tmp_path, tmp_path)
    (tmp_path / "a.lmdb").mkdir()
    with pytest.raises(UsageError, match=r"holds no meta_info\.txt"):
        paired_databases(tmp_path / "a.lmdb", tmp_path / "a.lmdb")


def test_data_bases_must_have_the_same_keys(tmp_path: Path) -> None:
    for name, keys in (("gt", "ab"), ("lq", "bc")):
        (tmp_path / f"{name}.lmdb").mkdir()
        text = "".join(f"{key}.png (2,2,3) 1\n" for key in keys)
        (tmp_path / f"{name}.lmdb" / "meta_info.txt").write_text(text)
    with pytest.raises(UsageError, match=r"1 of .*gt\.lmdb \(a\) and 1 of .*lq\.lmdb \(c\)"):
        paired_databases(tmp_path / "gt.lmdb", tmp_path / "lq.lmdb")
