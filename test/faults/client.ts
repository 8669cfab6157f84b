/** The published client: a process of this machine, or in a container that shares the run directory. */
import { spawn } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { BUSYBOX } from '../support/images.ts';
import { until } from '../support/until.ts';
import type { EngineView } from './engine-view.ts';

export type ClientProcess = AsyncDisposable & {
  /** Its exit code, as a shell tells it; undefined: it still runs. */
  exitCode(): number | undefined;
  err(): string;
  /** In a container there is but one whom a signal can be sent to. */
  signal(name: 'SIGKILL' | 'SIGSTOP' | 'SIGCONT', whom: 'client' | 'all'): void;
};

export type ClientOptions = {
  readonly runDir: string;
  readonly args: readonly string[];
  readonly engine: EngineView;
  /** Where its command leaves marks. */
  readonly marks: string;
  readonly project: string;
};

/** Starts it on this machine, once it is published. */
export async function startBackupClient({ runDir, args }: ClientOptions): Promise<ClientProcess> {
  const script = await publishedIn(runDir);
  const child = spawn('sh', [script, ...args], {
    env: { PATH: process.env.PATH },
    detached: true,
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  const err: Buffer[] = [];
  child.stderr.on('data', (chunk: Buffer) => err.push(chunk));
  let exitCode: number | undefined;
  child.once('exit', (code, signal) => {
    exitCode = code ?? (signal === 'SIGKILL' ? 137 : 143);
  });
  const send = (whom: number, name: NodeJS.Signals): void => {
    try {
      process.kill(whom, name);
    } catch {
      // it is gone
    }
  };
  const pid = child.pid ?? 0;
  return {
    exitCode: () => exitCode,
    err: () => Buffer.concat(err).toString(),
    signal: (name, whom) => send(whom === 'all' ? -pid : pid, name),
    async [Symbol.asyncDispose]() {
      send(-pid, 'SIGKILL');
    },
  };
}

/** Starts it in a container. Where the engine is away for good, so is the container. */
export async function startContainerClient(options: ClientOptions): Promise<ClientProcess> {
  const { runDir, args, engine, marks, project } = options;
  await publishedIn(runDir);
  const { Id: id } = await engine.ask<{ readonly Id: string }>('POST', '/containers/create', {
    Image: BUSYBOX,
    Cmd: ['/run/sidehook/sidehook', ...args],
    Labels: { 'faults.client': project },
    HostConfig: { Binds: [`${runDir}:/run/sidehook`, `${marks}:${marks}`], NetworkMode: 'none' },
  });
  await engine.ask('POST', `/containers/${id}/start`);
  let exitCode: number | undefined;
  let text = '';
  const isOver = new AbortController();
  const look = async (): Promise<void> => {
    while (!isOver.signal.aborted && exitCode === undefined) {
      await new Promise((resolve) => setTimeout(resolve, 200));
      const found = await engine
        .ask<{ readonly State: { readonly Status: string; readonly ExitCode: number } }>(
          'GET',
          `/containers/${id}/json`,
        )
        .catch(() => undefined);
      if (found?.State.Status !== 'exited') continue;
      text = await engine.askText('GET', `/containers/${id}/logs?stdout=1&stderr=1`).catch(() => '');
      exitCode = found.State.ExitCode;
    }
  };
  void look();
  return {
    exitCode: () => exitCode,
    err: () => text.replaceAll(/[^\n\x20-\x7e]/g, ''),
    signal: (name) => void engine.ask('POST', `/containers/${id}/kill?signal=${name}`).catch(() => undefined),
    async [Symbol.asyncDispose]() {
      isOver.abort();
      await engine.ask('DELETE', `/containers/${id}?force=1`).catch(() => undefined);
    },
  };
}

async function publishedIn(runDir: string): Promise<string> {
  const script = join(runDir, 'sidehook');
  const isThere = () => readFile(script, 'utf8').catch(() => '');
  await until(isThere, { what: 'the client to be published', deadlineMs: 120_000 });
  return script;
}
