import { copyFile, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { execa } from 'execa';
import { unpackedPackage } from './install.ts';
import { until } from './until.ts';

const LEASH = join(import.meta.dirname, 'engine-leash.sh');
const START_MS = 60_000;

/** A Docker engine of our own, on a leash (engine-leash.sh). Another one next to it neither sees nor disturbs it. */
export type PrivateEngine = AsyncDisposable & {
  /** For DOCKER_HOST. The socket is gone while the daemon is down, and has the same path when it is back. */
  readonly host: string;
  readonly socketPath: string;
  /** The daemon is gone for good, by its own will or ours. Never rejects. */
  readonly ended: Promise<unknown>;
  /** Ends the daemon and waits for that. SIGTERM stops the containers first; with SIGKILL they outlive it. */
  stopDaemon(signal: 'SIGTERM' | 'SIGKILL'): Promise<void>;
  /** Starts the daemon over the same data; containers restart as their policies say. */
  startDaemon(): Promise<void>;
  /** Ends every process of the engine at once, as a power failure does, and boots it anew over the same data. */
  cutPower(): Promise<void>;
};

/** Starts a throw-away engine. Needs root and dockerd. What it leaves when it cannot start is only the thrown error. */
export async function openPrivateEngine(daemonOptions: readonly string[] = []): Promise<PrivateEngine> {
  const busybox = join(await unpackedPackage('busybox-static'), 'bin/busybox');
  const dir = await mkdtemp(join(tmpdir(), 'sidehook-engine-'));
  await copyFile(busybox, join(dir, 'busybox'));
  await writeFile(join(dir, 'daemon.json'), '{}');
  const socketPath = join(dir, 'docker.sock');
  const host = `unix://${socketPath}`;
  let leash = holdLeash(dir, daemonOptions);

  async function startDaemon(): Promise<void> {
    await rm(join(dir, 'ended'), { force: true }); // an earlier daemon's; read in time, it would be taken for this one's
    leash.stdin.write('start\n');
    const isSettled = async () => (await answers(host)) || leash.isOver() || isThere(join(dir, 'ended'));
    await until(isSettled, { what: `dockerd to start`, deadlineMs: START_MS });
    if (!(await answers(host))) throw new Error(`dockerd ended at once:\n${await tailOf(join(dir, 'log'))}`);
  }

  async function stopDaemon(signal: 'SIGTERM' | 'SIGKILL'): Promise<void> {
    leash.stdin.write(`signal ${signal.slice('SIG'.length)}\n`);
    await until(() => isThere(join(dir, 'ended')), { what: 'the engine to end', deadlineMs: START_MS });
  }

  async function cutPower(): Promise<void> {
    leash.stdin.end('cut\n');
    await leash.ended;
    // On a real machine it lies in memory. Left, its process ids would be taken for those of what runs after the boot.
    await rm(join(dir, 'exec'), { recursive: true, force: true });
    leash = holdLeash(dir, daemonOptions);
    await startDaemon();
  }

  async function close(): Promise<void> {
    leash.stdin.end();
    await leash.ended;
  }

  try {
    await startDaemon();
  } catch (error) {
    const log = await tailOf(join(dir, 'log'));
    await close();
    throw new Error(`start a throw-away engine; the end of dockerd's log:\n${log}`, { cause: error });
  }
  return {
    host,
    socketPath,
    get ended() {
      return leash.ended;
    },
    startDaemon,
    stopDaemon,
    cutPower,
    [Symbol.asyncDispose]: close,
  };
}

/** Why `openPrivateEngine` cannot work here, for a test's `skip`; false where it can. */
export async function whyNoPrivateEngine(): Promise<string | false> {
  if (process.getuid?.() !== 0) return 'a throw-away engine needs root';
  const { failed } = await execa('dockerd', ['--version'], { reject: false });
  return failed && 'a throw-away engine needs dockerd';
}

function holdLeash(dir: string, daemonOptions: readonly string[]) {
  const name = basename(dir);
  const options = {
    host: `unix://${join(dir, 'docker.sock')}`,
    'data-root': join(dir, 'data'),
    'exec-root': join(dir, 'exec'),
    pidfile: join(dir, 'docker.pid'),
    'config-file': join(dir, 'daemon.json'), // or the machine's own daemon.json would have its say
    'cgroup-parent': `/${name}`, // so that ours are told from others and can be removed
    'exec-opt': 'native.cgroupdriver=cgroupfs', // systemd would be told process ids of our namespace
    label: `sidehook.test=${name}`,
  };
  const args = Object.entries(options).map(([key, value]) => `--${key}=${value}`);
  // Detached: the terminal's Ctrl-C is for the run, not for the engine under it
  const child = execa(LEASH, [dir, ...args, ...daemonOptions], {
    stdin: 'pipe',
    stdout: 'inherit',
    stderr: 'inherit',
    detached: true,
    cleanup: false,
    reject: false,
  });
  child.stdin.on('error', () => undefined); // EPIPE: `ended` tells
  let over = false;
  const ended = child.then(() => {
    over = true;
  });
  return { stdin: child.stdin, ended, isOver: () => over };
}

/** Whether an engine answers at `host`, for the docker command line as for everyone else. */
export async function answers(host: string): Promise<boolean> {
  const { failed } = await execa('docker', ['version'], {
    env: { DOCKER_HOST: host },
    reject: false,
    stdio: 'ignore',
    timeout: 10_000,
  });
  return !failed;
}

async function tailOf(file: string): Promise<string> {
  const text = await readFile(file, 'utf8').catch(() => 'no log');
  return text.trim().split('\n').slice(-25).join('\n');
}

async function isThere(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  );
}
