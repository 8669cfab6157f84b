import { type ParseArgsOptionsConfig, parseArgs } from 'node:util';
import { nearestTo } from '../config-nearest.ts';
import { LONGEST_TERM_MS, parseDuration } from '../core/duration.ts';
import { OperationalError } from '../core/errors.ts';
import type { Edge } from './edge.ts';

/** One verb of the command line. */
export type Verb = {
  /** What follows `sidehook`: `run OPERATION [options] -- COMMAND [ARG...]`. */
  readonly usage: string;
  /** What `help VERB` says after that. */
  readonly help: string;
  readonly options: ParseArgsOptionsConfig;
  /** Does it, and resolves to the exit code. @throws OperationalError */
  start(given: Given, edge: Edge): Promise<number>;
};

/** Arguments, taken apart. */
export type Given = {
  readonly values: Readonly<Record<string, unknown>>;
  readonly words: readonly string[];
  /** What stands after `--`; undefined without one. */
  readonly rest: readonly string[] | undefined;
};

/** Takes a verb's arguments apart. @throws OperationalError `invalid-request` for what it does not know */
export function parseGiven(args: readonly string[], options: ParseArgsOptionsConfig): Given {
  const end = args.indexOf('--');
  const own = end < 0 ? args : args.slice(0, end);
  try {
    const { values, positionals } = parseArgs({ args: [...own], options, allowPositionals: true, strict: true });
    return { values, words: positionals, rest: end < 0 ? undefined : args.slice(end + 1) };
  } catch (error) {
    if (!(error instanceof TypeError)) throw error;
    const said = error.message.split('. ', 1)[0]?.replace(/^./, (first) => first.toLowerCase()) ?? 'wrong usage';
    const unknown = /^unknown option '(--[^']+)'/.exec(said)?.[1];
    const known = Object.keys(options).map((name) => `--${name}`);
    throw wrongUsage(unknown === undefined ? said : `${said}${nearestTo(unknown, known)}`);
  }
}

/** Wrong usage, 64: the line that says so, after which the user is told where help is. */
export function wrongUsage(message: string): OperationalError {
  return new OperationalError('invalid-request', message);
}

/** The one word of each name, no more and no fewer. @throws OperationalError `invalid-request` */
export function wordsOf(given: Given, ...names: readonly string[]): string[] {
  const missing = names[given.words.length];
  if (missing !== undefined) throw wrongUsage(`${missing}: missing`);
  const stray = given.words[names.length];
  if (stray !== undefined) throw wrongUsage(`${stray}: not expected`);
  return [...given.words];
}

/** The text of an option. */
export function textOf({ values }: Given, name: string): string | undefined {
  const value = values[name];
  return typeof value === 'string' ? value : undefined;
}

/** The milliseconds of an option. @throws OperationalError `invalid-request` */
export function termOf(given: Given, name: string): number | undefined {
  const text = textOf(given, name);
  if (text === undefined) return undefined;
  const ms = parseDuration(text);
  if (ms === undefined || ms > LONGEST_TERM_MS)
    throw wrongUsage(`--${name}: expected a duration such as 30s, 10m or 2h, got ${text}`);
  return ms;
}

/** The parameters that `--param NAME=VALUE` gave. @throws OperationalError `invalid-request` */
export function paramsOf({ values }: Given): Record<string, string> {
  const params: Record<string, string> = {};
  const given = Array.isArray(values.param) ? (values.param as string[]) : [];
  for (const text of given) {
    const [, name, value] = /^([^=]+)=(.*)$/s.exec(text) ?? [];
    if (name === undefined || value === undefined) throw wrongUsage(`--param: expected NAME=VALUE, got ${text}`);
    if (Object.hasOwn(params, name)) throw wrongUsage(`--param ${name}: expected once`);
    Object.defineProperty(params, name, { value, enumerable: true }); // a name like __proto__ is for the sidecar to refuse
  }
  return params;
}
