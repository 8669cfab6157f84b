import { conflictOf } from '../core/claims.ts';
import { OperationalError } from '../core/errors.ts';
import type { LostRun } from '../core/ledger.ts';
import type { LeaseKind } from './kubernetes-lease.ts';
import type { Lease } from './kubernetes-objects.ts';
import { readRecord } from './kubernetes-record.ts';
import { holdIn } from './kubernetes-workload.ts';

/**
 * Whose claims exclude ours, in other sidecars, whose Leases these are; those of our own the journal keeps apart.
 * @throws OperationalError `busy`
 */
export function refuseConflicts(
  { run, claims }: LostRun,
  leases: readonly (Lease & { readonly kind: LeaseKind })[],
): void {
  for (const lease of leases.filter(({ kind }) => kind !== 'hold')) {
    const other = readRecord(lease);
    if (other === undefined) continue;
    const { id: runId, job, operation } = other.run;
    const theirs = other.claims.map((claim) => ({ ...claim, runId, job, operation, kept: lease.kind === 'kept' }));
    const conflict = conflictOf(claims, run, theirs);
    if (conflict === undefined) continue;
    const whose = `run ${runId} (${operation} of job ${job}) of ${lease.spec?.holderIdentity}`;
    throw new OperationalError('busy', `not now: ${conflict.name} is in use by ${whose}`);
  }
  // One that is just being let go of has no run any more, and is down still.
  const held = new Set(
    leases.flatMap((lease) => (lease.kind === 'hold' ? holdIn(lease) : [])).map((one) => one.ref.key),
  );
  const exec = claims.find(({ key, use }) => use === 'exec' && held.has(key));
  if (exec !== undefined) throw new OperationalError('busy', `not now: ${exec.name} is held by another sidehook`);
}
