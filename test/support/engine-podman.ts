import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { execa } from 'execa';
import { answers } from './engine-private.ts';
import { installPackages } from './install.ts';
import { until } from './until.ts';

const START_MS = 60_000;

/** What a machine without systemd, and a container that may not raise limits, let Podman work with. */
const CONF = `
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
`;

/** Namespaces and places of its own: another Podman beside it, or a second run, neither sees nor disturbs it. */
const INSIDE = `
for place in /run /dev/shm /var/lib/cni; do mkdir -p $place && mount -t tmpfs tmpfs $place || exit; done
ip link set lo up
cd "$1" && exec podman --root "$1/data" --runroot "$1/run" --tmpdir "$1/tmp" --storage-driver vfs \\
  system service --time=0 "unix://$1/podman.sock"
`;

/** Podman's Docker API on a socket of its own. */
export type Podman = AsyncDisposable & { readonly host: string };

/** Starts a throw-away Podman, installed first if need be. Needs root. It ends, containers included, when we do. */
export async function openPodman(): Promise<Podman> {
  for (const program of ['podman', 'runc', '/usr/lib/cni/bridge', 'iptables', 'ip']) {
    const { failed, exitCode } = await execa(program, ['--version'], { reject: false, stdin: 'ignore' });
    if (failed && exitCode === undefined) {
      await installPackages('podman', 'catatonit', 'runc', 'containernetworking-plugins', 'iptables', 'iproute2');
      break;
    }
  }
  const dir = await mkdtemp(join(tmpdir(), 'podman-'));
  const host = `unix://${join(dir, 'podman.sock')}`;
  await writeFile(join(dir, 'containers.conf'), CONF);
  const namespaces = ['unshare', '--mount', '--pid', '--net', '--fork', '--kill-child', '--mount-proc'];
  const podman = execa('setpriv', ['--pdeathsig', 'KILL', ...namespaces, 'sh', '-c', INSIDE, 'sh', dir], {
    env: { CONTAINERS_CONF: join(dir, 'containers.conf') },
    ...{ reject: false, stdin: 'ignore', all: true, cleanup: false },
  });
  let isOver = false;
  const ended = podman.finally(() => {
    isOver = true;
  });
  const close = async (): Promise<void> => {
    podman.kill('SIGKILL');
    await ended;
    await rm(dir, { recursive: true, force: true });
  };
  await until(async () => isOver || (await answers(host)), { what: 'podman to answer', deadlineMs: START_MS });
  if (isOver) throw new Error(`start a throw-away Podman:\n${(await ended).all}`);
  return { host, [Symbol.asyncDispose]: close };
}
