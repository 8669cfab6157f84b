import { unreachable } from './errors.ts';

/** How one hook ended. A command that exits non-zero is an answer, not an exception. */
export type Outcome =
  | { readonly status: 'succeeded' }
  /** It ran and said no; `why` is set where the bare code would mislead (its container was stopped meanwhile). */
  | { readonly status: 'failed'; readonly exitCode: number; readonly why?: string }
  /** It was ended by a signal that we did not send. */
  | { readonly status: 'killed'; readonly signal: number; readonly why?: string }
  /** `why` is set where the hook could not be ended, and so may run on. */
  | { readonly status: 'timed-out'; readonly why?: string }
  | { readonly status: 'canceled'; readonly reason: string }
  /** It never ran, or nobody can tell how it ended: `exitCode` is one of the table's (69, 70, 74, 77, 78, 126, 127). */
  | { readonly status: 'broken'; readonly exitCode: number; readonly why: string };

/** How a run ended, in the words that users see. */
export const RUN_OUTCOMES = ['success', 'failure', 'aborted', 'skipped', 'abandoned'] as const;
export type RunOutcome = (typeof RUN_OUTCOMES)[number];

/** What a client is told, whole: kept in the journal, so that the same request gets the same answer. */
export type Answer = {
  readonly exitCode: number;
  /** Set once there is a run. */
  readonly runId?: string;
  /** One line that says which it was: `backup pre: hook 20-dump (service:db) exited 3`. Always set unless 0. */
  readonly message?: string;
  /** What was passed over, lost or merely odd, a line each, for the client's standard error. */
  readonly notes: readonly string[];
};

/** A hook asks for "not now" with this code: borgmatic's convention, EX_TEMPFAIL of sysexits.h. */
export const EXIT_SKIP = 75;

/** The exit code that goes back to the backup tool: the hook's own, or one of the customary ones. */
export function exitCodeOf(outcome: Outcome): number {
  switch (outcome.status) {
    case 'succeeded':
      return 0;
    case 'failed':
    case 'broken':
      return outcome.exitCode;
    case 'killed':
      return 128 + outcome.signal; // as every shell
    case 'timed-out':
      return 124; // as timeout(1)
    case 'canceled':
      return 75; // EX_TEMPFAIL: try again later
    default:
      return unreachable(outcome);
  }
}

/** The end of a sentence that begins with the hook's name: `exited 3`, `ran out of time (30s)`. */
export function describeOutcome(outcome: Outcome): string {
  switch (outcome.status) {
    case 'succeeded':
      return 'succeeded';
    case 'failed':
      return withWhy(`exited ${outcome.exitCode}`, outcome.why);
    case 'killed':
      return withWhy(`was ended by signal ${outcome.signal}`, outcome.why);
    case 'timed-out':
      return withWhy('ran out of time', outcome.why);
    case 'canceled':
      return `was cut short: ${outcome.reason}`;
    case 'broken':
      return `could not be run: ${outcome.why}`;
    default:
      return unreachable(outcome);
  }
}

function withWhy(text: string, why: string | undefined): string {
  return why === undefined ? text : `${text} (${why})`;
}

/** The same of a hook that its engine had not begun: that its time ran out was not its own doing, and it is owed still. */
export function outcomeUnbegun(signal: { readonly reason: unknown }): Outcome {
  const outcome = outcomeOfAbort(signal);
  if (outcome.status !== 'timed-out') return outcome;
  return { status: 'broken', exitCode: 69, why: 'the engine had not begun it when its time was over' };
}

/** An aborted signal says why: its deadline passed, or someone asked. */
export function outcomeOfAbort({ reason }: { readonly reason: unknown }): Outcome {
  if (reason instanceof Error && reason.name === 'TimeoutError') return { status: 'timed-out' };
  return { status: 'canceled', reason: reason instanceof Error ? reason.message : String(reason) };
}
