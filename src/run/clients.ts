import { OperationalError } from '../core/errors.ts';
import type { Lease } from '../core/ports.ts';
import type { RunRecord } from '../core/record.ts';
import type { Incarnation, Workload } from '../core/workload.ts';
import type { Shared } from './shared.ts';

/** Many events are one, as they are for the holds. */
const PAUSE_MS = 200;
/** The engine may call a container created still whose program has spoken already: it is looked at twice. */
const LOOK_AGAIN_MS = 1000;

/**
 * Resolves once the engine shows that nothing that had the client's directory at `pre` runs any more, with why the run
 * is over; for bare signals, which leave nobody behind, it is the one sign of a death. The kernel's word outweighs it:
 * a lease that is held is held, by a client of which the engine knows nothing. An engine that is away says nothing.
 * Rejects with the signal's reason.
 */
export async function clientsGone(
  { clients = [] }: RunRecord,
  lease: Lease | undefined,
  { tools, engine }: Shared,
  signal: AbortSignal,
): Promise<string> {
  const isGone = async (): Promise<boolean> => {
    try {
      for (const client of clients) if (isAlive(client, await tools.driver.inspect(client, signal))) return false;
      return (await lease?.isHeld()) !== true;
    } catch (error) {
      if (error instanceof OperationalError) return false;
      throw error;
    }
  };
  for (;;) {
    const changed = engine.next(signal);
    changed.catch(() => undefined);
    if (await isGone()) {
      await tools.clock.sleep(LOOK_AGAIN_MS, signal);
      if (await isGone()) return `no container that shared its directory runs any more (${namesOf(clients)})`;
    }
    await changed;
    await tools.clock.sleep(PAUSE_MS, signal);
  }
}

/** A container that was started anew has the name, and not the client. */
function isAlive(client: Incarnation, now: Workload | undefined): boolean {
  if (now?.instance !== client.instance || (now.state !== 'running' && now.state !== 'paused')) return false;
  return client.startedAt === '' || client.startedAt === now.startedAt;
}

function namesOf(clients: readonly Incarnation[]): string {
  return clients.map(({ name }) => name).join(', ');
}
