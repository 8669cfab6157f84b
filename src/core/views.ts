import type { Hold, HoldKind } from './hold.ts';
import type { Note } from './ports.ts';
import type { RunRecord } from './record.ts';
import type { Request } from './request.ts';
import type { Answer } from './result.ts';

/** What people and clients may ask the daemon, or the journal with the daemon down. All of it goes out as JSON. */
export interface Views {
  /** All that are open, and the last that are not; the newest first. */
  runs(): Promise<readonly RunView[]>;
  run(id: string): Promise<RunView | undefined>;
  /** What a signal would lead to, with nothing done. @throws OperationalError as the signal itself would */
  plan(request: Request, signal: AbortSignal): Promise<PlanView>;
  status(signal: AbortSignal): Promise<StatusView>;
  /** Releases what is held, also what a failed restore keeps (5.3), and tells what could not be. */
  release(which: { readonly runId: string } | { readonly all: true }, signal: AbortSignal): Promise<Answer>;
  health(signal: AbortSignal): Promise<HealthView>;
}

/** A run, as people and clients see it. */
export type RunView = Pick<
  RunRecord,
  | 'id'
  | 'job'
  | 'client'
  | 'operation'
  | 'phase'
  | 'openedAt'
  | 'closedAt'
  | 'outcome'
  | 'status'
  | 'distrust'
  | 'leaseRef'
>;

/** What a signal would lead to, in order. */
export type PlanView = {
  readonly operation: string;
  readonly state: Request['state'];
  readonly job: string;
  readonly steps: readonly {
    readonly do: 'run' | 'hold' | 'release';
    /** The hook, or the workload. */
    readonly what: string;
    /** `host`, or the container. */
    readonly where: string;
    readonly why?: string;
  }[];
  readonly notes: readonly Note[];
};

/** What goes on now. */
export type StatusView = {
  readonly version: string;
  /** ISO time of the daemon's start; absent when it is down and the journal alone was read. */
  readonly since?: string;
  readonly engine: { readonly kind: string; readonly reachable: boolean; readonly why?: string };
  readonly runs: readonly RunView[];
  readonly holds: readonly {
    readonly workload: string;
    readonly kind: HoldKind;
    readonly status: Hold['status'];
    readonly heldAt: string;
    readonly runs: readonly string[];
    /** Why it is not released yet. */
    readonly why?: string;
  }[];
};

/** Whether the daemon does its work. */
export type HealthView = { readonly ok: boolean; readonly why: readonly Note[] };
