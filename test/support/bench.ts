import { mkdtempDisposable } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Delivery, HookFile, Host, Intake, Journal, Lease, Log, Output } from '../../src/core/ports.ts';
import type { Request } from '../../src/core/request.ts';
import type { Answer } from '../../src/core/result.ts';
import { openJournal } from '../../src/journal.ts';
import { conduct } from '../../src/run/conduct.ts';
import { shutDown } from '../../src/run/control.ts';
import { recover } from '../../src/run/recover.ts';
import { makeShared, type Shared } from '../../src/run/shared.ts';
import type { RunSettings } from '../../src/run/tools.ts';
import { watchEngine } from '../../src/run/watch.ts';
import { type FakeHook, makeFakeEngine } from './fake-engine.ts';
import { makeVirtualClock } from './virtual-clock.ts';

export const quietLog: Log = {
  debug: () => undefined,
  info: () => undefined,
  warn: () => undefined,
  error: () => undefined,
  hookOutput: () => undefined,
  child: () => quietLog,
};

/** The real run, core and journal over a fake engine, host and clock; the sidecar can die and come back. */
export async function openBench(settings: Partial<RunSettings> = {}) {
  await using stack = new AsyncDisposableStack();
  const dir = stack.use(await mkdtempDisposable(join(tmpdir(), 'sidehook-bench-')));
  const clock = makeVirtualClock();
  const engine = makeFakeEngine(clock);
  const files: HookFile[] = [];
  const hostHooks = new Map<string, FakeHook>();
  const clients = new Map<string, PromiseWithResolvers<void>>();
  /** What the kernel says of the clients' leases: bare signals leave none behind. */
  const holding = new Set<string>();
  const bugs: unknown[] = [];
  const lines: { level: string; message: string; fields: Record<string, unknown> | undefined }[] = [];
  let requests = 0;
  let runs = 0;

  const host: Host = {
    list: async () => ({ files, passedOver: [] }),
    async run(call, sink, signal) {
      const { name } = call.call;
      engine.diary.push({ at: clock.monotonicMs(), did: `host ${call.call.state}`, name, by: 'driver' });
      const ended = (await hostHooks.get(name)?.(call, sink, signal)) ?? 0;
      if (typeof ended !== 'number') return ended;
      return ended === 0 ? { status: 'succeeded' } : { status: 'failed', exitCode: ended };
    },
    endLeftovers: async () => undefined,
  };
  const log: Log = { ...quietLog, child: () => log };
  for (const level of ['debug', 'info', 'warn', 'error'] as const) {
    log[level] = (message, fields) => void lines.push({ level, message, fields });
  }

  const leaseOf = (ref: string): Lease => ({
    ref,
    isHeld: async () => holding.has(ref),
    lost: (signal) =>
      new Promise((resolve, reject) => {
        if (signal.aborted) return reject(signal.reason);
        signal.addEventListener('abort', () => reject(signal.reason), { once: true });
        void clients.get(ref)?.promise.then(resolve);
      }),
  });
  const answers = new Map<string, Answer[]>();
  const deliveryOf = (request: Request, ref: string, output: Output[]): Delivery => ({
    request,
    sender: leaseOf(ref),
    output: async (one) => void output.push(one),
    answer: async (answer) => void answers.set(request.id, [...(answers.get(request.id) ?? []), answer]),
  });
  const intake: Intake = {
    // biome-ignore lint/correctness/useYield: requests are handed over by hand
    async *deliveries() {
      return;
    },
    reopen: (request, ref) => deliveryOf(request, ref, []),
    lease: leaseOf,
  };

  const boot = (change = (journal: Journal) => journal): Shared & { journal: ReturnType<typeof openJournal> } => {
    const journal = openJournal(dir.path);
    const shared = makeShared(
      {
        ...{ host, driver: engine.driver, journal: change(journal), clock, log },
        makeRunId() {
          runs += 1;
          return `run-${runs}`;
        },
        settings: {
          ...{ operations: ['backup', 'restore'], hooksTimeoutMs: 3_600_000, holdMaxMs: 43_200_000 },
          ...{ healthTimeoutMs: 120_000, unclean: 'warn', failedRestore: 'keep', shutdownHolds: 'release' },
          ...settings,
        },
      },
      (error) => void bugs.push(error),
    );
    shared.inBackground(watchEngine(shared));
    return Object.assign(shared, { journal });
  };
  let shared = boot();
  stack.defer(async () => {
    shared.ending.abort(new Error('the test is over'));
    shared.stopping.abort(new Error('the test is over'));
    await Promise.allSettled([...shared.background]);
    shared.journal[Symbol.dispose]();
  });

  const owned = stack.move();
  return {
    clock,
    engine,
    files,
    hostHooks,
    bugs,
    lines,
    answers,
    shared: () => shared,
    journal: () => shared.journal,
    /** An executable of hooks.d. */
    addFile(name: string, header = '', run?: FakeHook): void {
      const text = `#!/bin/sh\n${header === '' ? '' : `# sidehook: ${header}\n`}`;
      files.push({ name, path: `/hooks.d/${name}`, text, head: text });
      if (run !== undefined) hostHooks.set(name, run);
    },
    /** Sends a request as client `ref`, and waits for its answer. */
    async signal(
      state: Request['state'],
      more: Partial<Request> & { ref?: string } = {},
    ): Promise<Answer & { output: string }> {
      const { ref = 'client-1', ...fields } = more;
      requests += 1;
      if (!clients.has(ref)) clients.set(ref, Promise.withResolvers());
      const request: Request = {
        ...{ id: `request-${requests}`, client: 'default', operation: 'backup', state, job: 'default' },
        ...{ params: {}, waitMs: 0, lease: 'held', outcome: 'success' },
        ...fields,
      };
      if (request.lease === 'held') holding.add(ref);
      const output: Output[] = [];
      await conduct(deliveryOf(request, ref, output), shared);
      const answer = answers.get(request.id)?.at(-1);
      if (answer === undefined) throw new Error(`no answer to ${request.id}`);
      return { ...answer, output: output.map(({ bytes }) => Buffer.from(bytes).toString()).join('') };
    },
    dieClient(ref = 'client-1'): void {
      holding.delete(ref);
      clients.get(ref)?.resolve();
    },
    /** A lease of which the kernel does not tell: a counter, where there are no FIFOs. */
    forgetLease: (ref = 'client-1') => holding.delete(ref),
    /** As kill -9: what was under way never goes on, what the journal has is all that is left. */
    async crash(): Promise<void> {
      shared.ending.abort(new Error('killed'));
      shared.stopping.abort(new Error('killed'));
      shared.journal[Symbol.dispose]();
      await Promise.allSettled([...shared.background]);
    },
    /** Over the same journal, or what a test makes of it. */
    async restart(change?: (journal: Journal) => Journal): Promise<void> {
      shared = boot(change);
      await recover([intake], shared);
    },
    shutDown: () => shutDown(shared),
    /** Waits, in virtual time, until it is so. */
    async until(what: string, isSo: () => boolean): Promise<void> {
      for (let tries = 0; tries < 100_000; tries += 1) {
        if (isSo()) return;
        await clock.sleep(50, new AbortController().signal);
      }
      throw new Error(`never came true: ${what}`);
    },
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}
