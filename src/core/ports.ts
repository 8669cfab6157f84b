/** The seams: what the run needs of the outside world. Adapters implement these; tests fake them only here. */

import type { EngineUse, Finding } from './finding.ts';
import type { Hold, HoldKind } from './hold.ts';
import type { HookCall } from './hook.ts';
import type { Ledger } from './ledger.ts';
import type { Claim, Step } from './plan.ts';
import type { HoldChange, HoldRecord, RunChange, RunRecord, StepRecord } from './record.ts';
import type { Request } from './request.ts';
import type { Answer, Outcome } from './result.ts';
import type { Incarnation, Target, Workload, WorkloadKey, WorkloadRef } from './workload.ts';

/** What a hook printed, as it came. */
export type Output = { readonly stream: 'out' | 'err'; readonly bytes: Uint8Array };

/** Takes output; a hook is read no faster than this resolves. Never rejects. */
export type Sink = (output: Output) => Promise<void>;

/** One request as it came, with its way back. */
export interface Delivery {
  readonly request: Request;
  /** Proof that the sender lives: for the length of the request, or (`lease: held`) of the run. */
  readonly sender: Lease;
  /** Hands a hook's output to the sender while it runs. Bounded; resolves when more may come; never rejects. */
  output(output: Output): Promise<void>;
  /** Answers, once; a second call is ignored. Never rejects: a client that is gone reads it later, or never. */
  answer(answer: Answer): Promise<void>;
}

/** What keeps a run open. */
export interface Lease {
  /** Finds the lease again after a restart (`Intake.lease`). */
  readonly ref: string;
  /** Resolves once the client is known to be dead; rejects only with the signal's reason. */
  lost(signal: AbortSignal): Promise<void>;
  /** Whether the kernel itself says, just now, that somebody holds it: then nobody else's word counts. */
  isHeld(): Promise<boolean>;
  /** Tells the client, if it listens, that its run was given up, and why in a line. Never throws. */
  abandon?(why: string): void;
}

/** A transport: where requests come from. */
export interface Intake {
  /** Every request, each parsed; bad ones are answered by the intake itself. Ends when the signal aborts. */
  deliveries(signal: AbortSignal): AsyncIterable<Delivery>;
  /** The way back to a request that was taken before a restart; undefined if it did not come through here. */
  reopen(request: Request, leaseRef: string): Delivery | undefined;
  /** The lease of a run that was opened before a restart; undefined if it is none of ours. */
  lease(ref: string): Lease | undefined;
}

/** Something that was passed over or is odd, and why: told to the operator and to the client (P8). */
export type Note = string;

/** An entry of hooks.d that is to be run. */
export type HookFile = {
  readonly name: string;
  readonly path: string;
  /** The whole text; undefined when it is no text or over the size that can travel into a container. */
  readonly text?: string;
  /** The first lines, for the header; empty when it is no text. */
  readonly head: string;
};

/** hooks.d and the host. */
export interface Host {
  /**
   * Lists hooks.d in byte order, afresh. An absent directory is empty.
   * @throws OperationalError `refused` for a file that others may write, `configuration` for one that cannot be read
   */
  list(): Promise<{ readonly files: readonly HookFile[]; readonly passedOver: readonly Note[] }>;
  /**
   * Runs one program, standard input empty, in a process group of its own. It has ended when it has exited; what it left
   * in the background lives on, unless an abort cut it short, which ends all that came of it. Never rejects.
   */
  run(call: ProgramCall, sink: Sink, signal: AbortSignal): Promise<Outcome>;
  /** Ends what a dead sidecar left running: whatever carries a mark that starts with this one. */
  endLeftovers(markPrefix: string, signal: AbortSignal): Promise<void>;
}

/** One program with its arguments and environment. */
export type ProgramCall = {
  readonly call: HookCall;
  /** What the hook gets beside its place's own: `SIDEHOOK_…`. */
  readonly env: Readonly<Record<string, string>>;
  /** Stands in the environment as SIDEHOOK_STEP; finds every process of this step again. */
  readonly mark: string;
};

/** What one look at the engine saw. */
export type View = {
  readonly workloads: readonly Workload[];
  /** The sidecar's own compose project; undefined outside compose. */
  readonly project?: string;
  /** Why nothing may be held at all: state.dir is no mount, or we cannot tell which container we are. */
  readonly unholdable?: string;
  /** What of hooks, state and configuration a client can write, so that nothing may be run at all. */
  readonly exposed?: string;
  /** What sidehooks of elsewhere hold, or may hold at any moment: not down by its operator's will. */
  readonly heldElsewhere?: readonly WorkloadKey[];
  /** What has the directory that clients share with the sidecar, itself left out, and has not ended. */
  readonly clients?: readonly Incarnation[];
  readonly notes: readonly Note[];
};

/** Our adapter to what runs the workloads. Every call rejects with the signal's reason when it aborts. */
export interface Driver {
  readonly engine: 'docker' | 'kubernetes' | 'none';
  /** Where the engine remembers runs beside the journal. */
  readonly ledger?: Ledger;
  /** Everything in scope, and what these targets name outside of it.
   * @throws OperationalError `engine-unavailable` */
  look(targets: readonly Target[], signal: AbortSignal): Promise<View>;
  /** The instance if it is still there, else what took its place; undefined: no longer exists.
   * @throws OperationalError `engine-unavailable` */
  inspect(ref: WorkloadRef, signal: AbortSignal): Promise<Workload | undefined>;
  /**
   * Runs a hook in a workload. On abort it ends the hook and all its children there (TERM, after 10 s KILL) before it
   * resolves. `broken` 69 when the engine was away, or gave no answer in time, before the hook was started.
   */
  exec(call: ProgramCall, sink: Sink, signal: AbortSignal): Promise<Outcome>;
  /** Ends what a dead sidecar left running in this workload, as `Host.endLeftovers`. */
  endLeftovers(ref: WorkloadRef, markPrefix: string, signal: AbortSignal): Promise<void>;
  /** Makes still, waits for it, and resolves to how the engine calls this instance then. One that is so already: no
   * complaint. An abort ends the waiting, not the stop.
   * @throws OperationalError `workload-failed` (also when it is gone), `engine-unavailable` */
  hold(ref: WorkloadRef, kind: HoldKind, timeoutMs: number | undefined, signal: AbortSignal): Promise<Workload>;
  /** Undoes a hold of this instance, waits until the engine calls it running, and resolves to how it stands then. One
   * that runs already: no complaint.
   * @throws OperationalError `workload-failed` (also when it is gone), `engine-unavailable` */
  release(ref: WorkloadRef, kind: HoldKind, signal: AbortSignal): Promise<Workload>;
  /** Wakes whenever a workload may have changed state: the engine's own events, and a slow tick where they break off. */
  changes(signal: AbortSignal): AsyncIterable<void>;
  /** Whether it may do what it is used for, and whether the sidecar is set up to keep its promises; changes nothing.
   * @throws OperationalError `engine-unavailable` */
  examine(uses: readonly EngineUse[], signal: AbortSignal): Promise<readonly Finding[]>;
  /** What of the sidecar's own project somebody stopped in the last moments, or stops within `forMs`, by name: none of
   * `except`, no client, nothing that runs again. Absent where the engine knows no such project.
   * @throws OperationalError `engine-unavailable` */
  findStopping?(except: readonly WorkloadKey[], forMs: number, signal: AbortSignal): Promise<string | undefined>;
}

/** Time, so that a simulation can bend it. */
export interface Clock {
  /** For terms: milliseconds that no clock change moves. */
  monotonicMs(): number;
  /** For people and records: ISO 8601, UTC. */
  now(): string;
  /** Rejects with the signal's reason when it aborts. */
  sleep(ms: number, signal: AbortSignal): Promise<void>;
  /** Aborts with a TimeoutError. */
  deadline(ms: number): AbortSignal;
}

/** One line per event: a constant message, and fields. */
export interface Log {
  debug(message: string, fields?: Record<string, unknown>): void;
  info(message: string, fields?: Record<string, unknown>): void;
  warn(message: string, fields?: Record<string, unknown>): void;
  error(message: string, fields?: Record<string, unknown>): void;
  /** A line that a hook printed, without its newline. */
  hookOutput(hook: string, stream: Output['stream'], line: string, fields: Record<string, unknown>): void;
  child(fields: Record<string, unknown>): Log;
}

/** What we took down and promised to run, on disk before we do it. Every call is durable when it returns. */
export interface Journal {
  /** Makes several writes one. */
  atomically<T>(write: () => T): T;
  /** Remembers a request before anything is done for it; a known one is left as it is. */
  takeRequest(request: Request, leaseRef: string): void;
  answerOf(requestId: string): Answer | undefined;
  /** Those that a crash cut off, oldest first. */
  unanswered(): readonly { readonly request: Request; readonly leaseRef: string }[];
  /** Has the answer stay to be read; remembers the request, too, where that could not be written before. */
  answered(request: Request, leaseRef: string, answer: Answer): void;
  /** Opens a run with all its steps and claims. @throws OperationalError `busy`: its job has a run, or a claim conflicts */
  openRun(run: RunRecord, steps: readonly Step[], claims: readonly Claim[]): void;
  run(id: string): RunRecord | undefined;
  /** The newest first; `live`: all that are not closed. */
  runs(which: 'live' | 'all'): readonly RunRecord[];
  changeRun(id: string, change: RunChange): void;
  steps(runId: string): readonly StepRecord[];
  stepStarted(runId: string, stepId: string): void;
  stepEnded(runId: string, stepId: string, outcome: Outcome): void;
  /** All that are not released, oldest first. */
  holds(): readonly HoldRecord[];
  /** Released and not, of one run. */
  holdsOf(runId: string): readonly HoldRecord[];
  /** Writes down a hold of a workload that is not held yet. */
  addHold(hold: Hold, runId: string): void;
  joinHold(key: string, runId: string): void;
  leaveHold(key: string, runId: string): void;
  /** Changes the pending hold of this workload. */
  changeHold(key: string, change: HoldChange): void;
}
