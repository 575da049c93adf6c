"""Builds the native kernels beside what setup.cfg says.

They are an option: where there is no compiler for them the package installs without, and computes
with PyTorch's ops.
"""

from __future__ import annotations

import os
import sys

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext
from setuptools.modified import newer_group

SOURCES = ("library", "parallel", "isa_avx512_bf16", "isa_avx512", "isa_avx2", "isa_portable")
HEADERS = (
    *("restore_native", "operation_table", "parallel", "intrinsics"),
    *("normal_table", "vectors", "arithmetic", "digest", "tiles", "tokens", "attention"),
    *("places", "operations", "products", "groups", "dictionary", "depthwise", "similarity"),
    *("attention_gradients", "conv_mlp", "gated", "correlation", "exact_operations"),
)
# GCC and Clang; other compilers do not know the vectors that the kernels are written with.
# -g0: debug information names the folder that it was built in
FLAGS = (
    *("-std=gnu++17", "-O3", "-g0", "-fvisibility=hidden", "-Wno-psabi"),
    *("-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math"),
)


class BuildLibrary(build_ext):
    """Builds a library that ctypes loads, which is no Python module: one serves every Python."""

    def get_ext_filename(self, fullname: str) -> str:
        """Its path, with no mark of the Python that built it."""
        return os.path.join(*fullname.split(".")) + ".so"

    def build_extension(self, ext: Extension) -> None:
        """Build it; where that fails leave none of an earlier state, which would run instead."""
        try:
            super().build_extension(ext)
        except Exception:
            in_place = os.path.join("kernels", "_native.so")
            for path in (self.get_ext_fullpath(ext.name), in_place):
                if os.path.exists(path) and newer_group([*ext.sources, *ext.depends], path):
                    os.unlink(path)
            raise

    def get_export_symbols(self, ext: Extension) -> list[str]:
        """No PyInit function, which modules have to export on Windows."""
        return list(ext.export_symbols)


class NameWheel(bdist_wheel):
    """Names a wheel for every Python 3, and for every platform where nothing was compiled."""

    def get_tag(self) -> tuple[str, str, str]:
        """Python, ABI and platform that it is for."""
        _, _, platform = super().get_tag()
        built = self.get_finalized_command("build_ext").get_outputs()
        return "py3", "none", platform if any(map(os.path.exists, built)) else "any"


setup(
    ext_modules=[
        Extension(
            "restore.kernels._native",
            [f"kernels/native/{name}.cpp" for name in SOURCES],
            depends=[f"kernels/native/{name}.h" for name in HEADERS],
            extra_compile_args=list(FLAGS),
            extra_link_args=[] if sys.platform == "win32" else ["-pthread"],
            optional=True,
        )
    ],
    cmdclass={"build_ext": BuildLibrary, "bdist_wheel": NameWheel},
)
