/** Wakes when a workload may have changed state. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Log } from '../core/ports.ts';
import { type Api, parseJson } from './kubernetes-api.ts';
import { pathOf } from './kubernetes-objects.ts';

const FIRST_MS = 1_000;
const TICK_MS = 10_000;
/** The server ends a watch after this; a new one begins with all there is, so that nothing is missed in between. */
const WATCH_S = '300';

/**
 * `Driver.changes`: beats at each event of a Deployment or a StatefulSet; while the watch is cut off, every 10 seconds,
 * and once when it is back. A watch that is too old (410) is one that was cut off. Ends when the signal aborts.
 */
export async function* changes(api: Api, log: Log | undefined, signal: AbortSignal): AsyncGenerator<void> {
  let { promise, resolve } = Promise.withResolvers<void>();
  const beat = (): void => resolve();
  const ended = new Promise<void>((done) => {
    if (signal.aborted) done();
    signal.addEventListener('abort', () => done(), { once: true });
  });
  const following = (['deployments', 'statefulsets'] as const).map((what) => follow(api, what, beat, log, signal));
  while (!signal.aborted) {
    await Promise.race([promise, ended]);
    if (signal.aborted) break;
    ({ promise, resolve } = Promise.withResolvers<void>());
    yield;
  }
  await Promise.all(following);
}

async function follow(
  api: Api,
  what: 'deployments' | 'statefulsets',
  beat: () => void,
  log: Log | undefined,
  signal: AbortSignal,
): Promise<void> {
  let wasCut = false;
  while (!signal.aborted) {
    try {
      const query = { watch: 'true', timeoutSeconds: WATCH_S };
      const stream = await api.open({ doing: `watch ${what}`, path: pathOf(api, what), query, signal });
      beat(); // whatever happened before we listened
      if (wasCut) log?.info('the API is back: watching again', { what });
      wasCut = false;
      let rest = '';
      for await (const chunk of stream as AsyncIterable<Buffer>) {
        const lines = (rest + chunk.toString()).split('\n');
        rest = lines.pop() ?? '';
        const events = lines.map((line) => parseJson(line) as { readonly type?: string } | undefined);
        if (events.some((event) => event?.type === 'ERROR')) throw new Error('the watch is too old');
        if (events.some((event) => event?.type !== 'BOOKMARK')) beat();
      }
    } catch (error) {
      if (signal.aborted) return;
      if (!wasCut) log?.warn('the watch was cut off: looking every 10 seconds', { what, error: String(error) });
      beat();
      await sleep(wasCut ? TICK_MS : FIRST_MS, undefined, { signal }).catch(() => undefined);
      wasCut = true;
    }
  }
}
