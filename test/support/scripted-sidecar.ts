import { mkdtempDisposable } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { systemClock } from '../../src/clock.ts';
import type { Clock, Delivery, Intake, Log } from '../../src/core/ports.ts';
import { parseRequest, type Request } from '../../src/core/request.ts';
import type { Answer } from '../../src/core/result.ts';
import type { RunView, Views } from '../../src/core/views.ts';
import { openSocket } from '../../src/intake/socket.ts';
import { openControl } from '../../src/intake/socket-control.ts';
import { until } from './until.ts';

/** What a test lets the daemon do with one request. */
export type Script = (delivery: Delivery) => Promise<void> | void;

const silentLog: Log = {
  debug: () => undefined,
  info: () => undefined,
  warn: () => undefined,
  error: () => undefined,
  hookOutput: () => undefined,
  child: () => silentLog,
};

/** A run that is open, through the socket of the client `default`. */
export function aRunView(fields: Partial<RunView> = {}): RunView {
  return {
    ...{ id: 'run-1', job: 'default', client: 'default', operation: 'backup', phase: 'open', distrust: [] },
    ...{ openedAt: '2026-01-01T00:00:00.000Z', leaseRef: 'socket/default/lease/mine' },
    ...fields,
  };
}

/** `pre` opens run-1, everything else succeeds. */
export async function obliging({ request, answer }: Delivery): Promise<void> {
  await answer({ exitCode: 0, notes: [], ...(request.state === 'pre' ? { runId: 'run-1' } : {}) });
}

/** The real socket with a daemon that does what the test says; it can be stopped and started again. */
export async function openSidecar(options: {
  readonly script?: Script;
  readonly clock?: Clock;
  readonly leaseTtlMs?: number;
  readonly requestTermMs?: number;
  readonly views?: Partial<Views>;
  /** Takes nothing up until `hear` is called. */
  readonly deaf?: true;
}) {
  await using stack = new AsyncDisposableStack();
  const dir = stack.use(await mkdtempDisposable(join(tmpdir(), 'sidecar-'))).path;
  const seen: Delivery[] = [];
  const parsed: string[] = [];
  const runs = new Map<string, RunView>([['run-1', aRunView()]]);
  let script: Script = options.script ?? obliging;
  let up: { readonly intake: Intake & AsyncDisposable; readonly stopping: AbortController } | undefined;

  const views: Views = {
    runs: async () => [...runs.values()],
    run: async (id) => runs.get(id),
    plan: async ({ operation, state, job }) => ({ operation, state, job, steps: [], notes: ['nothing to do'] }),
    status: async () => ({
      version: '0.0.0',
      since: '2026-01-01T00:00:00.000Z',
      engine: { kind: 'none', reachable: true },
      runs: [...runs.values()],
      holds: [],
    }),
    release: async () => ({ exitCode: 0, notes: [] }) satisfies Answer,
    health: async () => ({ ok: true, why: [] }),
    ...options.views,
  };
  const parse = (raw: unknown, client: string): Request => {
    const terms = { unattendedMs: 3_600_000, longestLeaseMs: 43_200_000 };
    const request = parseRequest(raw, { client, operations: ['backup', 'restore'], ...terms });
    parsed.push(request.id);
    return request;
  };

  async function start(): Promise<void> {
    const { clock = systemClock, leaseTtlMs = 60_000, requestTermMs = 20_000 } = options;
    const socket = { path: join(dir, 'sidehook.sock'), mode: 0o660, client: 'default' };
    const intake = await openSocket({ ...socket, parse, views, log: silentLog, clock, leaseTtlMs, requestTermMs });
    const stopping = new AbortController();
    up = { intake, stopping };
    if (options.deaf === undefined) void hear();
  }

  /** Takes requests up until the sidecar stops. */
  async function hear(): Promise<void> {
    if (up === undefined) return;
    const { intake, stopping } = up;
    for await (const delivery of intake.deliveries(stopping.signal)) {
      seen.push(delivery);
      void script(delivery);
    }
  }

  async function stop(): Promise<void> {
    up?.stopping.abort(new Error('the sidecar ends'));
    await up?.intake[Symbol.asyncDispose]();
    up = undefined;
  }

  await start();
  stack.defer(stop);
  stack.use(await openControl({ path: join(dir, 'control.sock'), mode: 0o600, parse, views, log: silentLog }));
  const owned = stack.move();
  return {
    dir,
    socketPath: join(dir, 'sidehook.sock'),
    controlPath: join(dir, 'control.sock'),
    runs,
    /** The ids of all requests that arrived, taken up or not. */
    parsed,
    seen,
    hear,
    start,
    stop,
    intake(): Intake {
      if (up === undefined) throw new Error('the sidecar is down');
      return up.intake;
    },
    obey(next: Script): void {
      script = next;
    },
    /** Waits for a request of this state. */
    requested(state: Request['state']): Promise<Delivery> {
      return until(() => seen.find(({ request }) => request.state === state), { what: `a request for ${state}` });
    },
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

/** Whether a lease is lost, as far as one can tell now: without waiting for anything but promises that are settled. */
export async function isLost(lease: Delivery['sender']): Promise<boolean> {
  const asking = new AbortController();
  let lost = false;
  const waiting = lease.lost(asking.signal).then(
    () => {
      lost = true;
    },
    () => undefined,
  );
  await new Promise((resolve) => setImmediate(resolve));
  asking.abort();
  await waiting;
  return lost;
}
