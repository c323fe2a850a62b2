"""pattern: streams that tell what is missing."""

import random

BLOCK = 65536


class Pattern:
    """The bytes that belong to a seed: both ends know them, so that whatever is
    lost, doubled or in the wrong place is seen at once."""

    def __init__(self, seed):
        self._random = random.Random(seed)
        self._block = b""
        self.position = 0

    def take(self, count):
        """The next count bytes."""
        while len(self._block) < count:
            self._block += self._random.randbytes(BLOCK)
        piece, self._block = self._block[:count], self._block[count:]
        self.position += count
        return piece

    def check(self, piece):
        """piece must be the bytes that come next."""
        start = self.position
        if piece != self.take(len(piece)):
            raise AssertionError(f"wrong bytes among the {len(piece)} after byte {start}")
