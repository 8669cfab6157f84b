import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, mkdtempSync } from 'node:fs';
import { access, readFile, rm } from 'node:fs/promises';
import { constants, tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { systemClock } from '../../src/clock.ts';
import type { Clock, Delivery, Intake, Log } from '../../src/core/ports.ts';
import { parseRequest } from '../../src/core/request.ts';
import type { Answer } from '../../src/core/result.ts';
import { openSpool } from '../../src/intake/spool.ts';
import { until } from './until.ts';

/** What a test lets the daemon do with one request. */
export type Script = (delivery: Delivery) => Promise<void> | void;

/** The text of the client. */
export const clientScript: string = await readFile(new URL('../../src/intake/client.sh', import.meta.url), 'utf8');

/** Where a program lies; a path is where it is. */
export async function which(program: string): Promise<string | undefined> {
  if (program.includes('/')) return program;
  for (const dir of (process.env.PATH ?? '').split(delimiter)) {
    const path = join(dir, program);
    if (
      await access(path, 1).then(
        () => true,
        () => false,
      )
    )
      return path;
  }
  return undefined;
}

/** One line of the log. */
export type Line = { readonly level: string; readonly message: string; readonly fields?: object };

/** `pre` opens run-1, everything succeeds. */
export async function obliging({ request, answer }: Delivery): Promise<void> {
  await answer({ exitCode: 0, notes: [], ...(request.state === 'pre' ? { runId: 'run-1' } : {}) });
}

export type SpoolBenchOptions = {
  readonly script?: Script;
  readonly clock?: Clock;
  readonly leaseTtlMs?: number;
  readonly owner?: { readonly uid: number; readonly gid: number };
  /** Nobody takes requests until `start` is called. */
  readonly down?: true;
};

/** The real spool in a directory of its own, with a daemon that does what the test says and answers each id once. */
export async function openSpoolBench(options: SpoolBenchOptions = {}) {
  const dir = mkdtempSync(join(tmpdir(), 'spool-'));
  chmodSync(dir, 0o755);
  const seen: Delivery[] = [];
  const lines: Line[] = [];
  const clients = new Set<Client>();
  const faults: unknown[] = [];
  let script = options.script ?? obliging;
  let up:
    | { readonly spool: Intake & AsyncDisposable; readonly stopping: AbortController; ended: Promise<void> }
    | undefined;

  const log: Log = {
    debug: () => undefined,
    info: (message, fields) => void lines.push({ level: 'info', message, ...(fields && { fields }) }),
    warn: (message, fields) => void lines.push({ level: 'warn', message, ...(fields && { fields }) }),
    error: (message, fields) => void lines.push({ level: 'error', message, ...(fields && { fields }) }),
    hookOutput: () => undefined,
    child: () => log,
  };

  async function start(recover?: (spool: Intake) => Promise<void> | void): Promise<void> {
    const spool = await openSpool({
      runDir: dir,
      client: 'default',
      clientScript,
      log,
      clock: options.clock ?? systemClock,
      leaseTtlMs: options.leaseTtlMs ?? 60_000,
      ...(options.owner && { owner: options.owner }),
      parse: (raw, client) =>
        parseRequest(raw, { client, operations: ['backup', 'restore'], unattendedMs: 1000, longestLeaseMs: 10_000 }),
    });
    await recover?.(spool);
    const stopping = new AbortController();
    up = { spool, stopping, ended: takeAll(spool, stopping.signal) };
  }

  async function takeAll(spool: Intake, signal: AbortSignal): Promise<void> {
    try {
      for await (const delivery of spool.deliveries(signal)) {
        seen.push(delivery);
        void Promise.resolve(script(delivery)).catch((error) => faults.push(error));
      }
    } catch (error) {
      faults.push(error);
    }
  }

  /** As if it died: what is under way is not answered. */
  async function stop(): Promise<void> {
    up?.stopping.abort(new Error('stopped by the test'));
    await up?.ended;
    await up?.spool[Symbol.asyncDispose]();
    up = undefined;
  }

  const bench = {
    dir,
    seen,
    lines,
    faults,
    path: (...parts: string[]) => join(dir, ...parts),
    spool: () => up?.spool as Intake,
    start,
    stop,
    setScript: (next: Script) => {
      script = next;
    },
    /** Starts the published client. */
    client(argv: readonly string[], args: readonly string[], more: ClientOptions = {}): Client {
      const client = startClient([...argv, join(dir, 'sidehook'), ...args], more);
      clients.add(client);
      return client;
    },
    /** The requests that came, as `operation state`. */
    asked: () => seen.map(({ request }) => `${request.operation} ${request.state}`),
    async [Symbol.asyncDispose]() {
      for (const client of clients) client.endAll();
      await stop();
      await rm(dir, { recursive: true, force: true });
      if (faults.length > 0) throw new AggregateError(faults, 'the scripted daemon failed');
    },
  };
  if (options.down === undefined) await start();
  return bench;
}

export type SpoolBench = Awaited<ReturnType<typeof openSpoolBench>>;

type ClientOptions = {
  readonly env?: Readonly<Record<string, string | undefined>>;
  readonly input?: string | Uint8Array | 'open';
  readonly cwd?: string;
  readonly uid?: number;
  readonly gid?: number;
  /** How long the test bears with it. */
  readonly patienceMs?: number;
};

/** A client that runs, and what it has printed so far. */
export type Client = {
  readonly child: ChildProcess;
  readonly out: () => string;
  readonly err: () => string;
  readonly bytes: () => Buffer;
  /** Its exit code, as a shell would tell it, once its output is closed, too. */
  readonly ended: Promise<number>;
  /** Its exit code, whoever still has its output open. */
  readonly exited: Promise<number>;
  /** Ends it with everything that it started. */
  endAll(): void;
};

const LONGEST_CLIENT_MS = 150_000;
const MOST_OUTPUT = 256 * 1024 * 1024;

/** Starts a command in a session of its own, which ends with the patience of a test. */
export function startClient(
  [program = '', ...args]: readonly string[],
  { input = '', patienceMs = LONGEST_CLIENT_MS, ...more }: ClientOptions,
): Client {
  const child = spawn(program, args, {
    ...more,
    env: { PATH: process.env.PATH, ...more.env },
    detached: true,
    stdio: ['pipe', 'pipe', 'pipe'],
  });
  const out: Buffer[] = [];
  const err: Buffer[] = [];
  let left = MOST_OUTPUT;
  const collect = (pieces: Buffer[]) => (chunk: Buffer) => {
    left -= chunk.length;
    if (left >= 0) pieces.push(chunk);
    else endAll(); // one that prints without end fails its test; it does not fill the machine
  };
  child.stdout.on('data', collect(out));
  child.stderr.on('data', collect(err));
  child.stdin.on('error', () => undefined);
  if (input !== 'open') child.stdin.end(input);
  const codeOf = ([code, signal]: unknown[]) =>
    typeof code === 'number' ? code : 128 + constants.signals[signal as NodeJS.Signals];
  const endAll = () => {
    try {
      process.kill(-(child.pid ?? 0), 'SIGKILL');
    } catch {
      // there is nobody left
    }
  };
  const patience = setTimeout(() => {
    err.push(Buffer.from('\nthe test lost its patience\n'));
    endAll();
  }, patienceMs);
  child.once('close', () => clearTimeout(patience));
  return {
    child,
    out: () => Buffer.concat(out).toString(),
    err: () => Buffer.concat(err).toString(),
    bytes: () => Buffer.concat(out),
    ended: once(child, 'close').then(codeOf),
    exited: once(child, 'exit').then(codeOf),
    endAll,
  };
}

/** An answer with nothing but a code, and a message where there must be one. */
export function anAnswer(exitCode: number, more: Partial<Answer> = {}): Answer {
  return { exitCode, notes: [], ...(exitCode === 0 ? {} : { message: `it exited ${exitCode}` }), ...more };
}

/** Whether a lease is lost already. */
export async function isLost(lease: Delivery['sender'] | undefined): Promise<boolean> {
  return await Promise.race([
    lease?.lost(AbortSignal.timeout(20_000)).then(() => true) ?? Promise.resolve(false),
    systemClock.sleep(300, AbortSignal.timeout(20_000)).then(() => false),
  ]);
}

/** Waits for the request in this state, and gives its delivery. */
export function untilAsked(bench: SpoolBench, state: string): Promise<Delivery> {
  return until(() => bench.seen.find(({ request }) => request.state === state), { what: `a ${state}`, everyMs: 10 });
}
