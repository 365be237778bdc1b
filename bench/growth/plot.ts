// A plot as SVG, drawn without a browser: ECharts writes the text itself. Both axes may be logarithmic, since sizes are
// powers of ten.
import { init } from 'echarts';

export interface Plot {
  readonly title: string;
  readonly x: string;
  readonly y: string;
  readonly yScale: 'linear' | 'log';
  readonly lines: readonly Line[];
}

export interface Line {
  readonly name: string;
  /** Dashed: what was asked for, not measured. */
  readonly isBound?: boolean;
  readonly points: readonly (readonly [x: number, y: number])[];
}

const WIDTH = 720;
/** Of the plot without the legend, whose names are as many as there are lines. */
const HEIGHT = 390;
const LEGEND_ROW = 22;
/** About: there is no browser that could measure the text. A row is cut wherever a name does not fit any more. */
const LETTER_WIDTH = 6.6;
const NAME_MARGIN = 48;
const FONT = 'system-ui, sans-serif';
const DOUBLING_UP_TO = 64;

export function svgOf({ title, x, y, yScale, lines }: Plot): string {
  const legend = LEGEND_ROW * legendRows(lines.map(({ name }) => name));
  const chart = init(null, null, { renderer: 'svg', ssr: true, width: WIDTH, height: HEIGHT + legend });
  try {
    const named = { nameLocation: 'middle', nameGap: 46, axisLabel: { formatter: short } } as const;
    const sizes = lines.flatMap(({ points }) => points.map(([size]) => size));
    const [least, most] = [Math.min(...sizes), Math.max(...sizes)];
    chart.setOption({
      animation: false,
      backgroundColor: '#ffffff',
      textStyle: { fontFamily: FONT },
      title: { text: title, left: 'center', top: 6, textStyle: { fontSize: 15, fontFamily: FONT } },
      legend: { bottom: 4, data: lines.map(({ name }) => name) },
      grid: { left: 80, right: 30, top: 44, bottom: 64 + legend },
      xAxis: {
        ...named,
        type: 'log',
        name: x,
        nameGap: 28,
        // Shards double, all else grows tenfold; the first and the last stand at the ends.
        logBase: most <= DOUBLING_UP_TO ? 2 : 10,
        ...(least < most && { min: least, max: most }),
      },
      yAxis:
        yScale === 'log' ? { ...named, type: 'log', name: y } : { ...named, type: 'value', name: y, min: 0 },
      series: lines.map(({ name, isBound = false, points }) => ({
        type: 'line',
        name,
        symbolSize: isBound ? 0 : 7,
        lineStyle: { type: isBound ? 'dashed' : 'solid', width: isBound ? 1.5 : 2 },
        data: points.map((point) => [...point]),
      })),
    });
    return `${chart.renderToSVGString()}\n`;
  } finally {
    chart.dispose();
  }
}

function legendRows(names: readonly string[]): number {
  let [rows, used] = [1, 0];
  for (const name of names) {
    const width = name.length * LETTER_WIDTH + NAME_MARGIN;
    if (used > 0 && used + width > WIDTH) [rows, used] = [rows + 1, 0];
    used += width;
  }
  return rows;
}

/** 1,200,000 as 1.2M. */
function short(value: number): string {
  const units = [
    [1e9, 'G'],
    [1e6, 'M'],
    [1e3, 'k'],
  ] as const;
  for (const [unit, letter] of units)
    if (Math.abs(value) >= unit) return `${Number((value / unit).toPrecision(3))}${letter}`;
  return String(Number(value.toPrecision(3)));
}
