"""The checksum is zlib's, whoever computes it: it stands in logs, on wires and in the choice of partitions."""

from __future__ import annotations

import sys
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quorl.cluster.protocol import crc
from tests.protocol.anew import loaded_anew


@given(st.binary(max_size=2000), st.integers(0, 2**32 - 1))
def test_it_is_zlibs(data: bytes, before: int) -> None:
    assert crc.crc32(data, before) == zlib.crc32(data, before)
    assert crc.crc32(memoryview(data)) == zlib.crc32(data)
    assert crc.adler32(data) == zlib.adler32(data)


def test_it_is_the_one_that_everybody_knows() -> None:
    assert crc.crc32(b"123456789") == 0xCBF43926


def test_without_isal_it_is_computed_by_zlib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "isal.isal_zlib", None)
    assert loaded_anew(crc).crc32 is zlib.crc32
    assert loaded_anew(crc).adler32 is zlib.adler32
