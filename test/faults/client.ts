/** The client: a process of this machine, or in a container that shares the run directory. */
import { spawn } from 'node:child_process';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { BUSYBOX } from '../support/images.ts';
import { until } from '../support/until.ts';
import type { EngineView } from './engine-view.ts';

/**
 * The published sh client, on this machine or in a container; the same where there is no mkfifo, so that its lease is a
 * number that grows; or the CLI, over the socket.
 */
export type ClientKind = 'sh' | 'container' | 'no-fifo' | 'cli';

export type ClientProcess = AsyncDisposable & {
  /** Its exit code, as a shell tells it; undefined: it still runs. */
  exitCode(): number | undefined;
  err(): string;
  /** In a container there is but one whom a signal can be sent to. */
  signal(name: 'SIGKILL' | 'SIGSTOP' | 'SIGCONT', whom: 'client' | 'all'): void;
};

type ClientOptions = {
  readonly kind: ClientKind;
  readonly runDir: string;
  /** Its own. */
  readonly dir: string;
  readonly args: readonly string[];
  readonly engine: EngineView;
  /** Where its command leaves marks. */
  readonly marks: string;
  readonly project: string;
};

const MAIN = resolve(import.meta.dirname, '../../src/main.ts');

/** Starts it. Its directory is to be there: `published`. */
export function startClient(options: ClientOptions): Promise<ClientProcess> {
  return options.kind === 'container' ? startInContainer(options) : startHere(options);
}

async function startHere({ kind, runDir, dir, args }: ClientOptions): Promise<ClientProcess> {
  const path = kind === 'no-fifo' ? `${await withoutFifos(dir)}:${process.env.PATH}` : process.env.PATH;
  const [program, ...given] =
    kind === 'cli' ? [process.execPath, MAIN, ...args] : ['sh', join(runDir, 'sidehook'), ...args];
  const child = spawn(program ?? '', given, {
    env: { PATH: path, SIDEHOOK_DIR: runDir },
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

/** A folder for PATH, in which mkfifo fails. */
async function withoutFifos(dir: string): Promise<string> {
  const bin = join(dir, 'bin');
  await mkdir(bin);
  await writeFile(join(bin, 'mkfifo'), '#!/bin/sh\nexit 1\n', { mode: 0o755 });
  return bin;
}

/** Where the engine is away for good, so is the container. */
async function startInContainer({ runDir, args, engine, marks, project }: ClientOptions): Promise<ClientProcess> {
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

/** Waits until the sidecar has published the client. */
export async function published(runDir: string): Promise<void> {
  const isThere = () => readFile(join(runDir, 'sidehook'), 'utf8').catch(() => '');
  await until(isThere, { what: 'the client to be published', deadlineMs: 120_000 });
}
