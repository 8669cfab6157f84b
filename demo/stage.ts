/** Where the demo takes place: a temporary folder, a sidecar, and somebody who says what is seen. */
import { chmod, mkdir, mkdtemp, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { execa } from 'execa';

const MAIN = resolve(import.meta.dirname, '../src/main.ts');
const START_MS = 30_000;
const COMMAND_MS = 60_000;
const INTERRUPTED = 'it was interrupted';

export type Stage = AsyncDisposable & {
  /** The folder of this demo; goes with it. */
  readonly dir: string;
  /** Begins a chapter. */
  title(text: string): void;
  say(text: string): void;
  /** Says what was promised and whether it is so; the demo fails in the end if it is not. */
  check(promise: string, isKept: boolean): void;
  /** Writes an executable file and shows it. */
  script(path: string, text: string): Promise<void>;
  /** Shows a command, runs it, shows what it says, and resolves to its exit code. */
  run(command: string, options?: { readonly cwd?: string }): Promise<number>;
  finish(): void;
};

/** Opens the stage. Disposing of it removes all traces. */
export async function openStage(): Promise<Stage> {
  const dir = await mkdtemp(join(tmpdir(), 'sidehook-demo-'));
  const broken: string[] = [];
  for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    // The rest is short, and cleans up behind itself; who cannot wait sends it once more
    process.on(name, () => {
      if (broken.includes(INTERRUPTED)) process.exit(1);
      broken.push(INTERRUPTED);
      console.log('(interrupted: ending in order)');
    });
  }
  const show = (text: string): void => console.log(text.trimEnd().replaceAll(/^/gm, '    | '));
  return {
    dir,
    title: (text) => console.log(`\n== ${text}\n`),
    say: (text) => console.log(text),
    check(promise, isKept) {
      if (!isKept) broken.push(promise);
      console.log(`  ${isKept ? 'ok ' : 'NOT'} ${promise}`);
    },
    async script(path, text) {
      await writeFile(path, text);
      await chmod(path, 0o755);
      console.log(`  ${path.slice(dir.length + 1)}:`);
      show(text);
    },
    async run(command, { cwd = dir } = {}) {
      console.log(`  $ ${command}`);
      const options = { cwd, all: true, reject: false, stdin: 'ignore', timeout: COMMAND_MS } as const;
      const { all, exitCode, signal, timedOut } = await execa('sh', ['-c', command], options);
      if (all !== '') show(all);
      if (timedOut) throw new Error(`${command}: no end after ${COMMAND_MS / 1000} s`);
      console.log(`    exit code ${exitCode ?? signal}\n`);
      return exitCode ?? 255;
    },
    finish() {
      console.log(broken.length === 0 ? '\nAll as promised.' : `\nNot as promised:\n  ${broken.join('\n  ')}`);
      process.exitCode = broken.length === 0 ? 0 : 1;
    },
    [Symbol.asyncDispose]: () => rm(dir, { recursive: true, force: true, maxRetries: 3 }),
  };
}

/** Starts a sidecar with folders of its own below `dir`, and waits until it takes signals. */
export async function openSidecar(
  dir: string,
  settings: Readonly<Record<string, string>>,
  env: Readonly<Record<string, string>> = {},
): Promise<AsyncDisposable> {
  const names = { 'run-dir': 'run', 'state-dir': 'state', 'hooks-dir': 'hooks.d' };
  const flags = Object.entries(settings).map(([name, value]) => `--${name}=${value}`);
  for (const [flag, name] of Object.entries(names)) {
    await mkdir(join(dir, name), { recursive: true });
    flags.push(`--${flag}=${join(dir, name)}`);
  }
  const child = execa(process.execPath, [MAIN, 'serve', ...flags], {
    env,
    reject: false,
    all: true,
    stdin: 'ignore',
  });
  let isOver = false;
  const ended = child.then(() => {
    isOver = true;
  });
  const close = async (): Promise<void> => {
    child.kill();
    await ended;
  };
  const deadline = performance.now() + START_MS;
  while (!(await isThere(join(dir, 'run/sidehook')))) {
    if (isOver || performance.now() > deadline) {
      await close();
      throw new Error(`the sidecar did not start:\n${(await child).all}`);
    }
    await pause(50);
  }
  return { [Symbol.asyncDispose]: close };
}

/** Whether there is such a file. */
export function isThere(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  );
}
