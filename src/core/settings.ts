import { DURATION_WORDS, LONGEST_TERM_MS, parseDuration } from './duration.ts';
import { OperationalError } from './errors.ts';
import type { Settings } from './hook.ts';
import { RUN_OUTCOMES } from './result.ts';

/** What a hook is run with when it says nothing. */
export type HookDefaults = { readonly timeoutMs: number };

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
      return { outcomes: listOf(value).map((outcome) => oneOf(where, outcome, RUN_OUTCOMES)) };
    case 'user':
      return { user: textOf(where, value, /^[A-Za-z0-9_][\w.-]*\$?(:[A-Za-z0-9_][\w.-]*)?$/, 'a user, or user:group') };
    case 'workdir':
      return { workdir: textOf(where, value, /^\//, 'an absolute path') };
    default:
      return undefined;
  }
}

/** The settings of a hook that says nothing. */
export function defaultSettings({ timeoutMs }: HookDefaults): Settings {
  return {
    while: 'running',
    timeoutMs,
    onError: 'abort',
    retries: 0,
    retryDelayMs: 1000,
    match: 'all',
  };
}

/** Splits a list as users write it: commas, spaces around them allowed. */
export function listOf(value: string): string[] {
  return value
    .split(',')
    .map((item) => item.trim())
    .filter((item) => item !== '');
}

/** One of a few words. @throws OperationalError `configuration` */
export function oneOf<const T extends string>(where: string, value: string, known: readonly T[]): T {
  const found = known.find((word) => word === value);
  if (found === undefined) throw wrong(where, known.join(' or '), value);
  return found;
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
  const jobs = listOf(value);
  if (jobs.length === 0) throw wrong(where, 'a list of job names', value);
  return jobs.map((job) => textOf(where, job, /^[a-zA-Z0-9][\w.-]{0,63}$/, 'a job name'));
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
