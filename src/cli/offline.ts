import metadata from '../../package.json' with { type: 'json' };
import type { Config } from '../config.ts';
import type { Views } from '../core/views.ts';
import { openShared } from '../daemon.ts';
import { openLog } from '../log.ts';
import { makeViews } from '../run/views.ts';
import type { Edge } from './edge.ts';

/**
 * What the daemon would tell and do, with the daemon down: over the same journal and engine. The journal lets one in at
 * a time, so that a daemon which starts meanwhile is refused, and tries again.
 * @throws OperationalError `configuration`: the journal is in use, or no engine is found
 */
export async function openOffline(config: Config, { env }: Edge): Promise<Views & AsyncDisposable> {
  await using stack = new AsyncDisposableStack();
  const log = openLog({ ...config.log, level: 'error', env });
  const { parts } = await openShared(config, { env, log, version: metadata.version }, stack);
  const owned = stack.move();
  return { ...makeViews(parts, { version: metadata.version }), [Symbol.asyncDispose]: () => owned.disposeAsync() };
}
