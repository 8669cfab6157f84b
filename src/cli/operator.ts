import { join } from 'node:path';
import { CONFIG_FLAGS, type LoadedConfig, loadConfig } from '../config.ts';
import type { Views } from '../core/views.ts';
import { type Edge, EXIT_CODE_OF_SIGNAL, print, untilTold } from './edge.ts';
import { isUp, makeRemoteViews } from './remote-views.ts';
import { type Given, textOf } from './verb.ts';

/** The options of every verb that reads the configuration. */
export const OPERATOR_OPTIONS = {
  ...CONFIG_FLAGS,
  config: { type: 'string' },
  json: { type: 'boolean' },
} as const;

/** What `help` says of them. */
export const OPERATOR_HELP = `  --json               for programs
  --config FILE        default /etc/sidehook/sidehook.yaml; every setting is an option as well: --state-dir DIR`;

/** The settings, as file, environment and options have them. @throws OperationalError `configuration` */
export function configOf(given: Given, { env }: Edge, strictness: 'strict' | 'lenient'): LoadedConfig {
  const configPath = textOf(given, 'config');
  return loadConfig({
    env,
    flags: given.values,
    strict: strictness === 'strict',
    ...(configPath === undefined ? {} : { configPath }),
  });
}

/** Where the operator's socket is. */
export function controlSocketOf({ config }: LoadedConfig): string {
  return join(config.state.dir, 'control.sock');
}

/**
 * Asks the daemon, or with the daemon down the journal itself. The first POSIX signal ends the asking.
 * @throws OperationalError as the view that is asked
 */
export async function askViews(
  given: Given,
  edge: Edge,
  look: (views: Views, loaded: LoadedConfig, signal: AbortSignal) => Promise<number>,
): Promise<number> {
  const loaded = configOf(given, edge, 'lenient');
  const socketPath = controlSocketOf(loaded);
  using stopping = untilTold(edge.posix);
  try {
    if (await isUp(socketPath, stopping.signal))
      return await look(makeRemoteViews(socketPath), loaded, stopping.signal);
    const { openOffline } = await import('./offline.ts');
    await using views = await openOffline(loaded.config, edge);
    return await look(views, loaded, stopping.signal);
  } catch (error) {
    const told = stopping.told();
    if (told === undefined || error !== stopping.signal.reason) throw error;
    return EXIT_CODE_OF_SIGNAL[told];
  }
}

/** Prints one JSON document, or what `describe` makes of it. */
export async function show<Value>(
  { values }: Given,
  { out }: Edge,
  value: Value,
  describe: (value: Value) => string,
): Promise<void> {
  await print(out, values.json === true ? `${JSON.stringify(value, undefined, 2)}\n` : describe(value));
}

/** Columns, as wide as they must be; no cell can move the cursor or colour the screen. */
export function makeTable(rows: readonly (readonly string[])[]): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is taken out
  const clean = rows.map((row) => row.map((cell) => cell.replaceAll(/[\u0000-\u001f\u007f-\u009f]+/g, ' ')));
  const widths: number[] = [];
  for (const row of clean) for (const [at, cell] of row.entries()) widths[at] = Math.max(widths[at] ?? 0, cell.length);
  return clean
    .map(
      (row) =>
        `${row
          .map((cell, at) => cell.padEnd(widths[at] ?? 0))
          .join('  ')
          .trimEnd()}\n`,
    )
    .join('');
}
