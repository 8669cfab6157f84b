/** A daemon that is started again whenever it ends, as a restart policy does; each of its lives can end at a point. */
import { type ChildProcess, spawn } from 'node:child_process';
import { createWriteStream } from 'node:fs';
import { mkdir, readFile } from 'node:fs/promises';
import { request } from 'node:http';
import { join, resolve } from 'node:path';
import { cacheDir } from '../support/install.ts';

const MAIN = resolve(import.meta.dirname, '../../src/main.ts');
const TAP = resolve(import.meta.dirname, 'tap.ts');

/** One life of it: from its start to its end. */
export type LifeOfDaemon = {
  readonly pid: number;
  /** Where it was to end; undefined: nowhere. */
  readonly kill: string | undefined;
  /** How it ended; undefined: it lives. */
  end(): { readonly code: number | null; readonly signal: NodeJS.Signals | null } | undefined;
  /** The points that it came by. */
  points(): Promise<readonly string[]>;
};

export type Daemon = AsyncDisposable & {
  readonly runDir: string;
  readonly stateDir: string;
  lives(): readonly LifeOfDaemon[];
  /** All that it said, over all of its lives. */
  log(): Promise<string>;
  /** Ends the life that it has now, by force unless said otherwise; it is started again, `downMs` later. */
  kill(signal?: 'SIGKILL' | 'SIGTERM', downMs?: number): void;
  /** Stops it where it is, or lets it go on. */
  freeze(signal: 'SIGSTOP' | 'SIGCONT'): void;
  /** Asks on the operator's socket, by POST where there is a body; undefined: nobody there. */
  ask<Answer>(path: string, body?: object): Promise<Answer | undefined>;
  /** No life more. */
  stop(): Promise<void>;
};

export type DaemonOptions = {
  /** Where it may keep what is its own; it makes `run` and `state` there. */
  readonly dir: string;
  readonly hooksDir: string;
  readonly scope: string;
  readonly engineHost: string;
  readonly env?: Readonly<Record<string, string>>;
  /** Where its first, second, … life is to end; those after that are not to end. */
  readonly kills?: readonly (string | undefined)[];
  /** What the points call things by. */
  readonly names: Readonly<Record<string, string>>;
  /** More modules to be loaded before it. */
  readonly preload?: readonly string[];
  readonly runDir?: string;
  readonly stateDir?: string;
};

/** Starts it. */
export async function openDaemon(options: DaemonOptions): Promise<Daemon> {
  const { dir, hooksDir, scope, kills = [], preload = [] } = options;
  const { runDir = join(dir, 'run'), stateDir = join(dir, 'state') } = options;
  for (const one of [runDir, stateDir]) await mkdir(one, { recursive: true });
  const compiled = await cacheDir('compiled');
  const logPath = join(dir, 'log');
  const log = createWriteStream(logPath, { flags: 'a' });
  const lives: LifeOfDaemon[] = [];
  let child: ChildProcess | undefined;
  let isStopped = false;
  let restMs = 0;
  let gone: Promise<void> = Promise.resolve();

  function begin(): void {
    const beganAt = performance.now();
    const kill = kills[lives.length];
    const trace = join(dir, `points-${lives.length}`);
    const modules = [TAP, ...preload].flatMap((module) => ['--import', module]);
    const argv = ['--pdeathsig', 'KILL', process.execPath, ...modules, MAIN, 'serve'];
    const env = {
      PATH: process.env.PATH ?? '',
      DOCKER_HOST: options.engineHost,
      NODE_COMPILE_CACHE: compiled,
      SIDEHOOK_RUN_DIR: runDir,
      SIDEHOOK_STATE_DIR: stateDir,
      SIDEHOOK_HOOKS_DIR: hooksDir,
      SIDEHOOK_SCOPE: scope,
      SIDEHOOK_LOG_FORMAT: 'json',
      SIDEHOOK_LOG_LEVEL: 'debug',
      FAULTS_TRACE: trace,
      FAULTS_NAMES: JSON.stringify(options.names),
      ...(kill === undefined ? {} : { FAULTS_KILL: kill }),
      ...options.env,
    };
    const started = spawn('setpriv', argv, { env, cwd: dir, stdio: ['ignore', 'ignore', 'pipe'] });
    child = started;
    started.stderr.pipe(log, { end: false });
    let end: ReturnType<LifeOfDaemon['end']>;
    const { promise, resolve: settle } = Promise.withResolvers<void>();
    gone = promise;
    started.once('exit', (code, signal) => {
      end = { code, signal };
      log.write(`-- ended: ${JSON.stringify(end)}\n`);
      settle();
      // One that cannot begin is not started over and over at once.
      const pauseMs = Math.max(restMs, performance.now() - beganAt < 1000 ? 300 : 0);
      restMs = 0;
      if (!isStopped) setTimeout(() => isStopped || begin(), pauseMs);
    });
    lives.push({
      ...{ pid: started.pid ?? 0, kill, end: () => end },
      points: async () => (await readFile(trace, 'utf8').catch(() => '')).split('\n').slice(0, -1),
    });
  }

  async function stop(): Promise<void> {
    isStopped = true;
    child?.kill('SIGKILL');
    await gone;
  }

  begin();
  return {
    ...{ runDir, stateDir },
    lives: () => lives,
    log: () => readFile(logPath, 'utf8').catch(() => ''),
    kill(signal = 'SIGKILL', downMs = 0) {
      restMs = downMs;
      child?.kill(signal);
    },
    freeze: (signal) => void child?.kill(signal),
    ask: (path, body) => askControl(join(stateDir, 'control.sock'), path, body),
    stop,
    async [Symbol.asyncDispose]() {
      await stop();
      log.end();
    },
  };
}

const ASK_MS = 30_000;

function askControl<Answer>(socketPath: string, path: string, body: object | undefined): Promise<Answer | undefined> {
  const method = body === undefined ? 'GET' : 'POST';
  const text = body === undefined ? '' : JSON.stringify(body);
  const headers = body === undefined ? {} : { 'content-type': 'application/json', 'content-length': text.length };
  return new Promise((settle) => {
    const sent = request({ socketPath, method, path, headers, agent: false, timeout: ASK_MS }, async (response) => {
      try {
        const chunks: Buffer[] = [];
        for await (const chunk of response) chunks.push(chunk as Buffer);
        settle(response.statusCode === 200 ? JSON.parse(Buffer.concat(chunks).toString()) : undefined);
      } catch {
        settle(undefined);
      }
    });
    sent.on('error', () => settle(undefined)).on('timeout', () => sent.destroy(new Error('no answer')));
    sent.end(text);
  });
}
