"""What a reader of foreign files may take, all in one place: no file can ask for more than its kind needs."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Budget:
    """Bounds of one file, whatever its header claims.

    Attributes:
      bytes: of the file and of what it unpacks to. The largest official file, CIFAR-100's, has 186 MB unpacked.
      pixels: of an image, as it is stored and as it is resized; 200 MB as RGB. The largest image of ImageNet has
        61 million; a file of a few bytes can declare any number.
      steps: of parsing a pickle; a million take a second. An official batch takes four for each of 50,000 images,
        one that Python 3 has pickled again in protocol 0 thirteen.
      members: of an archive; official ones have nine.
      depth: of folders below a class, and of what a pickle nests.
    """

    bytes: int = 1 << 30
    pixels: int = 1 << 26
    steps: int = 1 << 20
    members: int = 1000
    depth: int = 32


BUDGET = Budget()
