/** compose.yaml, up and running from a copy of what it needs, with a hand on all of it. */
import { cp, mkdtempDisposable } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { execa } from 'execa';
import { docker, engineSocket, openStack } from '../support/engine.ts';
import { ensureImage } from '../support/images.ts';
import { ensureDockerCli } from '../support/install.ts';

const ROOT = resolve(import.meta.dirname, '../..');
const COMMAND_MS = 150_000;

export type Ended = { readonly exitCode: number | undefined; readonly stdout: string; readonly stderr: string };

/** What the engine says of a container's life; moments in its own words, which sort as text and parse as dates. */
export type Life = {
  readonly Running: boolean;
  readonly StartedAt: string;
  readonly FinishedAt: string;
  readonly Health?: { readonly Status: string };
};

export type Project = AsyncDisposable & {
  readonly name: string;
  /** Holds copies of compose.yaml, docker/ and examples/, and a dist made for them. */
  readonly dir: string;
  /** `docker compose ...`, however it ends. */
  compose(...args: readonly string[]): Promise<Ended>;
  /** The same; rejects when it fails. Resolves to standard output. */
  must(...args: readonly string[]): Promise<string>;
  /** The one container of a service. */
  idOf(service: string): Promise<string>;
  lifeOf(service: string): Promise<Life>;
  /** From now on, which containers are started: the names of those so far. */
  starts(): Promise<() => Promise<readonly string[]>>;
};

/** Builds the image in a folder of its own and gets the project ready; starts nothing. */
export async function openProject(): Promise<Project> {
  await using stack = new AsyncDisposableStack();
  const docked = stack.use(await openStack('compose'));
  const { path: dir } = stack.use(await mkdtempDisposable(join(tmpdir(), 'sidehook-compose-')));
  for (const name of ['compose.yaml', 'docker', 'examples']) {
    await cp(join(ROOT, name), join(dir, name), { recursive: true });
  }
  await execa(process.execPath, [join(ROOT, 'docker/build.ts'), join(dir, 'dist')]);

  const image = `${docked.name}:test`;
  const env = {
    ...(await ensureDockerCli(['compose', 'buildx'])),
    DOCKER_SOCKET: engineSocket(),
    POSTGRES_IMAGE: await ensureImage('postgres:17-alpine'),
    RESTIC_IMAGE: await ensureImage('restic/restic:latest'),
    NODE_IMAGE: await ensureImage('node:26-alpine'),
    SIDEHOOK_IMAGE: image,
  };
  const override = join(ROOT, 'test/system/compose.override.yaml');
  const files = ['--file', join(dir, 'compose.yaml'), '--file', override, '--project-directory', dir];

  async function compose(...args: readonly string[]): Promise<Ended> {
    const all = ['compose', ...files, '--project-name', docked.name, '--ansi', 'never', ...args];
    const ended = await execa('docker', all, { env, reject: false, stdin: 'ignore', timeout: COMMAND_MS });
    const { exitCode, stdout, stderr, timedOut } = ended;
    if (timedOut) throw new Error(`docker compose ${args.join(' ')}: no end after ${COMMAND_MS} ms: ${stderr}`);
    return { exitCode, stdout, stderr };
  }
  async function must(...args: readonly string[]): Promise<string> {
    const { exitCode, stdout, stderr } = await compose(...args);
    if (exitCode !== 0) throw new Error(`docker compose ${args.join(' ')}: ${stderr} (exit code ${exitCode})`);
    return stdout;
  }
  const idOf = (service: string): Promise<string> => must('ps', '--all', '--quiet', service);

  await must('build', '--quiet', 'sidehook');
  stack.defer(async () => void (await docker('rmi', '--force', image)));
  stack.defer(
    async () => void (await compose('--profile', '*', 'down', '--remove-orphans', '--volumes', '--timeout', '5')),
  );
  const owned = stack.move();
  return {
    name: docked.name,
    dir,
    compose,
    must,
    idOf,
    lifeOf: async (service) => JSON.parse(await docker('inspect', '--format', '{{json .State}}', await idOf(service))),
    async starts() {
      const since = await docker('info', '--format', '{{.SystemTime}}');
      const label = `label=com.docker.compose.project=${docked.name}`;
      const filters = ['type=container', 'event=start', label].flatMap((filter) => ['--filter', filter]);
      return async () => {
        const until = await docker('info', '--format', '{{.SystemTime}}');
        const format = ['--format', '{{.Actor.Attributes.name}}'];
        const text = await docker('events', '--since', since, '--until', until, ...filters, ...format);
        return text.split('\n').filter(Boolean);
      };
    },
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}
