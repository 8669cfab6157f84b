import type { WorkloadKey, WorkloadRef } from './workload.ts';

/** `scale`: to zero replicas, where the engine runs workloads as several pods. */
export const HOLD_KINDS = ['stop', 'pause', 'scale'] as const;
export type HoldKind = (typeof HOLD_KINDS)[number];

/** One workload made still, as the journal has it: all that release needs. */
export type Hold = WorkloadRef & {
  readonly kind: HoldKind;
  /** The incarnation that we found running: a release is done when a newer one runs. */
  readonly startedAt: string;
  /** Whether release waits for its health check, and how long at most. */
  readonly awaitHealth: boolean;
  readonly healthTermMs: number;
  readonly stopTimeoutMs?: number;
  /** `sidehook.hold.max`, where it is set. */
  readonly maxMs?: number;
  /** Those it depends on that were held with it, or that another run may hold: they start before it. */
  readonly after: readonly WorkloadKey[];
  /**
   * `asked`: we meant to ask the engine, and do not know what became of it.
   * `held`: still, by our doing. `releasing`: we meant to start it again. `released`: it runs, or is gone.
   */
  readonly status: 'asked' | 'held' | 'releasing' | 'released';
  /** The mark that our stop left; unknown after a crash in the middle, which counts as ours. */
  readonly finishedAt?: string;
  /** ISO times, for people and the measured downtime. */
  readonly heldAt: string;
  readonly releasedAt?: string;
};
