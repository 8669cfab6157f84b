import { ERRORS, OperationalError } from '../core/errors.ts';
import type { Note } from '../core/ports.ts';
import type { HoldRecord, RunRecord } from '../core/record.ts';
import type { Answer } from '../core/result.ts';
import { isHalfRestored } from '../core/unwinding.ts';
import { distrustRun } from './distrust.ts';
import { isEngineAway, whileEngineAway, writeOrLog, writeRest } from './engine.ts';
import { rememberIfCan } from './ledger.ts';
import { orphansOf, releaseOrphans, retryPending } from './pending.ts';
import { type ReleaseEdges, releaseAll } from './release.ts';
import type { ReleaseResult } from './rise.ts';
import { edgesOf, type Shared, toNobody } from './shared.ts';
import { findStopping } from './siblings.ts';
import type { Tools } from './tools.ts';
import { pendingOf } from './unwind.ts';

/** Releases, at once, what a run holds, or all do; also what a failed restore keeps (5.3). A backup under way is told (65). */
export async function releaseNow(
  which: { readonly runId: string } | { readonly all: true },
  shared: Shared,
): Promise<Answer> {
  const { tools } = shared;
  const live = tools.journal.runs('live').toReversed();
  const runs = 'all' in which ? live : live.filter(({ id }) => id === which.runId);
  const isMeant = ({ runs: ids }: HoldRecord): boolean => 'all' in which || ids.includes(which.runId);
  const names = tools.journal
    .holds()
    .filter(isMeant)
    .map(({ name }) => name);
  for (const { id } of runs) shared.cuts.get(id)?.(new Error('it was released by sidehook release')); // and so is undone
  const results = new Map<string, ReleaseResult>();
  // What one holds may wait for what another one does: again, for as long as it helps.
  const count = (): number => tools.journal.holds().filter(isMeant).length;
  const edges = { ...edgesOf(shared, toNobody), awaitsKept: 'all' in which };
  for (let before = Infinity, left = Number.MAX_VALUE; left > 0 && left < before; ) {
    for (const run of runs)
      for (const result of await letGoOf(run, 'it was released by sidehook release', shared, edges))
        results.set(result.hold.key, result);
    before = left;
    left = count();
  }
  if (orphansOf(shared).some(isMeant)) await releaseOrphans(shared);
  retryPending(shared);

  const notes: Note[] = [...results.values()].map(
    ({ hold, status, why }) => `${hold.name}: ${status}${why === undefined ? '' : `: ${why}`}`,
  );
  const left = tools.journal.holds().filter(isMeant);
  const isTold = (name: string): boolean =>
    [...[...results.values()].map(({ hold }) => hold), ...left].some((one) => one.name === name);
  notes.push(...names.filter((name) => !isTold(name)).map((name) => `${name}: running`));
  if (left.length === 0 && notes.length === 0) notes.push('nothing is held');
  if (left.length === 0) return { exitCode: 0, notes };
  const message = `release: not released yet: ${left.map(({ name, trouble }) => (trouble === undefined ? name : `${name} (${trouble})`)).join(', ')}`;
  return { exitCode: ERRORS['workload-failed'].exit, message, notes };
}

/** How long is waited for signs that the whole project is being stopped, and for a client's death to be found out. */
const SIGNS_MS = 1000;

/**
 * The sidecar was told to end: no new work, and in order, without waiting for health, nothing stays down for our sake. A
 * run whose client is dead, or that is being unwound, gets the rest of its `post`; for a living client what is held is
 * let go of, or kept. Where others of the project are stopped, too, nothing is started that they would have to stop
 * again; where the engine is away, nothing can be: then all of it is the next start's.
 */
export async function shutDown(shared: Shared): Promise<void> {
  const { tools, stopping, ending, background } = shared;
  const isIdle = tools.journal.holds().length === 0 && tools.journal.runs('live').length === 0;
  const signs = tools.clock.sleep(isIdle ? 0 : SIGNS_MS, ending.signal).catch(() => undefined);
  const other = isIdle ? undefined : await findStopping(shared, SIGNS_MS);
  await signs;
  stopping.abort(new Error('the sidecar is stopping'));
  if (other === undefined) await Promise.race([letGoOfAll(shared), untilEngineIsLost(shared)]);
  else tools.log.warn('kept for the next start: the project is being stopped', { with: other, held: namesHeld(tools) });
  writeRest(tools);
  ending.abort(new Error('the sidecar has ended'));
  await Promise.allSettled([...background]);
}

/**
 * Twice at least: what was under way when we began may have become one of the others meanwhile; and for as long as it
 * helps: what one run holds may wait for what another one does.
 */
async function letGoOfAll(shared: Shared): Promise<void> {
  const { tools, underWay, unwindings } = shared;
  const count = (): number => tools.journal.holds().length;
  for (let pass = 1, before = Infinity; pass <= 2 || (count() > 0 && count() < before); pass += 1) {
    before = count();
    const open = tools.journal.runs('live').filter(({ phase }) => phase === 'open');
    const work = [...open.map((run) => letGoOfLiving(run, shared)), releaseOrphans(shared)];
    await Promise.allSettled([...underWay.values(), ...unwindings.values()]);
    await Promise.all(work);
  }
}

async function letGoOfLiving(run: RunRecord, shared: Shared): Promise<void> {
  const isKept = shared.tools.settings.shutdownHolds === 'keep' || isHalfRestored(run);
  if (!isKept) await letGoOf(run, 'its holds were released, since the sidecar was stopped', shared);
  else await shared.runLock(run.id, async () => undefined); // whoever unwinds it may end that first
}

const AWAY_LOOK_MS = 1000;
/** Short enough for the ten seconds that an engine gives by default. */
const AWAY_MISSES = 4;
const AWAY_PATIENCE_MS = 10_000;

/** Resolves once the engine was away at several looks in a row: what is held is in the journal, and is waited for later. */
async function untilEngineIsLost({ tools, ending }: Shared): Promise<void> {
  for (let misses = 0; misses < AWAY_MISSES && !ending.signal.aborted; ) {
    await tools.clock.sleep(AWAY_LOOK_MS, ending.signal).catch(() => undefined);
    misses = (await isEngineLost(tools, ending.signal)) ? misses + 1 : 0;
  }
  if (!ending.signal.aborted)
    tools.log.error('the engine is away: kept for the next start', { held: namesHeld(tools) });
}

/** By the word of what we need it for. */
async function isEngineLost({ driver, journal, clock }: Tools, signal: AbortSignal): Promise<boolean> {
  const places = journal.runs('live').flatMap(({ id }) => journal.steps(id).map(({ call }) => call.place));
  const needed = journal.holds()[0] ?? places.find((place) => place.kind !== 'host');
  if (needed === undefined) return false;
  const patience = clock.deadline(AWAY_PATIENCE_MS);
  try {
    await driver.inspect(needed, AbortSignal.any([signal, patience]));
    return false;
  } catch (error) {
    if (!(error instanceof OperationalError || signal.aborted || patience.aborted)) throw error;
    return !(error instanceof OperationalError) || isEngineAway(error);
  }
}

function namesHeld({ journal }: Tools): readonly string[] {
  return journal.holds().map(({ name }) => name);
}

async function letGoOf(
  { id }: RunRecord,
  why: string,
  shared: Shared,
  edges: ReleaseEdges = edgesOf(shared, toNobody),
): Promise<readonly ReleaseResult[]> {
  const { tools, runLock, turn, guards } = shared;
  return runLock(id, async () => {
    const run = tools.journal.run(id);
    const held = pendingOf(id, tools);
    const [first] = held;
    if (run === undefined) return [];
    if (first === undefined) {
      await closeKept(run, tools); // whoever released it was killed before this
      return [];
    }
    // Without an engine nothing is let go of, and its client is told of nothing. What it says of this one is no matter yet.
    await whileEngineAway(() => tools.driver.inspect(first, edges.signal), tools, edges).catch((error: unknown) => {
      if (!(error instanceof OperationalError)) throw error;
    });
    const told = `${why}: ${held.map(({ name }) => name).join(', ')}`;
    if (run.phase === 'open') {
      distrustRun(run, told, tools);
      if (run.operation === 'restore') guards.get(id)?.lease?.abandon?.(told); // it must not write on under what now runs
    }
    const results = await releaseAll(held, id, tools, edges);
    await closeKept(run, tools);
    turn.beat();
    return results;
  });
}

/** Ends what a failed restore kept open, once that was let go of. */
async function closeKept({ id, phase }: RunRecord, tools: Tools): Promise<void> {
  if (phase !== 'kept') return;
  writeOrLog(tools, () => tools.journal.changeRun(id, { phase: 'closed' }));
  await rememberIfCan(id, tools); // we may have ended before the ledger is tended again
}
