/** The units that people may write, longest first: the order in which they are written, too. */
const UNITS = [
  ['d', 86_400_000],
  ['h', 3_600_000],
  ['m', 60_000],
  ['s', 1_000],
  ['ms', 1],
] as const;

const DURATION = /^(?:(\d{1,15})d)?(?:(\d{1,15})h)?(?:(\d{1,15})m)?(?:(\d{1,15})s)?(?:(\d{1,15})ms)?$/;

/** The longest that a timer of Node can wait; it fires at once when it is asked for more. Any term must be shorter. */
export const LONGEST_TERM_MS = 2_147_483_647;

/** What a duration looks like, for messages: `expected ${DURATION_WORDS}`. */
export const DURATION_WORDS = 'a duration such as 30s, 10m or 1h30m';

/**
 * Milliseconds of `500ms`, `30s`, `10m`, `2h`, `7d`, `1h30m`: whole numbers, each unit once, the longest first.
 * Undefined for anything else, a bare number included, since nobody can tell whether it meant seconds.
 */
export function parseDuration(text: string): number | undefined {
  const parts = DURATION.exec(text);
  if (parts === null || text === '') return undefined;

  let ms = 0;
  for (const [index, [, unitMs]] of UNITS.entries()) ms += Number(parts[index + 1] ?? 0) * unitMs;
  return Number.isSafeInteger(ms) ? ms : undefined;
}

/** The shortest exact text of whole, non-negative milliseconds, which `parseDuration` reads back: `1h30m`, `0s`. */
export function formatDuration(ms: number): string {
  let rest = ms;
  let text = '';
  for (const [unit, unitMs] of UNITS) {
    const count = Math.floor(rest / unitMs);
    if (count > 0) text += `${count}${unit}`;
    rest -= count * unitMs;
  }
  return text === '' ? '0s' : text;
}
