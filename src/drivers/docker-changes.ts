/** Wakes when a container may have changed state. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Log } from '../core/ports.ts';
import type { Api } from './docker-api.ts';

/** Not `exec_…`: health checks make three of these each time, in every container. The second line is Podman's. */
const EVENTS = [
  ...['start', 'die', 'stop', 'pause', 'unpause', 'destroy', 'health_status'],
  ...['died', 'remove', 'cleanup'],
];
const TICK_MS = 10_000;
/** An engine that is only restarted is soon back. */
const FIRST_MS = 1_000;

/**
 * `Driver.changes`: beats at each event; while the engine's events are cut off, every 10 seconds, and once when they are
 * back, since nobody knows what was missed. Ends when the signal aborts.
 */
export async function* changes(api: Api, log: Log | undefined, signal: AbortSignal): AsyncGenerator<void> {
  const filters = JSON.stringify({ type: ['container'], event: EVENTS });
  let wasCut = false;
  while (!signal.aborted) {
    try {
      const stream = await api.open({ doing: 'follow events', path: '/events', query: { filters }, signal });
      yield; // whatever happened before we listened
      if (wasCut) log?.info('the engine is back: following its events again');
      wasCut = false;
      // Whatever is in a piece, it is a reason to look; several events at once are one.
      for await (const _ of stream) yield;
      throw new Error('the engine ended the connection');
    } catch (error) {
      if (signal.aborted) return;
      if (!wasCut) log?.warn('cut off from the engine: looking every 10 seconds', { error: String(error) });
      yield;
      await sleep(wasCut ? TICK_MS : FIRST_MS, undefined, { signal }).catch(() => undefined);
      wasCut = true;
    }
  }
}
