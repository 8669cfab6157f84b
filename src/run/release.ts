import { OperationalError } from '../core/errors.ts';
import type { HoldChange, HoldRecord } from '../core/record.ts';
import { writeOrLog } from './engine.ts';
import { walkGraph } from './graph.ts';
import type { Lock } from './lock.ts';
import { bringUp, exitedSince, type ReleaseResult, type RiseEdges } from './rise.ts';
import type { Tools } from './tools.ts';

/** What release needs beside the tools. */
export type ReleaseEdges = RiseEdges & {
  readonly lock: Lock;
  readonly left: Set<string>;
  readonly awaitsKept?: boolean;
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
  const results = new Map<string, ReleaseResult>();
  const settle = (hold: HoldRecord): Promise<void> =>
    edges.lock(hold.key, async () => {
      const known = results.get(hold.key);
      if (known === undefined || known.status === 'shared')
        results.set(hold.key, await letGo(hold, runId, tools, edges));
    });
  await inOrder(holds, async (hold) => {
    for (const need of needsOf(hold, tools)) {
      if (need.status === 'releasing') await edges.lock(need.key, async () => undefined); // it is on its way up
    }
    // What it needs and nobody holds any more goes up with it: it could not be released so far, or is free since a moment ago.
    const isFree = (need: HoldRecord): boolean => usersOf(need, runId, tools, edges, 'kept').length === 0;
    await inOrder(needsOf(hold, tools).filter(isFree), settle);
    await settle(hold);
  });
  const own = holds.flatMap(({ key }) => results.get(key) ?? []);
  return Promise.all(own.map(async (result) => (await exitedSince(result, tools, edges)) ?? result));
}

/** Dependencies first, what is independent side by side. */
function inOrder(holds: readonly HoldRecord[], visit: (hold: HoldRecord) => Promise<void>): Promise<void> {
  const byKey = new Map(holds.map((hold) => [hold.key, hold]));
  const after = new Map(holds.map(({ key, after: others }) => [key, others]));
  return walkGraph(after, async (key) => {
    const hold = byKey.get(key);
    if (hold !== undefined) await visit(hold);
  });
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
    // Should we die now, who starts what needs it has its health to wait for: so long it is not over.
    const isOver = result.hasty === undefined || !isNeeded(hold, tools);
    const releasedAt = clock.now();
    change(isOver ? { status: 'released', releasedAt } : { releasedAt, finishedAt: result.hasty?.finishedAt });
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

/** Whether something that is still to be started depends on it. */
function isNeeded({ key }: HoldRecord, { journal }: Tools): boolean {
  return journal.holds().some(({ after }) => after.includes(key));
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
