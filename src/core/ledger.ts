import type { Claim, HoldSpec, Plan } from './plan.ts';
import type { RunRecord, StepRecord } from './record.ts';
import type { WorkloadRef } from './workload.ts';

/**
 * What an engine itself remembers of runs, where sidecars come and go with their journals: it keeps them apart, and lets
 * one finish what another left when it was lost.
 */
export interface Ledger {
  /** How often `tend` is to be called. */
  readonly paceMs: number;
  /** Claims the job and the workloads of a run across sidecars, and writes down what it will owe, before anything is done.
   * A restore takes over what failed ones of the same job keep elsewhere, and resolves to those.
   * @throws OperationalError `busy`; `configuration`: more than can be written down; `engine-unavailable` */
  open(run: RunRecord, plan: Plan, signal: AbortSignal): Promise<readonly LostRun[]>;
  /** Takes up a run of our journal after our own restart. False: another has taken it over, or finished it.
   * @throws OperationalError `engine-unavailable` */
  resume(runId: string, signal: AbortSignal): Promise<boolean>;
  /** Writes down how far a run is, for whoever may have to finish it.
   * @throws OperationalError `not-trusted`: another has taken it over; `engine-unavailable` */
  record(run: RunRecord, steps: readonly StepRecord[], signal: AbortSignal): Promise<void>;
  /** Forgets a run that is over. One that is not there: no complaint. @throws OperationalError `engine-unavailable` */
  close(runId: string, signal: AbortSignal): Promise<void>;
  /** Shows that we live, and takes over what those left that have not shown it for too long, by our own clock.
   * `phaseOf`: what our journal knows of a run. @throws OperationalError `engine-unavailable` */
  tend(phaseOf: (runId: string) => RunRecord['phase'] | undefined, signal: AbortSignal): Promise<Lost>;
}

/** What was taken over, to be finished by whoever took it. */
export type Lost = {
  readonly runs: readonly LostRun[];
  /** Holds that no run speaks for any more. */
  readonly holds: readonly { readonly ref: WorkloadRef; readonly runs: readonly string[] }[];
  /** How many there are of whose holders nobody can say yet whether they live. */
  readonly undecided: number;
};

/** A run as its sidecar last wrote it down: the hooks that are owed outside of that sidecar alone. */
export type LostRun = {
  readonly run: RunRecord;
  readonly steps: readonly StepRecord[];
  readonly holds: readonly HoldSpec[];
  readonly claims: readonly Claim[];
};
