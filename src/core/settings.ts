import { DURATION_WORDS, LONGEST_TERM_MS, parseDuration } from './duration.ts';
import { OperationalError } from './errors.ts';
import type { Settings } from './hook.ts';
import { RUN_OUTCOMES } from './result.ts';

/** What a header or a label may speak of, and what a hook is run with when it says nothing. */
export type HookLimits = { readonly timeoutMs: number; readonly operations: readonly string[] };

/** Applies one `key=value` of a header, or one label ending, to the settings so far. Undefined: no such key. */
export function settingOf(key: string, value: string, where: string): Partial<Settings> | undefined {
  switch (key) {
    case 'while':
      return { while: oneOf(where, value, ['running', 'held']) };
    case 'on-error':
      return { onError: oneOf(where, value, ['abort', 'continue']) };
    case 'match':
      return { match: oneOf(where, value, ['all', 'one', 'any']) };
    case 'timeout':
      return { timeoutMs: durationOf(where, value) };
    case 'retry-delay':
      return { retryDelayMs: durationOf(where, value, 0) };
    case 'retries':
      return { retries: countOf(where, value) };
    case 'outcome':
      return { outcomes: listOf(where, value).map((outcome) => oneOf(where, outcome, RUN_OUTCOMES)) };
    case 'user':
      return { user: textOf(where, value, /^[A-Za-z0-9_][\w.-]*\$?(:[A-Za-z0-9_][\w.-]*)?$/, 'a user, or user:group') };
    case 'workdir':
      return { workdir: textOf(where, value, /^\//, 'an absolute path') };
    default:
      return undefined;
  }
}

/** The settings of a hook that says nothing. */
export function defaultSettings({ timeoutMs }: HookLimits): Settings {
  return {
    while: 'running',
    timeoutMs,
    onError: 'abort',
    retries: 0,
    retryDelayMs: 1000,
    match: 'all',
  };
}

/** A list as users write it: commas, spaces around them allowed. An empty one would mean never, which nobody means. */
export function listOf(where: string, value: string): string[] {
  const items = value
    .split(',')
    .map((item) => item.trim())
    .filter((item) => item !== '');
  if (items.length === 0) throw wrong(where, 'a list', value);
  return items;
}

/** One of a few words. @throws OperationalError `configuration` */
export function oneOf<const T extends string>(where: string, value: string, known: readonly T[]): T {
  const found = known.find((word) => word === value);
  if (found === undefined) throw wrong(where, known.join(' or '), value);
  return found;
}

/** An operation that is allowed here: of a misspelt one, nobody would ever hear again. @throws OperationalError `configuration` */
export function operationOf(where: string, value: string, { operations }: HookLimits): string {
  if (operations.includes(value)) return value;
  const allowed = operations.join(', ');
  throw new OperationalError('configuration', `${where}: operation ${value} is not allowed; allowed are ${allowed}`);
}

/** A duration of at least `least` milliseconds. @throws OperationalError `configuration` */
export function durationOf(where: string, value: string, least = 1): number {
  const ms = parseDuration(value);
  if (ms === undefined || ms < least || ms > LONGEST_TERM_MS)
    throw wrong(where, `${DURATION_WORDS}, at most 24d`, value);
  return ms;
}

/** Names of jobs. @throws OperationalError `configuration` */
export function jobsOf(where: string, value: string): string[] {
  return listOf(where, value).map((job) => textOf(where, job, /^[a-zA-Z0-9][\w.-]{0,63}$/, 'a job name'));
}

function countOf(where: string, value: string): number {
  if (!/^\d{1,3}$/.test(value)) throw wrong(where, 'a number from 0 to 999', value);
  return Number(value);
}

function textOf(where: string, value: string, pattern: RegExp, expected: string): string {
  if (!pattern.test(value)) throw wrong(where, expected, value);
  return value;
}

/** `WHERE: expected E, got "V"`. */
export function wrong(where: string, expected: string, came: string): OperationalError {
  return new OperationalError('configuration', `${where}: expected ${expected}, got ${JSON.stringify(came)}`);
}
