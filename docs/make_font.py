"""Make the font of the figures: a subset of Noto Sans CJK JP (SIL Open Font License 1.1).

    apt-get install fonts-noto-cjk && pip install fonttools
    python docs/make_font.py /usr/share/fonts/opentype/noto/NotoSansCJK-Regular.ttc

Kept are Latin, Greek, kana, punctuation and the 2,965 kanji of JIS X 0208 level 1, which write the
attributions of PLATEAU and most names of its cities. OFL 1.1 allows subsets under another name than
the reserved one ("Source"); the licence is next to the font.
"""

from __future__ import annotations

import sys
from pathlib import Path

from fontTools import subset
from fontTools.ttLib import TTCollection

OUT = Path(__file__).parents[1] / "vlwm" / "core" / "figures" / "fonts" / "vlwm-figures.otf"
_ROWS = (*range(1, 9), *range(16, 48))  # of JIS X 0208: symbols, kana, letters; kanji of level 1


def kept() -> set[int]:
    """Return the code points of the subset."""
    codes = {
        *range(0x20, 0x7F),
        *range(0xA0, 0x180),
        *range(0x2010, 0x2040),
        0x2190,
        0x2192,
        0x2212,
    }
    for row in _ROWS:
        for cell in range(1, 95):
            try:
                codes |= {ord(c) for c in bytes([0xA0 + row, 0xA0 + cell]).decode("euc_jp")}
            except UnicodeDecodeError:
                continue
    return codes


def main() -> None:
    """Write the subset."""
    collection = TTCollection(sys.argv[1])
    names = [font["name"].getDebugName(4) for font in collection.fonts]
    font = collection.fonts[names.index("Noto Sans CJK JP")]
    options = subset.Options(layout_features=[], hinting=False, desubroutinize=False)
    options.name_IDs = [0, 1, 2, 3, 4, 5, 6, 7, 13, 14]
    maker = subset.Subsetter(options)
    maker.populate(unicodes=kept())
    maker.subset(font)
    for record in font["name"].names:
        if record.nameID in (1, 4, 6):
            record.string = "vlwmFigures" if record.nameID == 6 else "vlwm Figures"
    font.save(OUT)
    print(f"{OUT}: {OUT.stat().st_size / 1e6:.2f} MB, {len(font.getBestCmap())} characters")


if __name__ == "__main__":
    main()
