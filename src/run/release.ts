import { OperationalError } from '../core/errors.ts';
import type { HoldChange, HoldRecord } from '../core/record.ts';
import type { Workload } from '../core/workload.ts';
import { type EngineEdges, isEngineAway, whileEngineAway, writeOrLog } from './engine.ts';
import { walkGraph } from './graph.ts';
import type { Lock } from './lock.ts';
import type { Pulse } from './pulse.ts';
import type { Tools } from './tools.ts';

/** How one release ended. `pending`: not yet, and it is tried again; nothing is forgotten. */
export type ReleaseResult = {
  readonly hold: HoldRecord;
  readonly status: 'running' | 'unwell' | 'gone' | 'left' | 'shared' | 'pending';
  readonly why?: string;
};

/** What release needs beside the tools. */
export type ReleaseEdges = EngineEdges & {
  readonly lock: Lock;
  /** Lets only so many starts be under way at once: more gain nothing (docs/performance.md). */
  readonly turnstile: <T>(work: () => Promise<T>) => Promise<T>;
  readonly pulse: Pulse;
  readonly left: Set<string>;
  readonly awaitsKept?: boolean;
  /** Aborts when there is no time left for health checks. */
  readonly haste: AbortSignal;
};

/**
 * Lets go of what a run holds: dependencies first, each waited for until healthy, what is independent side by side. Each
 * gets its turn whatever becomes of the others. Rejects only with the signal's reason.
 */
export async function releaseAll(
  holds: readonly HoldRecord[],
  runId: string,
  tools: Tools,
  edges: ReleaseEdges,
): Promise<readonly ReleaseResult[]> {
  const byKey = new Map(withNobodys(holds, runId, tools, edges).map((hold) => [hold.key, hold]));
  const results = new Map<string, ReleaseResult>();
  await walkGraph(new Map([...byKey].map(([key, { after }]) => [key, after])), async (key) => {
    const hold = byKey.get(key);
    if (hold === undefined) return;
    for (const need of needsOf(hold, tools)) {
      if (need.status === 'releasing') await edges.lock(need.key, async () => undefined); // it is on its way up
    }
    for (const need of needsOf(hold, tools)) {
      const waited = results.get(need.key)?.status === 'shared' ? byKey.get(need.key) : undefined; // no more, perhaps
      if (waited !== undefined)
        results.set(need.key, await edges.lock(need.key, () => letGo(waited, runId, tools, edges)));
    }
    results.set(key, await edges.lock(key, () => letGo(hold, runId, tools, edges)));
  });
  const own = holds.flatMap(({ key }) => results.get(key) ?? []);
  return Promise.all(own.map(async (result) => (await exitedSince(result, tools, edges)) ?? result));
}

/** With what they need and nobody holds any more: it could not be released so far, and goes up in the same order. */
function withNobodys(
  holds: readonly HoldRecord[],
  runId: string,
  tools: Tools,
  edges: ReleaseEdges,
): readonly HoldRecord[] {
  const all = new Map(holds.map((hold) => [hold.key, hold]));
  for (const hold of all.values()) {
    for (const need of needsOf(hold, tools))
      if (usersOf(need, runId, tools, edges, 'kept').length === 0) all.set(need.key, all.get(need.key) ?? need);
  }
  return [...all.values()];
}

async function letGo(hold: HoldRecord, runId: string, tools: Tools, edges: ReleaseEdges): Promise<ReleaseResult> {
  const { journal, clock } = tools;
  const log = tools.log.child({ run: runId, workload: hold.name });
  const pending = journal.holds().find(({ key }) => key === hold.key);
  if (pending === undefined) return { hold, status: 'running', why: 'released already' };
  // What is written late may come after another attempt, which has settled it.
  const change = (what: HoldChange): void =>
    writeOrLog(tools, () => isPending(hold, tools) && journal.changeHold(hold.key, what));
  const others = usersOf(pending, runId, tools, edges, 'kept');
  if (others.length > 0) {
    const mark = `${runId} ${hold.key}`;
    edges.left.add(mark);
    writeOrLog(tools, () => {
      if (isPending(hold, tools)) journal.leaveHold(hold.key, runId);
      edges.left.delete(mark);
    });
    log.info('not released yet: shared', { with: others });
    return { hold, status: 'shared', why: `still held for run ${others.join(', ')}` };
  }
  const missing = needsOf(pending, tools).find((need) => usersOf(need, runId, tools, edges).length > 0);
  if (missing !== undefined) {
    const why = `waits for ${missing.name}, still held for run ${usersOf(missing, runId, tools, edges).join(', ')}`;
    change({ trouble: why });
    log.info('not released yet: what it needs is held', { why });
    return { hold, status: 'shared', why };
  }

  change({ status: 'releasing' });
  try {
    const result = await bringUp(pending, tools, edges);
    change({ status: 'released', releasedAt: clock.now() });
    log[result.status === 'unwell' ? 'error' : 'info'](`released: ${result.status}`, { why: result.why });
    return result;
  } catch (error) {
    if (!(error instanceof OperationalError)) throw error;
    change({ trouble: error.message });
    log.error('not released: tried again until it is', { why: error.message });
    return { hold, status: 'pending', why: error.message };
  }
}

function isPending({ key }: HoldRecord, { journal }: Tools): boolean {
  return journal.holds().some((hold) => hold.key === key);
}

/** What a workload depends on and is held still. */
function needsOf({ after }: HoldRecord, { journal }: Tools): readonly HoldRecord[] {
  return after.length === 0 ? [] : journal.holds().filter(({ key }) => after.includes(key));
}

/**
 * The runs that still need a hold, beside this one. One that is being unwound lets go for itself, in its turn: its hooks
 * may still count on it. A failed restore (`kept`) needs its own; but it may do so for days, and what was no part of it
 * ran without it before. With `awaitsKept` failed restores let go, too (`release --all`), and so are waited for.
 */
function usersOf(
  { key, runs }: HoldRecord,
  runId: string,
  { journal }: Tools,
  { left, awaitsKept }: ReleaseEdges,
  ...more: string[]
): readonly string[] {
  const phases = ['pre', 'open', 'post', ...(awaitsKept ? ['kept'] : []), ...more];
  const isUsing = (id: string): boolean => phases.includes(journal.run(id)?.phase ?? 'closed');
  return runs.filter((id) => id !== runId && isUsing(id) && !left.has(`${id} ${key}`));
}

const ATTEMPTS = 3;

async function bringUp(hold: HoldRecord, tools: Tools, edges: ReleaseEdges): Promise<ReleaseResult> {
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

async function awaitHealth(
  hold: HoldRecord,
  found: Workload,
  tools: Tools,
  edges: ReleaseEdges,
): Promise<ReleaseResult> {
  const termMs = Math.max(tools.settings.healthTimeoutMs, hold.healthTermMs);
  const until = tools.clock.monotonicMs() + termMs;
  let now: Workload | undefined = found;
  for (;;) {
    if (now === undefined) return { hold, status: 'gone', why: 'it was removed while it started' };
    if (now.state === 'exited') return unwell(hold, `it started, and exited at once (${now.exitCode ?? 'no code'})`);
    if (!hold.awaitHealth || now.health === 'healthy' || now.health === 'none') return { hold, status: 'running' };
    if (edges.haste.aborted) return { hold, status: 'running', why: 'its health was not waited for' };
    const leftMs = until - tools.clock.monotonicMs();
    if (leftMs <= 0) return unwell(hold, `it runs, but is ${now.health} after ${Math.round(termMs / 1000)}s`);

    const woken = new AbortController();
    const signal = AbortSignal.any([edges.signal, edges.haste, woken.signal]);
    const tick = tools.clock.sleep(Math.min(leftMs, 1000), signal);
    await Promise.race([edges.pulse.next(signal), tick]).catch(() => undefined);
    woken.abort();
    await tick.catch(() => undefined);
    edges.signal.throwIfAborted();
    now = await whileEngineAway(() => tools.driver.inspect(found, edges.signal), tools, edges).catch(
      (error: unknown) => {
        if (!(error instanceof OperationalError)) throw error;
        return now; // one look that fails says nothing about its health
      },
    );
  }
}

const LOOKS = 3;
const LOOK_PAUSE_MS = 500;

/** What waits for a workload would be started without it, for the sake of one look that failed. */
async function inspectPatiently(hold: HoldRecord, tools: Tools, signal: AbortSignal): Promise<Workload | undefined> {
  for (let looks = 1; ; looks += 1) {
    try {
      return await tools.driver.inspect(hold, signal);
    } catch (error) {
      if (!(error instanceof OperationalError) || isEngineAway(error) || looks === LOOKS) throw error;
      await tools.clock.sleep(LOOK_PAUSE_MS, signal);
    }
  }
}

/** What started and fell over while the others were brought up is no success. */
async function exitedSince(
  result: ReleaseResult,
  tools: Tools,
  edges: ReleaseEdges,
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
