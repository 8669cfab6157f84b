/** What a measurement is made of: samples of ours and of what it is held against, taken in turn. */

/** One line of the table. */
export type Row = {
  /** Its number in docs/performance.md, where there is a goal for it. */
  readonly goal?: { readonly id: string; readonly most: number };
  readonly work: string;
  readonly against: string;
  readonly unit: 'ms' | 'MB' | 'ticks';
  /** One number for each repetition, in `unit`. */
  readonly ours: readonly number[];
  readonly theirs: readonly number[];
};

/** How often, and how much: a smoke test does everything once, with little of it. */
export type Extent = {
  readonly isQuick: boolean;
  /** Fewer where a single one takes seconds. */
  readonly repetitions: number;
  readonly longRepetitions: number;
};

/** How many pairs `inTurn` takes in all: the first, in which caches fill, does not count. */
export function pairsOf(repetitions: number): number {
  return repetitions + 1;
}

/** Takes samples of both, alternately, so that whatever else the machine does falls on both. */
export async function inTurn(
  repetitions: number,
  ours: () => Promise<number>,
  theirs: () => Promise<number>,
): Promise<Pick<Row, 'ours' | 'theirs'>> {
  const taken = { ours: [] as number[], theirs: [] as number[] };
  for (let count = 0; count < pairsOf(repetitions); count += 1) {
    const pair = { ours: await ours(), theirs: await theirs() };
    if (count === 0) continue;
    taken.ours.push(pair.ours);
    taken.theirs.push(pair.theirs);
  }
  return taken;
}

/** Resolves to how long `action` took, in ms. */
export async function timed(action: () => Promise<unknown>): Promise<number> {
  const began = performance.now();
  await action();
  return performance.now() - began;
}

/** @throws when there are none */
export function medianOf(samples: readonly number[]): number {
  const sorted = samples.toSorted((a, b) => a - b);
  const upper = sorted[Math.floor(sorted.length / 2)];
  const lower = sorted[Math.ceil(sorted.length / 2) - 1];
  if (upper === undefined || lower === undefined) throw new Error('take a median: there are no samples');
  return (lower + upper) / 2;
}

/** The rows as a table of Markdown, to be read on a terminal and pasted into docs/performance.md. */
export function tableOf(rows: readonly Row[]): string {
  const heads = ['goal', 'work', 'against', 'ours', 'theirs', 'ratio', 'at most'];
  const cells = rows.map(({ goal, work, against, unit, ...row }) => {
    const [ours, theirs] = [medianOf(row.ours), medianOf(row.theirs)];
    const ratio = theirs === 0 ? '-' : (ours / theirs).toFixed(2); // nothing is no measure for anything
    const shown = (value: number) => `${value.toFixed(unit === 'ms' && value < 100 ? 1 : 0)} ${unit}`;
    return [goal?.id ?? '', work, against, shown(ours), shown(theirs), ratio, goal === undefined ? '' : `${goal.most}`];
  });
  const widths = heads.map((head, column) => Math.max(head.length, ...cells.map((row) => row[column]?.length ?? 0)));
  const line = (row: readonly string[]) => `| ${row.map((cell, i) => cell.padEnd(widths[i] ?? 0)).join(' | ')} |`;
  return [line(heads), line(widths.map((width) => '-'.repeat(width))), ...cells.map(line)].join('\n');
}
