"""Decompression that ends at a limit: 100 KB on the wire may be 100 MB of zeros, and the worker's parent unpacks them."""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable
from typing import Any

from kombu.compression import get_decoder

#: What a decompressor may take for its dictionary, whatever the stream asks for.
_LZMA_MEMORY = 32 * 1024 * 1024
#: kombu's decoders, and a decompressor for each that can be told where to end.
_BOUNDED: dict[Any, Callable[[], Any]] = {
    zlib.decompress: zlib.decompressobj,
    bz2.decompress: bz2.BZ2Decompressor,
    lzma.decompress: lambda: lzma.LZMADecompressor(memlimit=_LZMA_MEMORY),
}


class TooLarge(Exception):
    """The message is larger than `DLQ_MAX_MESSAGE_BYTES`, as it was received or decompressed."""


def inflate(body: bytes, compression: Any, max_bytes: int) -> bytes:
    """`body` decompressed. Raises `TooLarge` past `max_bytes`, and whatever the decompressor raises for a broken body.

    `compression`: the message header. Methods that Python cannot bound (zstd, brotli) raise ValueError.
    """
    decompressor = _BOUNDED.get(get_decoder(compression))
    if decompressor is None:
        raise ValueError(f"compression {compression!r} is not accepted: send the body as it is, or as zlib")
    stream = decompressor()
    inflated: bytes = stream.decompress(body, max_bytes + 1)
    if len(inflated) > max_bytes:
        raise TooLarge(
            f"{len(body)} compressed bytes inflate to more than DLQ_MAX_MESSAGE_BYTES ({max_bytes})"
        )
    if not stream.eof:
        raise ValueError("the compressed body is cut off")
    return inflated
