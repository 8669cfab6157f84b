/** A run in a Lease's annotation: what another sidehook needs to finish it. */
import { OperationalError } from '../core/errors.ts';
import type { LostRun } from '../core/ledger.ts';
import type { Plan } from '../core/plan.ts';
import type { RunRecord, StepRecord } from '../core/record.ts';
import { parseJson } from './kubernetes-api.ts';
import type { Lease } from './kubernetes-objects.ts';

const ANNOTATION = 'sidehook.io/run';
/** An object may have 256 KiB of annotations. */
const MOST_BYTES = 240 * 1024;

/** A run that has just been planned. */
export function recordOf(run: RunRecord, { steps, holds, claims }: Plan): LostRun {
  return { run, steps: steps.map((step) => ({ ...step, status: 'planned' as const })).flatMap(essence), holds, claims };
}

/** The same, further on. */
export function progressOf(record: LostRun, run: RunRecord, steps: readonly StepRecord[]): LostRun {
  return { ...record, run, steps: steps.flatMap(essence) };
}

/** Hooks of the sidecar itself are lost with it. Of those before the backup it counts that they were started. */
function essence(step: StepRecord): StepRecord[] {
  const { state, place } = step.call;
  if (place.kind === 'host' || state === 'inspect') return [];
  return state === 'pre' ? [{ ...step, call: { ...step.call, program: { kind: 'shell', line: '' } } }] : [step];
}

/** @throws OperationalError `configuration`: too much to write down, so that it could not be finished by another */
export function writeRecord(record: LostRun): Record<string, string> {
  const text = JSON.stringify(record);
  const bytes = Buffer.byteLength(text);
  if (bytes > MOST_BYTES) {
    const why = `the hooks in pods that run after it have ${bytes} bytes in all, of at most ${MOST_BYTES}`;
    throw new OperationalError('configuration', `write down what run ${record.run.id} owes: ${why}`);
  }
  return { [ANNOTATION]: text };
}

/** Undefined: it is none of ours, or of a version that we do not know. */
export function readRecord({ metadata }: Lease): LostRun | undefined {
  const found = parseJson(metadata.annotations?.[ANNOTATION] ?? '') as LostRun | undefined;
  return found?.run?.id === undefined || !Array.isArray(found.steps) ? undefined : found;
}
