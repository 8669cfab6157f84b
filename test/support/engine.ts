/** The Docker engine of this test run: what a test says to it, and how it cleans up behind itself. */
import { randomBytes } from 'node:crypto';
import { execa } from 'execa';
import { BUSYBOX, ensureImage } from './images.ts';

/** DOCKER_HOST as `test/run.ts` set it. */
export function engineHost(): string {
  return process.env.DOCKER_HOST ?? 'unix:///var/run/docker.sock';
}

/** The engine's socket on this machine, for dockerode, and to be mounted into a container. */
export function engineSocket(): string {
  const host = engineHost();
  if (!host.startsWith('unix://')) throw new Error(`find the engine's socket: DOCKER_HOST is ${host}`);
  return host.slice('unix://'.length);
}

/** Runs the docker command line and resolves to its output, trimmed. Rejects with what it said on standard error. */
export async function docker(...args: readonly string[]): Promise<string> {
  const { failed, exitCode, stdout, stderr, shortMessage } = await execa('docker', args, {
    reject: false,
    stdin: 'ignore',
  });
  if (failed) throw new Error(`docker ${args.join(' ')}: ${stderr || shortMessage} (exit code ${exitCode})`);
  return stdout;
}

export type ContainerOptions = {
  readonly name?: string;
  readonly image?: string;
  /** The command; by default one that waits, and ends at once on SIGTERM. */
  readonly args?: readonly string[];
  readonly labels?: Readonly<Record<string, string>>;
  readonly env?: Readonly<Record<string, string>>;
  /** As for `--volume`: `SOURCE:TARGET[:ro]`. */
  readonly volumes?: readonly string[];
  readonly network?: string;
  readonly user?: string;
  /** Any other options of `docker run`. */
  readonly flags?: readonly string[];
};

/** What one test makes on the engine. All of it is removed when it is disposed of, after a failure too. */
export type Stack = AsyncDisposable & {
  /** Unique on the engine; fit for a compose project, whose things are then removed as well. */
  readonly name: string;
  /** `KEY=VALUE`, on all that the stack makes. */
  readonly label: string;
  /** A unique name for something of this stack. */
  named(name: string): string;
  /** Starts a container and resolves to its id. */
  run(options?: ContainerOptions): Promise<string>;
  /** Makes a container that is never started, and resolves to its id. */
  make(): Promise<string>;
  /** Makes a volume and resolves to its name. */
  volume(name: string): Promise<string>;
  /** Makes a network and resolves to its name. */
  network(name: string): Promise<string>;
};

const WAIT = ['sh', '-c', 'trap "exit 0" TERM; while :; do sleep 3600 & wait $!; done'];

/** Opens a stack of containers, volumes and networks of this test alone; `prefix` says which test it was. */
export async function openStack(prefix: string): Promise<Stack> {
  const name = `${prefix}-${randomBytes(4).toString('hex')}`;
  const label = `test.stack=${name}`;
  const named = (part: string) => `${name}-${part}`;

  async function run({ image = BUSYBOX, args = WAIT, name: part, ...rest }: ContainerOptions = {}): Promise<string> {
    if (image === BUSYBOX) await ensureImage(BUSYBOX);
    const flags = [
      ...(part === undefined ? [] : ['--name', named(part)]),
      ...pairs('--label', rest.labels),
      ...pairs('--env', rest.env),
      ...(rest.volumes ?? []).flatMap((volume) => ['--volume', volume]),
      ...(rest.network === undefined ? [] : ['--network', rest.network]),
      ...(rest.user === undefined ? [] : ['--user', rest.user]),
      ...(rest.flags ?? []),
    ];
    return docker('run', '--detach', '--label', label, ...flags, image, ...args);
  }

  async function create(kind: 'volume' | 'network', part: string): Promise<string> {
    await docker(kind, 'create', '--label', label, named(part));
    return named(part);
  }

  return {
    name,
    label,
    named,
    run,
    make: async () => docker('create', '--label', label, await ensureImage(BUSYBOX)),
    volume: (part) => create('volume', part),
    network: (part) => create('network', part),
    async [Symbol.asyncDispose]() {
      for (const filter of [label, `com.docker.compose.project=${name}`]) await removeAll(filter);
    },
  };
}

function pairs(flag: string, values: Readonly<Record<string, string>> = {}): readonly string[] {
  return Object.entries(values).flatMap(([key, value]) => [flag, `${key}=${value}`]);
}

/** Removes everything with a label, by asking the engine, so that also what a crashed test forgot is found. */
async function removeAll(label: string): Promise<void> {
  const listed = async (...args: readonly string[]) =>
    (await docker(...args, '--quiet', '--filter', `label=${label}`)).split('\n').filter(Boolean);
  const removals = [
    [
      ['ps', '--all'],
      ['rm', '--force', '--volumes'],
    ],
    [
      ['network', 'ls'],
      ['network', 'rm'],
    ],
    [
      ['volume', 'ls'],
      ['volume', 'rm', '--force'],
    ],
  ] as const;
  for (const [list, remove] of removals) {
    const ids = await listed(...list);
    if (ids.length > 0) await docker(...remove, ...ids);
  }
}
