import type { Note } from './ports.ts';
import type { RunRecord, StepRecord } from './record.ts';
import { RUN_OUTCOMES, type RunOutcome } from './result.ts';

/** What is left to do for a run that ends: held hooks, then the releases, then running hooks. */
export type Unwinding = {
  readonly held: readonly StepRecord[];
  readonly running: readonly StepRecord[];
  /** 5.3: over a half-restored volume nothing is started behind anyone's back. */
  readonly keep: boolean;
  readonly notes: readonly Note[];
};

/**
 * Plans `post`, undo and recovery, all three, from the journal alone: the hooks whose `pre` was started, in reverse, and
 * those that have no `pre`. What has ended already is not repeated; what a crash interrupted is.
 */
export function makeUnwinding(
  run: RunRecord & { readonly outcome: RunOutcome },
  steps: readonly StepRecord[],
  failedRestore: 'keep' | 'release',
): Unwinding {
  const owed = steps.filter((step) => step.call.state === 'post' && isOwed(step, steps)).toReversed();
  const isDue = ({ call }: StepRecord): boolean => outcomesOf(call).includes(run.outcome);
  const due = owed.filter((step) => isDue(step) && step.status !== 'ended');
  return {
    held: due.filter(({ call }) => call.settings.while === 'held'),
    running: due.filter(({ call }) => call.settings.while === 'running'),
    keep: isHalfRestored(run) && failedRestore === 'keep',
    notes: owed
      .filter((step) => !isDue(step))
      .map(
        ({ call }) =>
          `hook ${call.name}: not run at post, since the outcome is ${run.outcome} (outcome=${outcomesOf(call).join(',')})`,
      ),
  };
}

/** A restore whose command was started and is not known to have succeeded. */
export function isHalfRestored({ operation, commandStarted, outcome }: RunRecord): boolean {
  return operation === 'restore' && commandStarted && outcome !== 'success';
}

function isOwed(post: StepRecord, steps: readonly StepRecord[]): boolean {
  const before = steps.filter(({ owner, call }) => owner === post.owner && call.state === 'pre');
  return before.length === 0 || before.some(({ status }) => status !== 'planned');
}

/** TKLBAM runs no `post` after a failed restore; importing a half-restored dump is worse than none. */
function outcomesOf({ operation, settings }: StepRecord['call']): readonly RunOutcome[] {
  return settings.outcomes ?? (operation === 'restore' ? ['success'] : RUN_OUTCOMES);
}
