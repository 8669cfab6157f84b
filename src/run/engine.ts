import { OperationalError } from '../core/errors.ts';
import type { Workload, WorkloadRef } from '../core/workload.ts';
import type { Tools } from './tools.ts';

/** What a wait for the engine needs. */
export type EngineEdges = {
  readonly signal: AbortSignal;
  /** Told each time the engine was found away; a client need not wait for its return. */
  readonly onAway: (why: string) => void;
};

const FIRST_DELAY_MS = 250;
const LONGEST_DELAY_MS = 15_000;

/** Repeats the work, with growing pauses, for as long as the engine is away. Other errors are the caller's. */
export async function whileEngineAway<T>(work: () => Promise<T>, tools: Tools, edges: EngineEdges): Promise<T> {
  for (let delayMs = FIRST_DELAY_MS; ; delayMs = Math.min(delayMs * 2, LONGEST_DELAY_MS)) {
    try {
      return await work();
    } catch (error) {
      if (!isEngineAway(error)) throw error;
      tools.log.error('engine away: what is held is not forgotten, trying again', { why: error.message, delayMs });
      edges.onAway(error.message);
      await tools.clock.sleep(delayMs, edges.signal);
    }
  }
}

export function isEngineAway(error: unknown): error is OperationalError {
  return error instanceof OperationalError && error.code === 'engine-unavailable';
}

const LOOKS = 3;
const LOOK_PAUSE_MS = 500;

/** Looks at a workload up to three times: much would be done wrong for the sake of one look that failed. */
export async function inspectPatiently(
  ref: WorkloadRef,
  { driver, clock }: Tools,
  signal: AbortSignal,
): Promise<Workload | undefined> {
  for (let looks = 1; ; looks += 1) {
    try {
      return await driver.inspect(ref, signal);
    } catch (error) {
      if (!(error instanceof OperationalError) || isEngineAway(error) || looks === LOOKS) throw error;
      await clock.sleep(LOOK_PAUSE_MS, signal);
    }
  }
}

/** What could not be written yet, in order: the journal is to say what became of it as soon as there is room. */
const unwritten = new WeakMap<Tools['journal'], (() => unknown)[]>();

/**
 * A journal that cannot be written refuses a `pre`, and never a release: then it is said, and we go on, and the write is
 * made up for later, after those before it (`writeRest`).
 */
export function writeOrLog(tools: Tools, write: () => unknown): void {
  const writes = unwritten.get(tools.journal) ?? [];
  unwritten.set(tools.journal, writes);
  try {
    if (writes.length > 0 && !writeRest(tools))
      throw new OperationalError('internal', 'what came before is not written');
    write();
  } catch (error) {
    if (!(error instanceof OperationalError)) throw error;
    writes.push(write);
    tools.log.error('journal not written, going on', { why: error.message });
  }
}

/** Makes up for what could not be written; whether nothing of it is left. */
export function writeRest({ journal, log }: Tools): boolean {
  const writes = unwritten.get(journal) ?? [];
  try {
    for (let write = writes[0]; write !== undefined; write = writes[0]) {
      write();
      writes.shift();
    }
    return true;
  } catch (error) {
    if (!(error instanceof OperationalError)) throw error;
    log.debug('journal still not written', { why: error.message });
    return false;
  }
}

/** Whether something waits to be written. */
export function isUnwritten({ journal }: Tools): boolean {
  return (unwritten.get(journal)?.length ?? 0) > 0;
}
