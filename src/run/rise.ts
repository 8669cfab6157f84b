import { OperationalError } from '../core/errors.ts';
import type { HoldRecord } from '../core/record.ts';
import type { Workload } from '../core/workload.ts';
import { type EngineEdges, inspectPatiently, whileEngineAway } from './engine.ts';
import { nextWithin, type Pulse } from './pulse.ts';
import type { Tools } from './tools.ts';

/** How one release ended. `pending`: not yet, and it is tried again; nothing is forgotten. */
export type ReleaseResult = {
  readonly hold: HoldRecord;
  readonly status: 'running' | 'unwell' | 'gone' | 'left' | 'shared' | 'pending';
  readonly why?: string;
  /** As it was started in haste, where nobody waited for its health. */
  readonly hasty?: Workload;
};

/** What it takes to start one. */
export type RiseEdges = EngineEdges & {
  /** Lets only so many starts be under way at once: more gain nothing (docs/performance.md). */
  readonly turnstile: <T>(work: () => Promise<T>) => Promise<T>;
  readonly pulse: Pulse;
  /** Aborts when there is no time left for health checks. */
  readonly haste: AbortSignal;
};

const ATTEMPTS = 3;

/**
 * Has one workload run as it did, whatever became of it meanwhile, and waits for its health.
 * @throws OperationalError `workload-failed` when it does not start
 */
export async function bringUp(hold: HoldRecord, tools: Tools, edges: RiseEdges): Promise<ReleaseResult> {
  const { signal } = edges;
  const ask = <T>(work: () => Promise<T>): Promise<T> => whileEngineAway(work, tools, edges);
  for (let attempt = 1; attempt <= ATTEMPTS; attempt += 1) {
    const found = await ask(() => inspectPatiently(hold, tools, signal));
    if (found === undefined) return { hold, status: 'gone', why: 'it no longer exists' };
    const next = nextFor(hold, found);
    if (next === 'up') return awaitHealth(hold, found, tools, edges);
    if (next !== 'start' && next !== 'hold-then-start') return { hold, status: 'left', why: next.why };
    // A stop once asked cannot be taken back: the engine goes on with it after its caller died. So await it first.
    if (next === 'hold-then-start') await ask(() => tools.driver.hold(found, hold.kind, hold.stopTimeoutMs, signal));
    const risen = await ask(() => edges.turnstile(() => tools.driver.release(found, hold.kind, signal)));
    if (risen.state === 'exited' && risen.heldFor !== undefined)
      return { hold, status: 'shared', why: `still held for run ${risen.heldFor.join(', ')} of another sidehook` };
    if (isRisen(hold, found, risen)) return awaitHealth(hold, risen, tools, edges);
  }
  throw new OperationalError('workload-failed', `start ${hold.name}: still not a new start after ${ATTEMPTS} attempts`);
}

/** What has to be done with a workload, as it is found, to have it run as it did. */
function nextFor(hold: HoldRecord, found: Workload): 'up' | 'start' | 'hold-then-start' | { readonly why: string } {
  if (found.instance !== hold.instance) {
    if (found.state === 'created') return 'start';
    return found.state === 'exited' ? { why: 'it was made anew meanwhile, and stopped by someone' } : 'up';
  }
  const isSameStart = found.startedAt === hold.startedAt;
  switch (found.state) {
    case 'paused':
      return hold.kind === 'pause' ? 'start' : { why: 'it was paused by someone meanwhile' };
    case 'running':
    case 'restarting':
      if (!isSameStart || (hold.kind === 'pause' && hold.finishedAt !== undefined)) return 'up';
      return 'hold-then-start'; // we asked, and never learnt what became of it
    case 'created':
    case 'exited':
      // An unknown mark is that of a crash in the middle of our stop, and counts as ours.
      if (hold.finishedAt === undefined || hold.finishedAt === found.finishedAt) return 'start';
      if (hold.kind === 'pause' && isSameStart) return 'start'; // it died still, with the engine or the machine
      return { why: 'it was started, and stopped again, by someone meanwhile' };
  }
}

/** A stop counts as released only when a newer incarnation runs, or has run. */
function isRisen(hold: HoldRecord, before: Workload, now: Workload): boolean {
  if (hold.kind === 'pause') return now.state !== 'paused';
  return now.startedAt !== before.startedAt;
}

async function awaitHealth(hold: HoldRecord, found: Workload, tools: Tools, edges: RiseEdges): Promise<ReleaseResult> {
  const termMs = Math.max(tools.settings.healthTimeoutMs, hold.healthTermMs);
  const until = tools.clock.monotonicMs() + termMs;
  let now: Workload | undefined = found;
  for (;;) {
    if (now === undefined) return { hold, status: 'gone', why: 'it was removed while it started' };
    if (now.state === 'exited') return unwell(hold, `it started, and exited at once (${now.exitCode ?? 'no code'})`);
    if (!hold.awaitHealth || now.health === 'healthy' || now.health === 'none') return { hold, status: 'running' };
    if (edges.haste.aborted) return { hold, status: 'running', why: 'its health was not waited for', hasty: now };
    const leftMs = until - tools.clock.monotonicMs();
    if (leftMs <= 0) return unwell(hold, `it runs, but is ${now.health} after ${Math.round(termMs / 1000)}s`);

    const signal = AbortSignal.any([edges.signal, edges.haste]);
    await nextWithin(edges.pulse, Math.min(leftMs, 1000), tools.clock, signal).catch(() => undefined);
    edges.signal.throwIfAborted();
    now = await whileEngineAway(() => tools.driver.inspect(found, edges.signal), tools, edges).catch(
      (error: unknown) => {
        if (!(error instanceof OperationalError)) throw error;
        return now; // one look that fails says nothing about its health
      },
    );
  }
}

/** What started and fell over while the others were brought up is no success. */
export async function exitedSince(
  result: ReleaseResult,
  tools: Tools,
  edges: RiseEdges,
): Promise<ReleaseResult | undefined> {
  if (result.status !== 'running' || edges.haste.aborted) return undefined;
  const now = await whileEngineAway(() => tools.driver.inspect(result.hold, edges.signal), tools, edges).catch(
    (error: unknown) => {
      if (!(error instanceof OperationalError)) throw error;
      return undefined; // nobody can tell: what is known is that it ran
    },
  );
  if (now?.state !== 'exited' && now?.state !== 'restarting') return undefined;
  return unwell(result.hold, `it started, and is ${now.state} since (${now.exitCode ?? 'no code'})`);
}

function unwell(hold: HoldRecord, why: string): ReleaseResult {
  return { hold, status: 'unwell', why };
}
