import { OperationalError } from '../core/errors.ts';
import type { Shared } from './shared.ts';

/** What the engine may take for its answer, beside the time that it is asked about. */
const PATIENCE_MS = 2000;

/**
 * What of the project, beside what we hold and our clients, is being stopped just now, or within `forMs`: then it may be
 * the whole project that is. Undefined: nothing, or nobody can tell.
 */
export async function findStopping({ tools, ending }: Shared, forMs: number): Promise<string | undefined> {
  const { driver, journal, clock, log } = tools;
  const held = journal.holds().map(({ key }) => key);
  const signal = AbortSignal.any([ending.signal, clock.deadline(forMs + PATIENCE_MS)]);
  try {
    return await driver.findStopping?.(held, forMs, signal);
  } catch (error) {
    if (!(error instanceof OperationalError || signal.aborted)) throw error;
    log.warn('cannot tell whether the whole project is being stopped', { why: String(error) });
    return undefined;
  }
}

/** Compose stops a client before the sidecar that it depends on, and is soon there. */
const SOON_MS = 5000;

/**
 * For a run that ends badly: where others of the project are being stopped, waits a little whether the sidecar is, too,
 * before anything is started that somebody is about to stop. `ending` has aborted if all of it is the next start's.
 */
export async function heedSiblings(shared: Shared): Promise<void> {
  const { tools, stopping } = shared;
  const other = await findStopping(shared, 0);
  if (other === undefined) return;
  tools.log.warn('others of the project are being stopped: waiting whether the sidecar is', { with: other });
  await tools.clock.sleep(SOON_MS, stopping.signal).catch(() => undefined);
}
