import type { IncomingMessage } from 'node:http';
import type { Socket } from 'node:net';
import { setTimeout as pause } from 'node:timers/promises';
import { formatDuration } from '../core/duration.ts';
import { OperationalError } from '../core/errors.ts';
import { decodeEvents } from '../intake/socket-wire.ts';
import { ask, nobodyThere, open, RETRY_MS } from './wire.ts';

/** What the keeper of a lease needs. */
export type LeaseOptions = {
  readonly socketPath: string;
  readonly leaseId: string;
  /** How long the first connection may take. */
  readonly patienceMs: number;
  readonly onAbandoned: (why: string) => void;
  readonly onAway: () => void;
  readonly onBack: () => void;
  readonly signal: AbortSignal;
};

/** A lease that is kept until it is disposed of, over restarts of the sidecar. */
export interface HeldLease extends AsyncDisposable {
  /**
   * Says which run it keeps open: after a restart of the sidecar it is asked whether it still is. Undefined: none any more,
   * since its end is asked for, and the answer to that says how it ended.
   */
  keeps(runId: string | undefined): void;
  /**
   * A second connection for the same lease, for a child to inherit: should we be killed, then whatever reads the data
   * lives on and keeps its workloads still. Undefined when the sidecar is away.
   */
  openForChild(): Promise<Socket | undefined>;
}

/**
 * Opens the connection that proves that we live. Open it before the first signal: then there is no moment at which the
 * sidecar could take us for dead.
 * @throws OperationalError `engine-unavailable` when nobody answered in time
 */
export async function holdLease(options: LeaseOptions): Promise<HeldLease> {
  const { socketPath, patienceMs } = options;
  const ending = new AbortController();
  const signal = AbortSignal.any([options.signal, ending.signal]);
  let runId: string | undefined;

  let connection = await openFirst();
  const keeping = keep().catch((error: unknown) => {
    if (!signal.aborted) throw error;
  });

  async function openFirst(): Promise<IncomingMessage> {
    const endMs = performance.now() + patienceMs;
    for (;;) {
      const reply = await openOne();
      if (!('away' in reply)) return reply;
      if (performance.now() > endMs) {
        throw nobodyThere(socketPath, `none answered within ${formatDuration(patienceMs)} (${reply.away})`);
      }
      await pause(RETRY_MS, undefined, { signal });
    }
  }

  /** For as long as it takes, whatever stands in the way: the command goes on meanwhile. */
  async function openAgain(): Promise<IncomingMessage> {
    for (;;) {
      try {
        const reply = await openOne();
        if (!('away' in reply)) return reply;
      } catch (error) {
        if (!(error instanceof OperationalError)) throw error;
      }
      await pause(RETRY_MS, undefined, { signal });
    }
  }

  function openOne(): ReturnType<typeof open> {
    return open(socketPath, { method: 'GET', path: `/v1/leases/${options.leaseId}`, signal });
  }

  async function keep(): Promise<void> {
    while (!signal.aborted) {
      await listen(connection);
      if (signal.aborted) return;
      const isKept = runId !== undefined;
      if (isKept) options.onAway();
      connection = await openAgain();
      if (isKept) options.onBack();
      await look();
    }
  }

  async function listen(response: IncomingMessage): Promise<void> {
    try {
      for await (const event of decodeEvents(response)) {
        if (event.type === 'abandoned') options.onAbandoned(event.why);
      }
    } catch {
      // broken, or not understood: either way it is no lease any more, and is opened anew
    }
  }

  /** What happened while it was away: a run that is being unwound has been given up. */
  async function look(): Promise<void> {
    if (runId === undefined) return;
    try {
      const reply = await ask(socketPath, { method: 'GET', path: `/v1/runs/${runId}`, signal });
      const run = 'away' in reply ? undefined : (reply.document as { readonly phase?: unknown });
      if (runId !== undefined && run !== undefined && run.phase !== 'pre' && run.phase !== 'open')
        options.onAbandoned('given up while the sidecar was away');
    } catch (error) {
      if (!(error instanceof OperationalError)) throw error;
      options.onAbandoned(error.message);
    }
  }

  return {
    keeps(id) {
      runId = id;
    },
    async openForChild() {
      const reply = await openOne();
      if ('away' in reply) return undefined;
      reply.on('error', () => undefined); // the child's copy counts, not what becomes of ours
      return reply.socket;
    },
    async [Symbol.asyncDispose]() {
      ending.abort();
      connection.destroy();
      await keeping;
    },
  };
}
