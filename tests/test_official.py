"""The list of published models against the authors' own configurations."""

from __future__ import annotations

import pytest
from golden_data import is_known, skeleton, variants

from restore.archs import ARCHS
from restore.official import official_models, published_as

CONFIGS = [{"class": model.spec.name, **model.config} for model in official_models()]


@pytest.mark.parametrize("variant", [v for v in variants() if is_known(skeleton(v)["class"])])
def test_every_known_configuration_is_listed(variant: str) -> None:
    official = skeleton(variant)
    assert {"class": official["class"], **official["config"]} in CONFIGS


def test_nothing_is_listed_that_is_not_known() -> None:
    known = [
        {"class": official["class"], **official["config"]} for official in map(skeleton, variants())
    ]
    assert [config for config in CONFIGS if config not in known] == []


def test_every_architecture_is_listed() -> None:
    assert {model.spec.name for model in official_models()} == {spec.name for spec in ARCHS}


def test_files_are_named_once_but_for_two_readings_of_one_file() -> None:
    names = [name for model in official_models() for name in model.files]
    twice = {name for name in names if names.count(name) > 1}
    assert twice == {"Uformer_B.pth"}  # the patch size it was built for leaves no trace


def test_a_configuration_is_found_whatever_its_patches() -> None:
    model = next(m for m in official_models() if m.files and "DIV2K_s48w8" in m.files[0])
    found = published_as(model.spec, model.config.replaced({"img_size": 96}, "test"))
    assert [m.files[0][:22] for m in found] == ["001_classicalSR_DIV2K_", "001_classicalSR_DF2K_s"]
