import type { HoldKind } from './hold.ts';

/** One thing that `doctor` looked at. */
export type Finding = {
  /** What was looked at: `state.dir`, `permission to stop containers`. */
  readonly what: string;
  readonly level: 'ok' | 'warn' | 'fail';
  /** One line: how it is and, unless it is well, what to do about it. */
  readonly says: string;
};

/** What hooks and labels ask of an engine, beside looking: to run something in a workload, or to make it still. */
export type EngineUse = 'exec' | HoldKind;
