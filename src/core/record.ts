import type { Hold } from './hold.ts';
import type { Left, Step } from './plan.ts';
import type { Outcome, RunOutcome } from './result.ts';
import type { Incarnation } from './workload.ts';

/** One operation from its `pre` to its `post`, as the journal has it. */
export type RunRecord = {
  readonly id: string;
  readonly job: string;
  readonly client: string;
  readonly operation: string;
  readonly params: Readonly<Record<string, string>>;
  /**
   * `pre`: under way, not answered. `open`: the client has the word. `post`: being unwound, for whatever reason.
   * `kept`: a failed restore, over but for its holds (5.3). `closed`.
   */
  readonly phase: 'pre' | 'open' | 'post' | 'kept' | 'closed';
  readonly openedAt: string;
  readonly closedAt?: string;
  /** The request of its `pre`, and where its sender's lease is found again. */
  readonly requestId: string;
  readonly leaseRef: string;
  readonly lease: 'held' | number;
  /** What had its client's directory at `pre`, each in the incarnation that it had then. */
  readonly clients?: readonly Incarnation[];
  /** What it found still and does not hold; unset in runs of before there was such a thing. */
  readonly left?: readonly Left[];
  /** A restore's command may have written since (5.3). */
  readonly commandStarted: boolean;
  readonly outcome?: RunOutcome;
  /** The `post` that ended it, which is to get its answer also when a crash came in between. */
  readonly endedBy?: string;
  /** The exit code of the client's command. */
  readonly status?: number;
  /** Why its backup cannot be trusted: lost holds, a lost lease (65). */
  readonly distrust: readonly string[];
};

/** What may change in a run. */
export type RunChange = Partial<
  Pick<RunRecord, 'phase' | 'left' | 'closedAt' | 'commandStarted' | 'outcome' | 'endedBy' | 'status' | 'distrust'>
>;

/** One step of a run: `started` is written before the deed, `ended` after it. */
export type StepRecord = Step & {
  readonly status: 'planned' | 'started' | 'ended';
  readonly outcome?: Outcome;
};

/** A hold with the runs that share it: released when the last lets go. */
export type HoldRecord = Hold & {
  readonly runs: readonly string[];
  /** Why it could not be released so far; it is retried. */
  readonly trouble?: string;
};

/** What may change in a hold. */
export type HoldChange = Partial<
  Pick<HoldRecord, 'instance' | 'name' | 'status' | 'startedAt' | 'releasedAt' | 'trouble'>
> & { readonly finishedAt?: string | undefined };
