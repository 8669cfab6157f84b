import { OperationalError } from './errors.ts';
import type { Claim } from './plan.ts';
import type { HoldRecord, RunRecord } from './record.ts';

/** A claim with the run that has it. */
export type Claimed = Claim & {
  readonly runId: string;
  readonly job: string;
  readonly operation: string;
  /** The run is over but for what 5.3 keeps held: a later restore of the same job may take over. */
  readonly kept: boolean;
};

/**
 * Finds the claim of another run that excludes one of ours. Holds of two backups share; a hold and an exec exclude one
 * another; a restore's claims exclude all others.
 */
export function conflictOf(
  ours: readonly Claim[],
  asked: { readonly job: string; readonly operation: string },
  others: readonly Claimed[],
): Claimed | undefined {
  return others.find((other) => {
    if (other.kept && other.job === asked.job && asked.operation === 'restore') return false;
    const same = ours.filter(({ key }) => key === other.key);
    if (same.length === 0) return false;
    if (asked.operation === 'restore' || other.operation === 'restore') return true;
    return same.some(({ use }) => use !== other.use);
  });
}

/**
 * Lets a run begin only when its job has none open, nobody excludes its claims, and nothing of it is just being released.
 * @throws OperationalError `busy`, naming what is in the way
 */
export function refuseBusy(
  run: RunRecord,
  claims: readonly Claim[],
  open: readonly RunRecord[],
  others: readonly Claimed[],
  holds: readonly HoldRecord[],
): void {
  const same = open.find(({ job }) => job === run.job);
  if (same !== undefined) {
    const { id, operation, phase } = same;
    throw new OperationalError('busy', `not now: job ${run.job} has run ${id} open (${operation}, ${phase})`);
  }
  const conflict = conflictOf(claims, run, others);
  if (conflict !== undefined) {
    const { name, job, runId, operation, kept } = conflict;
    const hint = kept ? ', which failed and keeps what it held: sidehook release ends that' : '';
    throw new OperationalError(
      'busy',
      `not now: ${name} is in use by run ${runId} (${operation} of job ${job})${hint}`,
    );
  }
  // Whoever wants one that is on its way up waits, and then holds anew.
  const rising = holds.find(({ key, status, runs }) => {
    const isOrphan = !runs.some((id) => others.some(({ runId }) => runId === id));
    return (status === 'releasing' || isOrphan) && claims.some((claim) => claim.key === key);
  });
  if (rising === undefined) return;
  const why = rising.trouble === undefined ? '' : `: ${rising.trouble}`;
  throw new OperationalError('busy', `not now: ${rising.name} is being released${why}`);
}
