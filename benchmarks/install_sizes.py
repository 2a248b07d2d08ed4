"""Measure what `pip install 'vlwm[EXTRA]'` puts on the disk, beyond vlwm without extras.

    python benchmarks/install_sizes.py [EXTRA …]

Counted are the files of the packages in this environment that an extra needs and vlwm alone does
not, as their own metadata name them for this Python; a package that is not installed is named.
"""

from __future__ import annotations

import argparse
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

EXTRAS = ("mcap", "onnx", "bags", "px4", "las", "argoverse2", "s3", "dask", "docs")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("extras", nargs="*", default=EXTRAS)
    given = parser.parse_args()
    alone, missing = closure("vlwm", "")
    print(f"{'vlwm':12} {len(alone):4} packages {_mb(alone):8.1f} MB {_missing(missing)}")
    large = sorted(alone, key=lambda name: -size_of(alone[name]))[:4]
    print("   of which " + ", ".join(f"{n} {size_of(alone[n]) / 1e6:.0f} MB" for n in large))
    for extra in given.extras:
        found, missing = closure("vlwm", extra)
        more = {name: found[name] for name in found if name not in alone}
        names = ", ".join(sorted(more))
        print(f"{extra:12} {len(more):4} packages {_mb(more):8.1f} MB  {names}{_missing(missing)}")


def closure(package: str, extra: str) -> tuple[dict[str, Distribution], set[str]]:
    """Return the packages that a package with an extra needs, and those that are missing."""
    found: dict[str, Distribution] = {}
    missing: set[str] = set()
    seen, queue = set(), [(canonicalize_name(package), extra)]
    while queue:
        name, wanted = queue.pop()
        if (name, wanted) in seen:
            continue
        seen.add((name, wanted))
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:
            missing.add(name)
            continue
        for text in found[name].requires or ():
            needed = Requirement(text)
            if needed.marker is None or needed.marker.evaluate({"extra": wanted}):
                queue += [(canonicalize_name(needed.name), e) for e in ("", *needed.extras)]
    return found, missing


def size_of(package: Distribution) -> int:
    """Return the bytes of a package's files."""
    paths = [Path(str(package.locate_file(file))) for file in package.files or ()]
    return sum(path.stat().st_size for path in paths if path.is_file())


def _mb(packages: dict[str, Distribution]) -> float:
    return sum(size_of(one) for one in packages.values()) / 1e6


def _missing(names: set[str]) -> str:
    return f"  (not installed here: {', '.join(sorted(names))})" if names else ""


if __name__ == "__main__":
    main()
