/** Wakes when a workload may have changed state. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Log } from '../core/ports.ts';
import { type Api, parseJson } from './kubernetes-api.ts';
import { pathOf } from './kubernetes-objects.ts';

const FIRST_MS = 1_000;
const TICK_MS = 10_000;
/** The server ends a watch after this; at the start of the next one all is looked at, so that nothing is missed. */
const WATCH_S = '300';

/**
 * `Driver.changes`: beats at each event of a Deployment or a StatefulSet; while the watch is cut off, every 10 seconds,
 * and once when it is back. One that is too old (410) is begun anew. Ends when the signal aborts.
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
  const onOpen = (): void => {
    beat(); // whatever happened before we listened
    if (wasCut) log?.info('the API is back: watching again', { what });
    wasCut = false;
  };
  while (!signal.aborted) {
    try {
      await watchOnce(api, what, { beat, onOpen }, signal);
      await sleep(FIRST_MS, undefined, { signal }); // a server that ends each of them at once is not to be asked in a loop
    } catch (error) {
      if (signal.aborted) return;
      if (!wasCut) log?.warn('the watch was cut off: looking every 10 seconds', { what, error: String(error) });
      beat();
      await sleep(wasCut ? TICK_MS : FIRST_MS, undefined, { signal }).catch(() => undefined);
      wasCut = true;
    }
  }
}

/** Until the server ends it, or says that what it begins with is too old (410): both are in the course of things. */
async function watchOnce(
  api: Api,
  what: 'deployments' | 'statefulsets',
  { beat, onOpen }: { readonly beat: () => void; readonly onOpen: () => void },
  signal: AbortSignal,
): Promise<void> {
  const question = { doing: `watch ${what}`, path: pathOf(api, what), signal };
  // Without a version to begin with, the server asks its cache, which for a kind that nobody has may be behind for ever.
  const { body } = await api.ask({ ...question, query: { limit: '1' } });
  const { resourceVersion = '' } =
    (body as { readonly metadata?: { readonly resourceVersion?: string } }).metadata ?? {};
  const query = { watch: 'true', timeoutSeconds: WATCH_S, allowWatchBookmarks: 'true', resourceVersion };
  const stream = await api.open({ ...question, query, accept: [410] });
  if (stream.statusCode === 410) return void stream.destroy();
  onOpen();
  let rest = '';
  for await (const chunk of stream as AsyncIterable<Buffer>) {
    const lines = (rest + chunk.toString()).split('\n');
    rest = lines.pop() ?? '';
    for (const event of lines.map((line) => parseJson(line) as WatchEvent | undefined)) {
      if (event?.type === 'ERROR' && event.object?.code === 410) return;
      if (event?.type === 'ERROR') throw new Error(event.object?.message ?? 'the server does not say why');
      if (event?.type !== 'BOOKMARK') beat();
    }
  }
}

type WatchEvent = {
  readonly type?: string;
  readonly object?: { readonly code?: number; readonly message?: string };
};
