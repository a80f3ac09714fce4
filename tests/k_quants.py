"""Encoders of GGUF's K types, which the gguf package can only decode: simple ones, for tests' random models."""

import numpy as np


def quantize(values, name):
    """float32 [..., columns] → uint8 [..., bytes]; columns is a multiple of 256."""
    encoder = {"Q4_K": lambda x: _with_minimum(x, 4), "Q5_K": lambda x: _with_minimum(x, 5), "Q6_K": _q6}[name]
    blocks = np.ascontiguousarray(values, np.float32).reshape(-1, 256)
    return encoder(blocks).reshape(*values.shape[:-1], -1)


def _half(x):
    return x.astype(np.float16).view(np.uint8).reshape(len(x), 2)


def _divide(x, by):
    return np.where(by > 0, x / np.where(by > 0, by, 1), 0)


def _with_minimum(x, bits):
    """Eight groups of 32, each with a 6-bit scale and a 6-bit minimum: weight = d · s · q − dmin · m."""
    top = (1 << bits) - 1
    groups = x.reshape(-1, 8, 32)
    minimum = np.maximum(-groups.min(-1), 0)
    scale = (groups.max(-1) + minimum) / top
    d = (scale.max(-1) / 63).astype(np.float16)
    dmin = (minimum.max(-1) / 63).astype(np.float16)
    s = np.clip(np.rint(_divide(scale, d[:, None].astype(np.float32))), 0, 63).astype(np.uint8)
    m = np.clip(np.rint(_divide(minimum, dmin[:, None].astype(np.float32))), 0, 63).astype(np.uint8)
    step = d[:, None].astype(np.float32) * s
    shifted = groups + (dmin[:, None].astype(np.float32) * m)[..., None]
    q = np.clip(np.rint(_divide(shifted, step[..., None])), 0, top).astype(np.uint8)
    packed = np.zeros((len(x), 12), np.uint8)
    packed[:, :4] = s[:, :4] | (s[:, 4:] >> 4) << 6
    packed[:, 4:8] = m[:, :4] | (m[:, 4:] >> 4) << 6
    packed[:, 8:] = (s[:, 4:] & 15) | (m[:, 4:] & 15) << 4
    low = q & 15
    nibbles = (low[:, ::2] | low[:, 1::2] << 4).reshape(len(x), 128)
    parts = [_half(d), _half(dmin), packed]
    if bits == 5:
        shifts = np.arange(8, dtype=np.uint8)[None, :, None]
        parts.append(np.bitwise_or.reduce((q >> 4) << shifts, axis=1))
    return np.concatenate(parts + [nibbles], axis=1)


def _q6(x):
    """Sixteen groups of 16 with an int8 scale: weight = d · s · (q − 32)."""
    groups = x.reshape(-1, 16, 16)
    scale = np.abs(groups).max(-1) / 31
    d = (scale.max(-1) / 127).astype(np.float16)
    s = np.clip(np.rint(_divide(scale, d[:, None].astype(np.float32))), -128, 127)
    step = (d[:, None].astype(np.float32) * s)[..., None]
    q = (np.clip(np.rint(_divide(groups, step)), -32, 31) + 32).astype(np.uint8).reshape(-1, 2, 4, 32)
    low, high = q & 15, q >> 4
    nibbles = (low[:, :, :2] | low[:, :, 2:] << 4).reshape(len(x), 128)
    shifts = (np.arange(4, dtype=np.uint8) * 2)[None, None, :, None]
    pairs = np.bitwise_or.reduce(high << shifts, axis=2).reshape(len(x), 64)
    return np.concatenate([nibbles, pairs, s.astype(np.int8).view(np.uint8), _half(d)], axis=1)
