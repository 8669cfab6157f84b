import type { Clock, Driver, Host, Journal, Log } from '../core/ports.ts';

/** All that a run is done with; handed in, so that tests and a simulation can hand in their own. */
export type Tools = {
  readonly host: Host;
  readonly driver: Driver;
  readonly journal: Journal;
  readonly clock: Clock;
  readonly log: Log;
  readonly settings: RunSettings;
  /** A new, random run id. */
  readonly makeRunId: () => string;
};

/** The settings that a run obeys. */
export type RunSettings = {
  readonly operations: readonly string[];
  readonly hooksTimeoutMs: number;
  readonly holdMaxMs: number;
  readonly healthTimeoutMs: number;
  readonly unclean: 'warn' | 'abort';
  readonly failedRestore: 'keep' | 'release';
  readonly shutdownHolds: 'release' | 'keep';
};
