import metadata from '../../package.json' with { type: 'json' };
import type { LoadedConfig } from '../config.ts';
import { runDaemon } from '../daemon.ts';
import { openLog } from '../log.ts';
import type { Edge } from './edge.ts';

/** Is the daemon until `signal` aborts. @throws OperationalError when it cannot begin */
export async function serve({ config }: LoadedConfig, { env }: Edge, signal: AbortSignal): Promise<void> {
  const log = openLog({ ...config.log, env });
  try {
    await runDaemon(config, { env, log, version: metadata.version }, signal);
  } finally {
    await log.flush();
  }
}
