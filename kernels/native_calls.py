"""Calls of the native ops that are not about windows, as `native/restore_native.h` has them."""

from __future__ import annotations

from ctypes import Structure, c_float, c_int64, c_void_p


class Groups(Structure):
    """A call of `restore_groups`."""

    _fields_ = (
        ("qkv", c_void_p),
        ("out", c_void_p),
        ("order", c_void_p),
        ("images", c_int64),
        ("tokens", c_int64),
        ("channels", c_int64),
        ("heads", c_int64),
        ("size", c_int64),
        ("scale", c_float),
    )


class Dictionary(Structure):
    """A call of `restore_dictionary`."""

    _fields_ = (
        ("query", c_void_p),
        ("key", c_void_p),
        ("value", c_void_p),
        ("similarity", c_void_p),
        ("out", c_void_p),
        ("images", c_int64),
        ("tokens", c_int64),
        ("entries", c_int64),
        ("compared", c_int64),
        ("channels", c_int64),
    )


class Refinement(Structure):
    """A call of `restore_refinement`."""

    _fields_ = (
        ("similarity", c_void_p),
        ("x", c_void_p),
        ("dictionary", c_void_p),
        ("weight", c_void_p),
        ("bias", c_void_p),
        ("sigma", c_void_p),
        ("out", c_void_p),
        ("images", c_int64),
        ("tokens", c_int64),
        ("entries", c_int64),
        ("channels", c_int64),
        ("eps", c_float),
    )


class Depthwise(Structure):
    """A call of `restore_depthwise`."""

    _fields_ = (
        ("x", c_void_p),
        ("out", c_void_p),
        ("weight", c_void_p),
        ("bias", c_void_p),
        ("images", c_int64),
        ("height", c_int64),
        ("width", c_int64),
        ("channels", c_int64),
        ("kernel_height", c_int64),
        ("kernel_width", c_int64),
        ("residual", c_int64),
    )
