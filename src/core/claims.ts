import type { Claim } from './plan.ts';

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
