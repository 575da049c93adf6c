"""Our architectures in BasicSR's registry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from basicsr.utils.registry import ARCH_REGISTRY
from torch import nn

from restore.archs import ARCHS
from restore.archs._spec import ArchConfig, ArchSpec
from restore.constructors import official_config

SUFFIX = "_basicsr"  # under which BasicSR's registries look for a name that they do not have


@dataclass(frozen=True, repr=False)
class NetworkType:
    """What `type: <name>` under `network_g` stands for: called, it builds a network."""

    spec: ArchSpec

    def __repr__(self) -> str:
        """The architecture, and whose it is."""
        return f"<restore.basicsr {self.spec.name}>"

    def config(self, options: Mapping[str, Any]) -> ArchConfig:
        """The settings that official options stand for, with the official defaults.

        Args:
            options: constructor arguments as YAML gives them, without `type`.

        Raises:
            UsageError: an argument that the official constructor does not have, or a value
                that no network has; the message names both and what is near.
        """
        return official_config(self.spec, options, f"network_g of type {self.spec.name}")

    def __call__(self, **options: Any) -> nn.Module:
        """The network for official constructor arguments; UsageError as in `config`."""
        return self.spec.build(self.config(options))


def network_type(name: str) -> NetworkType | None:
    """Ours of that name, or None where the name stands for something else."""
    found = dict(iter(ARCH_REGISTRY)).get(name)
    return found if isinstance(found, NetworkType) else None


def put(registry: Any, name: str, value: object) -> None:
    """Register `value`; what was there before goes to `name`_basicsr.

    BasicSR's `register` refuses a name that is taken, so this writes what `register` writes.
    """
    objects = registry._obj_map
    if name in objects:
        objects.setdefault(name + SUFFIX, objects[name])
    objects[name] = value


def register() -> None:
    """Put every architecture into BasicSR's registry."""
    for spec in ARCHS:
        put(ARCH_REGISTRY, spec.name, NetworkType(spec))
