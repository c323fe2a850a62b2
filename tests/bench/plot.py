"""plot: bars with their spread, as SVG."""

import statistics
from xml.sax.saxutils import escape

LABEL_WIDTH, BAR_WIDTH, VALUE_WIDTH = 100, 240, 60
BAR_HEIGHT, BAR_STEP = 16, 24
TITLE_HEIGHT, MARGIN = 34, 16
PANEL_WIDTH = LABEL_WIDTH + BAR_WIDTH + VALUE_WIDTH
COLUMNS = 2


def draw(panels, highlight):
    """panels: (title, {label: samples}) each. The bar of a label is the median
    of its samples, the line over it goes from the least to the greatest."""
    rows = [panels[i:i + COLUMNS] for i in range(0, len(panels), COLUMNS)]
    heights = [TITLE_HEIGHT + BAR_STEP * max(len(bars) for _title, bars in row) + MARGIN
               for row in rows]
    width = COLUMNS * PANEL_WIDTH + (COLUMNS + 1) * MARGIN
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{sum(heights)}" '
             f'font-family="sans-serif" font-size="12">',
             '<rect width="100%" height="100%" fill="white"/>']
    top = 0
    for row, height in zip(rows, heights):
        for column, (title, bars) in enumerate(row):
            left = MARGIN + column * (PANEL_WIDTH + MARGIN)
            parts += panel(left, top, title, bars, highlight)
        top += height
    return "\n".join([*parts, "</svg>"]) + "\n"


def panel(left, top, title, bars, highlight):
    zero = left + LABEL_WIDTH
    unit = BAR_WIDTH / max(max(samples) for samples in bars.values())
    yield f'<text x="{left}" y="{top + 22}" font-weight="bold">{escape(title)}</text>'
    order = sorted(bars, key=lambda label: (label != highlight, label))
    for index, label in enumerate(order):
        samples = bars[label]
        y = top + TITLE_HEIGHT + index * BAR_STEP
        middle = y + BAR_HEIGHT / 2
        value = statistics.median(samples)
        low, high = zero + min(samples) * unit, zero + max(samples) * unit
        colour = "#1f77b4" if label == highlight else "#b8c4ce"
        yield (f'<text x="{zero - 8}" y="{middle + 4}" text-anchor="end">{escape(label)}</text>'
               f'<rect x="{zero}" y="{y}" width="{value * unit:.1f}" height="{BAR_HEIGHT}" '
               f'fill="{colour}"/>'
               f'<path d="M{low:.1f} {middle}H{high:.1f}M{low:.1f} {middle - 4}v8'
               f'M{high:.1f} {middle - 4}v8" stroke="#333"/>'
               f'<text x="{high + 6:.1f}" y="{middle + 4}">{value:.3g}</text>')
