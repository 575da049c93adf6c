"""BasicSR with the networks of this package: `import restore.basicsr` is all it takes.

Every architecture is put into BasicSR's registry under its official class name, and the model types
that official option files name are there too; see docs/basicsr.md. What BasicSR had under a name
stays reachable with `_basicsr` behind it: `type: SwinIR_basicsr`.

Raises:
    ImportError: BasicSR is not installed, or cannot be imported; the message says what to do.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys

from restore.torchvision_remedies import declare_torchvision_operators, supply_functional_tensor

TOO_NEW = (3, 13)  # the first Python that cannot build BasicSR 1.4.2


def _import_basicsr() -> None:
    if importlib.util.find_spec("basicsr") is None:
        message = (
            "restore.basicsr: BasicSR is not installed; in the environment of your PyTorch run "
            "`pip install --no-build-isolation 'restore-sr[basicsr]'`, without whose option pip "
            "downloads another PyTorch to build with unless PIP_BUILD_CONSTRAINT names a file "
            "that pins yours; see docs/basicsr.md"
        )
        if sys.version_info >= TOO_NEW:
            message += (
                f"; Python {sys.version_info[0]}.{sys.version_info[1]} cannot build it (KeyError: "
                "'__version__'): build a wheel with 3.10 to 3.12, which installs here too"
            )
        raise ImportError(message)
    try:
        declare_torchvision_operators()
        supply_functional_tensor()
        importlib.import_module("basicsr")
    except ImportError as error:
        raise ImportError(
            f"restore.basicsr: BasicSR is installed but cannot be imported: {error}; "
            "docs/basicsr.md lists what it needs"
        ) from error


_import_basicsr()
# not at the top: these two take BasicSR to be importable
importlib.import_module("restore.basicsr.networks").register()
importlib.import_module("restore.basicsr.models").register()
