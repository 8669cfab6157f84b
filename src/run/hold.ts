import { OperationalError } from '../core/errors.ts';
import type { Hold } from '../core/hold.ts';
import type { HoldSpec } from '../core/plan.ts';
import { describeLeft, leftOf } from '../core/plan-holds.ts';
import type { Note } from '../core/ports.ts';
import type { RunRecord } from '../core/record.ts';
import { isHealthExpected, type Workload, type WorkloadRef } from '../core/workload.ts';
import { writeRest } from './engine.ts';
import { reversed, walkGraph } from './graph.ts';
import type { Lock } from './lock.ts';
import { isLost, tellLost } from './stillness.ts';
import type { Tools } from './tools.ts';

/** Ended by SIGKILL, after its time to stop had passed. */
const EXIT_KILLED = 137;

/**
 * Makes all of them still: dependents before what they depend on, what is independent at the same time. Each hold is in
 * the journal before the engine is asked. Returns what is odd but no failure.
 * @throws OperationalError `workload-failed`, `engine-unavailable`: those that were begun are in the journal
 */
export async function holdAll(
  specs: readonly HoldSpec[],
  run: RunRecord,
  tools: Tools,
  lock: Lock,
  signal: AbortSignal,
): Promise<readonly Note[]> {
  const notes: Note[] = [];
  const byKey = new Map(specs.map((spec) => [spec.key, spec]));
  const stopsAfter = reversed(new Map(specs.map(({ key, after }) => [key, after])));
  await walkGraph(stopsAfter, async (key) => {
    const spec = byKey.get(key);
    if (spec === undefined) return;
    signal.throwIfAborted();
    const note = await lock(key, () => holdOne(spec, run, tools, signal));
    if (note !== undefined) notes.push(note);
  });
  return notes;
}

async function holdOne(spec: HoldSpec, run: RunRecord, tools: Tools, signal: AbortSignal): Promise<Note | undefined> {
  const { driver, journal, clock } = tools;
  const log = tools.log.child({ run: run.id, workload: spec.name });
  if (!writeRest(tools))
    throw new OperationalError('internal', `hold ${spec.name}: the journal lacks what came before`);
  const known = journal.holds().find(({ key }) => key === spec.key);
  let ref: WorkloadRef = known ?? spec;
  if (known !== undefined) {
    if (known.kind !== spec.kind) throw failed(spec, `it is held by ${known.kind} for another run`);
    journal.joinHold(spec.key, run.id);
    log.info('held already: shared', { with: known.runs });
    const found = await driver.inspect(known, signal);
    if (known.status === 'held') {
      if (found === undefined || !isLost(known, found) || found.state === 'exited') return undefined;
      tellLost(known, found, tools); // to those that counted on it so far; for us it is made still anew
    }
    if (found !== undefined) {
      const { instance, name, startedAt } = found; // what is stopped may be another start than the first stop was meant for
      ref = found;
      journal.changeHold(spec.key, { status: 'asked', instance, name, startedAt, finishedAt: undefined });
    }
  } else {
    const found = await driver.inspect(spec, signal);
    if (found === undefined) throw failed(spec, 'it no longer exists');
    if (found.state !== 'running' && found.state !== 'restarting' && found.heldFor === undefined) {
      journal.changeRun(run.id, { left: [...(journal.run(run.id)?.left ?? []), leftOf(found)] });
      return describeLeft(found);
    }
    ref = found; // it may have been made anew since it was planned
    journal.addHold(makeHold(spec, found, clock.now()), run.id); // first the promise, then the deed
  }

  const began = clock.monotonicMs();
  const still = await driver.hold(ref, spec.kind, spec.stopTimeoutMs, signal);
  if (still.state !== (spec.kind === 'pause' ? 'paused' : 'exited')) throw failed(spec, `it is ${still.state} again`);
  journal.changeHold(spec.key, { status: 'held', startedAt: still.startedAt, finishedAt: still.finishedAt });
  log.info(`held: ${spec.kind}`, { ms: Math.round(clock.monotonicMs() - began), exitCode: still.exitCode });

  if (spec.kind === 'pause' || still.exitCode !== EXIT_KILLED) return undefined;
  const note = `hold of ${spec.name}: it did not stop in its time and was killed (exit 137): its data may be unclean`;
  if (tools.settings.unclean === 'abort') throw new OperationalError('workload-failed', note);
  return note;
}

/** A hold as it is written down before it is asked for. */
export function makeHold(spec: HoldSpec, found: Workload, heldAt: string): Hold {
  const { key, name, kind, after, healthTermMs, stopTimeoutMs, maxMs } = spec;
  const { instance, startedAt } = found;
  return {
    ...{ key, instance, name, kind, after, healthTermMs, startedAt, heldAt },
    ...(stopTimeoutMs === undefined ? {} : { stopTimeoutMs }),
    ...(maxMs === undefined ? {} : { maxMs }),
    awaitHealth: isHealthExpected(found),
    status: 'asked',
  };
}

function failed({ kind, name }: HoldSpec, why: string): OperationalError {
  return new OperationalError('workload-failed', `${kind} ${name}: ${why}`);
}
