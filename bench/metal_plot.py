#!/usr/bin/env python3
"""Draws the table of the metal broker's streams, read from standard input, as bars: refused nodes in percent and excess a node, by
shape and rule.

    cargo bench -p windlass-metal_broker --features testing --bench metal -- streams | tee /dev/stderr | python3 bench/metal_plot.py streams.svg
"""

import re
import sys

COLOURS = {"windlass": "#1b6ca8", "no forecast": "#7fb2d6", "random": "#d98c3f", "first by name": "#a33c3c"}
LINE = re.compile(r"^  (\w+)\s+(windlass|no forecast|random|first by name)\s+(\d+)\s+(\d+)\s+([\d.]+)\s+([\d.]+)")


def panel(rows, value, title, top):
    shapes = list(dict.fromkeys(r[0] for r in rows))
    most = max(r[value] for r in rows) or 1
    out = [f'<text x="20" y="{top}" font-weight="bold">{title}</text>']
    for s, shape in enumerate(shapes):
        left = 40 + s * 150
        out.append(f'<text x="{left}" y="{top + 190}">{shape}</text>')
        for b, row in enumerate(r for r in rows if r[0] == shape):
            height = 140 * row[value] / most
            y = top + 170 - height
            out.append(f'<rect x="{left + b * 30}" y="{y:.1f}" width="26" height="{height:.1f}" fill="{COLOURS[row[1]]}"/>')
            out.append(f'<text x="{left + b * 30}" y="{y - 3:.1f}" font-size="9">{row[value]:.2f}</text>')
    return out


def main():
    found = (LINE.match(line) for line in sys.stdin)
    rows = [(m[1], m[2], float(m[5]), float(m[6])) for m in found if m]
    if not rows:
        sys.exit("no table on standard input")
    out = ['<svg xmlns="http://www.w3.org/2000/svg" width="820" height="480" font-family="sans-serif" font-size="12">']
    out.append('<rect width="820" height="480" fill="white"/>')
    out += panel(rows, 2, "nodes refused, in percent", 20)
    out += panel(rows, 3, "excess of a node", 240)
    for n, (rule, colour) in enumerate(COLOURS.items()):
        out.append(f'<rect x="{40 + n * 150}" y="450" width="12" height="12" fill="{colour}"/>')
        out.append(f'<text x="{58 + n * 150}" y="461">{rule}</text>')
    out.append("</svg>")
    with open(sys.argv[1], "w", encoding="utf-8") as file:
        file.write("\n".join(out) + "\n")


if __name__ == "__main__":
    main()
