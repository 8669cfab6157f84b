/** A whole sidehook over an API server: real run, core, journal and driver; it can die at any write. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { systemClock } from '../../src/clock.ts';
import type { Delivery, Host, Intake, Journal, Lease } from '../../src/core/ports.ts';
import type { Request } from '../../src/core/request.ts';
import type { Answer } from '../../src/core/result.ts';
import { openKubernetes } from '../../src/drivers/kubernetes.ts';
import { openJournal } from '../../src/journal.ts';
import { tendLedger } from '../../src/run/adopt.ts';
import { conduct } from '../../src/run/conduct.ts';
import { recover } from '../../src/run/recover.ts';
import { makeShared } from '../../src/run/shared.ts';
import type { RunSettings } from '../../src/run/tools.ts';
import { watchEngine } from '../../src/run/watch.ts';
import type { ApiServer, Asked, Fault } from '../support/api-server.ts';
import { quietLog } from '../support/bench.ts';
import { writeKubeconfig } from './kubernetes-bench.ts';

/** A moment at which a sidecar can die: before or after one of its writes, by its name and how often it came. */
export type Point = string;

const PACE = { durationMs: 400, renewMs: 100 };
const WRITES = [
  'takeRequest',
  'answered',
  'openRun',
  'changeRun',
  'stepStarted',
  'stepEnded',
  'addHold',
  'joinHold',
  'leaveHold',
  'changeHold',
] as const;
let incarnations = 0;

/** What lies between a sidehook and its API server, and can come in between: a scripted server, or a gate to a real one. */
export type Gate = Pick<ApiServer, 'url' | 'namespace' | 'cutExecs'> & {
  readonly state: Pick<ApiServer['state'], 'script'>;
};

/** The pods of one namespace that have a sidehook each, and a place for their state. */
export async function openNamespace(server: Gate, pace = PACE) {
  const dir = await mkdtemp(join(tmpdir(), 'sidehook-namespace-'));
  const dead = new Set<string>();
  const watchers = new Map<string, (point: Point) => boolean>();
  /** Whether a write's sidecar is dead, by now or just now. */
  const isDead = (token: string, what: string): boolean => {
    if (!dead.has(token) && watchers.get(token)?.(what) === true) dead.add(token);
    return dead.has(token);
  };
  const nameOf = ({ method, path }: Asked): string =>
    `${method} ${path
      .split('/')
      .slice(-2)
      .join('/')
      .replace(/uid-\d+/, 'N')}`;
  server.state.script = (asked, when): Fault | undefined => {
    if (dead.has(asked.token)) return 'cut';
    if (asked.method === 'GET' && !asked.path.endsWith('/exec')) return undefined;
    return isDead(asked.token, `${when} ${nameOf(asked)}`) ? 'cut' : undefined;
  };
  return {
    dir,
    /** Starts a sidehook; `dieAt` is asked at every write, and its yes is the sidecar's death. */
    async start(name: string, { dieAt = () => false }: { dieAt?: (point: Point) => boolean } = {}) {
      const token = `${name}-${++incarnations}`;
      const kubeconfig = await writeKubeconfig(server, await mkdtemp(join(dir, 'config-')), token);
      const stateDir = join(dir, name);
      watchers.set(token, dieAt);
      const death = Promise.withResolvers<void>();
      const journal = openJournal(stateDir);
      const mortal = mortalJournal(journal, (what) => {
        const isOver = isDead(token, `${what}`);
        if (isOver) death.resolve();
        return isOver;
      });
      const driver = openKubernetes({ env: { KUBECONFIG: kubeconfig }, stateDir, pace });
      const bugs: unknown[] = [];
      const host: Host = {
        list: async () => ({ files: [], passedOver: [] }),
        run: async () => ({ status: 'succeeded' }),
        endLeftovers: async () => undefined,
      };
      let runs = 0;
      const settings: RunSettings = {
        ...{ operations: ['backup', 'restore'], hooksTimeoutMs: 60_000, holdMaxMs: 3_600_000, healthTimeoutMs: 30_000 },
        ...{ unclean: 'warn', failedRestore: 'keep', shutdownHolds: 'release' },
      };
      const shared = makeShared(
        {
          ...{ host, driver, journal: mortal, clock: systemClock, log: quietLog, settings },
          makeRunId: () => `run-${token}-${++runs}`,
        },
        (error) => void bugs.push(error),
      );
      let isClientAlive = true;
      const gone = Promise.withResolvers<void>();
      const leaseOf = (ref: string): Lease => ({
        ref,
        isHeld: async () => isClientAlive,
        lost: (signal) =>
          new Promise((resolve, reject) => {
            signal.addEventListener('abort', () => reject(signal.reason), { once: true });
            void gone.promise.then(resolve);
          }),
      });
      const answers = new Map<string, Answer>();
      const deliveryOf = (request: Request, ref: string): Delivery => ({
        request,
        sender: leaseOf(ref),
        output: async () => undefined,
        answer: async (answer) => void answers.set(request.id, answer),
      });
      const intake: Intake = {
        // biome-ignore lint/correctness/useYield: requests are handed over by hand
        async *deliveries() {
          return;
        },
        reopen: (request, ref) => deliveryOf(request, ref),
        lease: leaseOf,
      };
      let requests = 0;
      const end = async (): Promise<void> => {
        dead.add(token);
        for (const controller of [shared.ending, shared.stopping]) controller.abort(new Error('killed'));
        server.cutExecs();
        await driver[Symbol.asyncDispose]();
        await Promise.allSettled([...shared.background]);
        journal[Symbol.dispose]();
      };
      return {
        shared,
        journal,
        driver,
        bugs,
        /** As the daemon begins: recovers, then watches the engine and tends the ledger. */
        async begin(): Promise<void> {
          shared.inBackground(watchEngine(shared));
          shared.inBackground(tendLedger(shared));
          await recover([intake], shared);
        },
        /** The client's death. */
        dieClient(): void {
          isClientAlive = false;
          gone.resolve();
        },
        /** Sends a request and resolves to its answer; undefined: the sidecar died. */
        async signal(state: Request['state'], more: Partial<Request> = {}): Promise<Answer | undefined> {
          requests += 1;
          const request: Request = {
            ...{ id: `request-${token}-${requests}`, client: 'default', operation: 'backup', state, job: 'default' },
            ...{ params: {}, waitMs: 0, lease: 'held', outcome: 'success' },
            ...more,
          };
          const done = conduct(deliveryOf(request, 'client'), shared).catch(() => undefined);
          const died = new Promise<void>((resolve) => {
            const timer = setInterval(() => dead.has(token) && resolve(), 5);
            void done.finally(() => clearInterval(timer));
          });
          await Promise.race([done, death.promise, died]);
          return dead.has(token) ? undefined : answers.get(request.id);
        },
        hasDied: () => dead.has(token),
        /** As kill -9, and then the journal stays for the next start. */
        kill: end,
        /** The pod is gone, and with it the journal. */
        async lose(): Promise<void> {
          await end();
          await rm(stateDir, { recursive: true, force: true });
        },
      };
    },
    [Symbol.asyncDispose]: () => rm(dir, { recursive: true, force: true }),
  };
}

/** The journal of somebody who may die before or after each write: what comes later is not written. */
function mortalJournal(journal: Journal, isDead: (what: string) => boolean): Journal {
  const guarded = Object.fromEntries(
    WRITES.map((name) => [
      name,
      (...args: unknown[]) => {
        if (isDead(`before journal ${name}`)) throw new Error('dead');
        const write = journal[name] as (...values: unknown[]) => unknown;
        const result = write(...args);
        if (isDead(`after journal ${name}`)) throw new Error('dead');
        return result;
      },
    ]),
  );
  return { ...journal, ...guarded } as Journal;
}
