import { type ChildProcess, type SpawnOptions, spawn } from 'node:child_process';
import { join, resolve } from 'node:path';
import { until } from './until.ts';

const MAIN = resolve(import.meta.dirname, '../../src/main.ts');

/** A `sidehook …` that runs. Ended, if it still runs, with what disposes of it. */
export type Cli = AsyncDisposable & {
  readonly child: ChildProcess;
  out(): string;
  err(): string;
  /** Waits until standard error (or output) has this text. */
  said(text: string | RegExp): Promise<void>;
  /** As a shell sees it: 128 + N for a signal. Resolves when all its output is here, too. */
  readonly ended: Promise<number>;
};

const SIGNAL_NUMBERS: Readonly<Record<string, number>> = { SIGHUP: 1, SIGINT: 2, SIGKILL: 9, SIGTERM: 15 };

/** Starts the real CLI in an environment of its own. */
export function startCli(
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
  options: SpawnOptions = {},
): Cli {
  const child = spawn(process.execPath, [MAIN, ...args], {
    env: { PATH: process.env.PATH ?? '', ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
    ...options,
  });
  const texts = { out: '', err: '' };
  child.stdout?.on('data', (chunk) => {
    texts.out += String(chunk);
  });
  child.stderr?.on('data', (chunk) => {
    texts.err += String(chunk);
  });
  let isEnded = false;
  const ended = new Promise<number>((settle) => {
    child.once('close', (code, name) => {
      isEnded = true;
      settle(code ?? 128 + (SIGNAL_NUMBERS[name ?? ''] ?? 0));
    });
  });
  return {
    child,
    ended,
    out: () => texts.out,
    err: () => texts.err,
    said: async (text) => {
      const has = (all: string): boolean => (typeof text === 'string' ? all.includes(text) : text.test(all));
      const isSaid = (): boolean => has(texts.err) || has(texts.out);
      await until(() => isSaid() || isEnded, { what: `${text}, in ${JSON.stringify(texts)}` });
      if (!isSaid()) throw new Error(`ended without ${text}: ${JSON.stringify(texts)}`);
    },
    async [Symbol.asyncDispose]() {
      child.kill('SIGCONT');
      child.kill('SIGKILL');
      await ended;
    },
  };
}

/** The last line on standard error. */
export function lastLine(text: string): string {
  return text.trimEnd().split('\n').at(-1) ?? '';
}

/** A shell line for a command: writes WORD to a file in `dir`, then waits, a minute at most, for the file `go`. */
export function waitingCommand(dir: string): string[] {
  const [begun, go] = [join(dir, 'begun'), join(dir, 'go')];
  return [
    'sh',
    '-c',
    `echo $$ > ${begun}.part; mv ${begun}.part ${begun}; i=0; while ! [ -e ${go} ] && [ $i -lt 1200 ]; do i=$((i+1)); sleep 0.05; done`,
  ];
}
