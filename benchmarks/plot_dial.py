"""Draws dial_sweep's JSON as an SVG: for each topology, goodput by load, the dial beside its rivals.

    benchmarks/plot_dial.py FILE.json FILE.svg
"""
import json
import sys

WIDTH, HEIGHT, LEFT, TOP, COLUMNS = 300, 190, 46, 34, 4
COLOURS = {"dial": "#d00000", "budget 0": "#9db4c0", "budget 64": "#7a9ab8", "budget 128": "#577590", "budget 256": "#43667f",
           "budget 512": "#253d5b", "static disaggregation": "#2a9d8f", "chunked aggregation": "#e9a03b"}


def panels(outcomes):
    """{(family of loads, topology): {policy: [(x, goodput)]}}; a family is what its loads share after the first comma."""
    result = {}
    for outcome in outcomes:
        amount, _, shape = outcome["load"].partition(", ")
        number, unit = amount.split(" ", 1)
        lines = result.setdefault((f"{unit}; {shape}", outcome["topology"]), {})
        lines.setdefault(outcome["policy"], []).append((float(number), outcome["goodput"]))
    return result


def panel_svg(x, y, title, lines):
    right, bottom = x + WIDTH - 14, y + HEIGHT - 40
    left, top = x + LEFT, y + TOP
    largest_x = max(point[0] for line in lines.values() for point in line)
    largest_y = max(max(point[1] for line in lines.values() for point in line), 0.1) * 1.05
    to_x = lambda value: left + (right - left) * value / largest_x
    to_y = lambda value: bottom - (bottom - top) * value / largest_y
    parts = [f'<text x="{left}" y="{y + 22}" font-weight="bold">{title}</text>',
             f'<path d="M{left} {top}V{bottom}H{right}" fill="none" stroke="#444"/>']
    for share in (0.5, 1.0):
        value = largest_y / 1.05 * share
        parts.append(f'<text x="{left - 4}" y="{to_y(value) + 4:.1f}" text-anchor="end">{value:.1f}</text>')
    for value in sorted({point[0] for line in lines.values() for point in line}):
        parts.append(f'<text x="{to_x(value):.1f}" y="{bottom + 14}" text-anchor="middle">{value:g}</text>')
    for policy in sorted(lines, key=lambda name: name == "dial"):  # the dial on top
        points = " ".join(f"{to_x(a):.1f},{to_y(b):.1f}" for a, b in sorted(lines[policy]))
        width = 2.5 if policy == "dial" else 1.2
        parts.append(f'<polyline points="{points}" fill="none" stroke="{COLOURS.get(policy, "#000")}" stroke-width="{width}"/>')
    return parts


def main(source, target):
    data = json.load(open(source, encoding="utf-8"))
    families = {}
    for (family, topology), lines in panels(data["outcomes"]).items():
        families.setdefault(family, []).append((topology, lines))
    parts, y = [], 40
    for family, topologies in families.items():
        parts.append(f'<text x="10" y="{y + 14}" font-size="14" font-weight="bold">goodput, requests/s, by {family}</text>')
        y += 20
        for index, (topology, lines) in enumerate(topologies):
            parts += panel_svg(index % COLUMNS * WIDTH, y + index // COLUMNS * HEIGHT, topology, lines)
        y += (len(topologies) + COLUMNS - 1) // COLUMNS * HEIGHT + 10
    legend = []
    for index, (policy, colour) in enumerate(COLOURS.items()):
        legend.append(f'<path d="M{10 + index * 148} 20h20" stroke="{colour}" stroke-width="3"/>'
                      f'<text x="{34 + index * 148}" y="24">{policy}</text>')
    head = (f'<svg xmlns="http://www.w3.org/2000/svg" width="{COLUMNS * WIDTH}" height="{y}" font-family="sans-serif" font-size="11">'
            f'<rect width="100%" height="100%" fill="#fff"/>')
    with open(target, "w", encoding="utf-8") as file:
        file.write("\n".join([head, *legend, *parts, "</svg>"]) + "\n")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
