import type { State } from './request.ts';
import type { RunOutcome } from './result.ts';
import type { Target } from './workload.ts';

/** One thing to run: an executable in hooks.d, or the commands in one container's labels. */
export type Hook = {
  /** Unique: `file:20-dump`, `label:PROJECT/SERVICE/NUMBER`. */
  readonly id: string;
  /** What people call it: `20-dump`, `labels of db`. */
  readonly name: string;
  readonly target: Target;
  /** Undefined: every job. */
  readonly jobs?: readonly string[];
  /** What it does at each (operation, state) that it takes part in, the first match counts. */
  readonly actions: readonly Action[];
};

/** What a hook does, when, and how. */
export type Action = {
  readonly operation: string;
  readonly state: State | '*';
  readonly program: Program;
  readonly settings: Settings;
};

/** What is run. A script travels into its container as text; an executable is run where it lies, on the host. */
export type Program =
  | { readonly kind: 'executable'; readonly path: string }
  | { readonly kind: 'script'; readonly name: string; readonly interpreter: readonly string[]; readonly text: string }
  | { readonly kind: 'shell'; readonly line: string }
  | { readonly kind: 'argv'; readonly argv: readonly string[] };

/** How it is run. */
export type Settings = {
  readonly while: 'running' | 'held';
  readonly timeoutMs: number;
  readonly onError: 'abort' | 'continue';
  readonly retries: number;
  readonly retryDelayMs: number;
  readonly match: 'all' | 'one' | 'any';
  /** At `post`: the outcomes at which it runs. Undefined: the operation's default. */
  readonly outcomes?: readonly RunOutcome[];
  readonly user?: string;
  readonly workdir?: string;
};

/** A hook, resolved: one program in one place at one state. Goes into the journal as it is. */
export type HookCall = {
  readonly hookId: string;
  readonly name: string;
  readonly operation: string;
  readonly state: State;
  readonly program: Program;
  readonly settings: Settings;
  readonly place: Place;
};

export type Place =
  | { readonly kind: 'host' }
  | {
      readonly kind: 'workload';
      readonly key: string;
      readonly instance: string;
      readonly name: string;
      readonly target: string;
      /** Of a pod: which of its containers; unset: its default one. */
      readonly container?: string;
      /** Of a pod: what is held in its place. */
      readonly partOf?: string;
    };
