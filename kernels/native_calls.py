"""The structures of `native/restore_native.h`: what the native ops take."""

from __future__ import annotations

from ctypes import Structure, c_double, c_float, c_int64, c_void_p


class Map(Structure):
    """A map [B, H, W, C] whose channels are adjacent."""

    _fields_ = (
        ("data", c_void_p),
        ("image", c_int64),
        ("row", c_int64),
        ("column", c_int64),
        ("half", c_int64),
    )


class Linear(Structure):
    """A linear layer whose weight is packed."""

    _fields_ = (
        ("packed", c_void_p),
        ("bias", c_void_p),
        ("outputs", c_int64),
        ("inputs", c_int64),
        ("per_token", c_int64),
    )


class Grid(Structure):
    """Pixels and labels of windows."""

    _fields_ = (
        ("tokens", c_int64),
        ("y", c_void_p),
        ("x", c_void_p),
        ("rows", c_int64),
        ("columns", c_int64),
        ("shift_y", c_int64),
        ("shift_x", c_int64),
        ("halo", c_int64),
        ("labels", c_void_p),
        ("label_stride", c_int64),
    )


class Windows(Structure):
    """Windows of queries and keys, and the biases between them."""

    _fields_ = (
        ("query", Grid),
        ("key", Grid),
        ("bias", c_void_p),
        ("bias_stride", c_int64),
        ("key_at", c_void_p),
    )


class Branch(Structure):
    """A call of `restore_branch`."""

    _fields_ = (
        ("x", Map),
        ("residual", Map),
        ("out", Map),
        ("images", c_int64),
        ("height", c_int64),
        ("width", c_int64),
        ("channels", c_int64),
        ("heads", c_int64),
        ("each", c_int64),
        ("windows", Windows),
        ("qkv", Linear),
        ("proj", Linear),
        ("widen", Linear),
        ("narrow", Linear),
        ("normalise", c_int64),
        ("eps", c_float),
        ("mlp_eps", c_float),
    )


class Attention(Structure):
    """A call of `restore_attention`."""

    _fields_ = (
        ("query", Map),
        ("key", Map),
        ("value", Map),
        ("out", Map),
        ("images", c_int64),
        ("height", c_int64),
        ("width", c_int64),
        ("channels", c_int64),
        ("heads", c_int64),
        ("windows", Windows),
        ("chosen", c_void_p),
        ("count", c_int64),
        ("scale", c_float),
    )


class AttentionGradients(Structure):
    """A call of `restore_attention_gradients`."""

    _fields_ = (
        ("attention", Attention),
        ("query", Map),
        ("key", Map),
        ("value", Map),
        ("bias", c_void_p),
        ("parts", c_int64),
    )

    @property
    def channels(self) -> int:
        """Of the map."""
        return int(self.attention.channels)


class Tokens(Structure):
    """A call of `restore_tokens`."""

    _fields_ = (
        ("x", c_void_p),
        ("residual", c_void_p),
        ("out", c_void_p),
        ("count", c_int64),
        ("channels", c_int64),
        ("x_stride", c_int64),
        ("residual_stride", c_int64),
        ("out_stride", c_int64),
        ("x_half", c_int64),
        ("out_half", c_int64),
        ("first", Linear),
        ("second", Linear),
        ("normalise", c_int64),
        ("gelu", c_int64),
        ("eps", c_float),
        ("norm_weight", c_void_p),
        ("norm_bias", c_void_p),
    )


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


class Gated(Structure):
    """A call of `restore_gated`."""

    _fields_ = (
        ("x", Map),
        ("out", Map),
        ("images", c_int64),
        ("height", c_int64),
        ("width", c_int64),
        ("grown_height", c_int64),
        ("grown_width", c_int64),
        ("channels", c_int64),
        ("squeeze", Linear),
        ("convolution", Linear),
        ("widen", Linear),
        ("linear", Linear),
        ("slope", c_float),
        ("next_slope", c_float),
        ("squeezed", c_void_p),
        ("plane", c_int64),
    )


class Correlation(Structure):
    """A call of `restore_correlation`."""

    _fields_ = (
        ("qv", Map),
        ("residual", Map),
        ("out", Map),
        ("images", c_int64),
        ("height", c_int64),
        ("width", c_int64),
        ("down", c_int64),
        ("across", c_int64),
        ("channels", c_int64),
        ("heads", c_int64),
        ("grid", Grid),
        ("block_rows", c_int64),
        ("block_columns", c_int64),
        ("weight", c_void_p),
        ("bias", c_void_p),
        ("position", c_void_p),
        ("position_stride", c_int64),
        ("block_at", c_void_p),
        ("proj", Linear),
        ("norm_weight", c_void_p),
        ("norm_bias", c_void_p),
        ("eps", c_float),
        ("parts", c_int64),
        ("sums", c_void_p),
    )


class ConvMlp(Structure):
    """A call of `restore_conv_mlp`."""

    _fields_ = (
        ("x", Map),
        ("residual", Map),
        ("out", Map),
        ("images", c_int64),
        ("height", c_int64),
        ("width", c_int64),
        ("channels", c_int64),
        ("widen", Linear),
        ("narrow", Linear),
        ("weight", c_void_p),
        ("bias", c_void_p),
        ("side", c_int64),
        ("added", c_int64),
        ("normalise", c_int64),
        ("eps", c_float),
    )


class Similarity(Structure):
    """A call of `restore_similarity`."""

    _fields_ = (
        ("x", c_void_p),
        ("y", c_void_p),
        ("window", c_void_p),
        ("scratch", c_void_p),
        ("rows", c_int64),
        ("columns", c_int64),
        ("c1", c_double),
        ("c2", c_double),
    )
