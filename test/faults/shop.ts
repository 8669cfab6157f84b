/** Five workloads of one compose project that depend on one another, one that does not run, and hooks around them. */
import { randomBytes } from 'node:crypto';
import { chmod, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { execa } from 'execa';
import { BUSYBOX } from '../support/images.ts';
import { until } from '../support/until.ts';
import { type EngineView, type Event, type Life, viewEngine } from './engine-view.ts';

/** One workload, as its operator means it. */
export type Service = {
  readonly name: string;
  readonly hold?: 'stop' | 'pause';
  readonly after?: Readonly<Record<string, 'service_healthy' | 'service_started'>>;
  /** Says that it is healthy, some time after its start. */
  readonly hasCheck?: true;
  /** Does not run before the backup, and so not after it. */
  readonly isIdle?: true;
  /** Ends by force alone, after this time. */
  readonly ignoresTermSeconds?: number;
  /** What else compose.yaml says of it. */
  readonly more?: object;
};

/** A chain with a health check, one beside it that is paused, and one that is not held. */
export const FIVE: readonly Service[] = [
  { name: 'db', hold: 'stop', hasCheck: true },
  { name: 'cache', hold: 'pause' },
  { name: 'app', hold: 'stop', after: { db: 'service_healthy', cache: 'service_started' } },
  { name: 'web', hold: 'stop', after: { app: 'service_started' } },
  { name: 'tool' },
  { name: 'idle', hold: 'stop', isIdle: true },
];

/** Of hooks.d: on the host and in a container, with what is held running and with it held. */
export const HOOKS = ['10-host', '20-db', '30-held', '40-tool'] as const;

export type Shop = AsyncDisposable & {
  readonly engine: EngineView;
  /** The compose project. */
  readonly project: string;
  readonly services: readonly Service[];
  /** Ids and names of containers, and what to call them. */
  readonly names: Readonly<Record<string, string>>;
  readonly dir: string;
  readonly hooksDir: string;
  /** What is in it. */
  readonly hooks: readonly string[];
  /** A folder that is for one run alone. */
  makeDir(): Promise<string>;
  lifeOf(service: string): Promise<Life | undefined>;
  lives(): Promise<Lives>;
  /** What became of the containers since a moment, told by their services' names, in order. */
  eventsSince(at: bigint): readonly Event[];
  /** What the hooks wrote: `40-tool pre begin`. */
  calls(): Promise<readonly string[]>;
  forgetCalls(): Promise<void>;
  /** `docker compose …` on the project, with the real plugin. */
  compose(...args: readonly string[]): Promise<void>;
};

/** By service; undefined: there is no such container. */
export type Lives = Readonly<Record<string, Life | undefined>>;

const READY_MS = 120_000;
const COMES_UP = `rm -f /up; trap 'exit 0' TERM; sleep 0.3; : >/up; while :; do sleep 3600 & wait $!; done`;

/** Makes the workloads on an engine that has the image, and waits until all are as they should be. */
export async function openShop(
  socketPath: string,
  services: readonly Service[] = FIVE,
  bindsOf: (dir: string, service: string) => Promise<readonly object[]> = async () => [],
  hooks: readonly string[] = HOOKS,
): Promise<Shop> {
  await using opened = new AsyncDisposableStack();
  const project = `faults-${randomBytes(4).toString('hex')}`;
  const engine = opened.use(viewEngine(socketPath));
  const dir = await mkdtemp(join(tmpdir(), 'sidehook-faults-'));
  opened.defer(() => rm(dir, { recursive: true, force: true }));
  const [hooksDir, workDir] = [join(dir, 'hooks.d'), join(dir, 'work')];
  for (const one of [hooksDir, workDir]) await mkdir(one);
  const callsFile = join(workDir, 'calls');
  await writeFile(callsFile, '');
  await addHooks(hooksDir, callsFile, { project, hooks });

  const file = join(dir, 'compose.json');
  const workBind = { type: 'bind', source: workDir, target: workDir };
  const described = services.map(async (one) => [
    one.name,
    composeOf(one, [workBind, ...(await bindsOf(dir, one.name))]),
  ]);
  const document = { services: Object.fromEntries(await Promise.all(described)) };
  await writeFile(file, JSON.stringify(document).replaceAll('$', '$$$$')); // to compose, a single one is a variable
  const compose = async (...args: readonly string[]): Promise<void> => {
    const argv = ['compose', '--file', file, '--project-name', project, '--profile', 'idle', ...args];
    await execa('docker', argv, { env: { DOCKER_HOST: `unix://${socketPath}` }, stdin: 'ignore' });
  };
  const label = `com.docker.compose.project=${project}`;
  opened.defer(() => removeAll(engine, label));
  const following = opened.use(await engine.follow(label));
  await compose('create', '--pull', 'never');
  await compose('up', '--detach', ...services.filter(({ isIdle }) => isIdle !== true).map(({ name }) => name));

  const nameOf = (service: string): string => `${project}-${service}-1`;
  const ids = new Map<string, string>();
  /** By its id, since it may be renamed; one that was made anew goes by its name. */
  const lifeOf = async (service: string): Promise<Life | undefined> => {
    const id = ids.get(service);
    return (id === undefined ? undefined : await engine.lifeOf(id)) ?? (await engine.lifeOf(nameOf(service)));
  };
  const lives = async (): Promise<Lives> =>
    Object.fromEntries(await Promise.all(services.map(async ({ name }) => [name, await lifeOf(name)])));
  const isReady = async (): Promise<boolean> => isAsMeant(services, await lives());
  await until(isReady, { what: 'the workloads to be up', deadlineMs: READY_MS, everyMs: 200 });
  for (const [name, life] of Object.entries(await lives())) if (life !== undefined) ids.set(name, life.id);

  let runs = 0;
  const owned = opened.move();
  return {
    ...{ engine, project, services, dir, hooksDir, hooks, lifeOf, lives, compose },
    names: Object.fromEntries([
      ...services.flatMap(({ name }) => [
        [ids.get(name) ?? '', name],
        [nameOf(name), name],
      ]),
      [project, 'PROJECT'],
    ]),
    async makeDir() {
      runs += 1;
      const one = join(dir, `run-${runs}`);
      await mkdir(one);
      return one;
    },
    eventsSince: (from) => following.events().filter(({ at }) => at >= from),
    calls: async () => (await readFile(callsFile, 'utf8')).split('\n').slice(0, -1),
    forgetCalls: () => writeFile(callsFile, ''),
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

/** Whether each is as it was meant: up and healthy, or not running at all. `isHealthy`: whether its health counts. */
export function isAsMeant(services: readonly Service[], lives: Lives, isHealthy = true): boolean {
  return services.every(({ name, isIdle, hasCheck }) => {
    const life = lives[name];
    if (life === undefined) return false;
    return isIdle ? !life.isRunning : life.isRunning && (!hasCheck || !isHealthy || life.health === 'healthy');
  });
}

/**
 * A loaded machine may take long until it is up, and for a single check. An engine that died beside it checks no more, and
 * then health is waited for as long as all of this may take: that has to be over before the world is to be in order.
 */
const CHECK = { test: 'test -e /up', interval: '700ms', timeout: '10s', retries: 5, start_period: '60s' };

function composeOf(service: Service, volumes: readonly object[]): object {
  const { hold, after = {}, hasCheck, isIdle, ignoresTermSeconds, more } = service;
  return {
    image: BUSYBOX,
    command: ignoresTermSeconds === undefined ? ['sh', '-c', COMES_UP] : ['sleep', '86400'],
    network_mode: 'none',
    labels: {
      ...(hold === undefined ? {} : { 'sidehook.hold': hold }),
      ...(ignoresTermSeconds === undefined ? {} : { 'sidehook.hold.timeout': `${ignoresTermSeconds}s` }),
    },
    depends_on: Object.fromEntries(Object.entries(after).map(([other, condition]) => [other, { condition }])),
    volumes,
    ...(hasCheck ? { healthcheck: CHECK } : {}),
    ...(isIdle ? { profiles: ['idle'] } : {}),
    ...more,
  };
}

/** At `pre` as long as the client's parameter says, so that the daemon can die in the middle of it. */
const LASTS = 't=$SIDEHOOK_PARAM_LASTS; { [ "$2" = pre ] && [ -n "$t" ]; } || t=0.1; sleep "$t"';

/** One that the client's parameter names. */
const FAILS = '[ "$2" != pre ] || [ "$SIDEHOOK_PARAM_FAIL" != "$SIDEHOOK_HOOK" ] || exit 3';

async function addHooks(
  hooksDir: string,
  callsFile: string,
  { project, hooks }: { readonly project: string; readonly hooks: readonly string[] },
): Promise<void> {
  const headers: Readonly<Record<(typeof HOOKS)[number], string>> = {
    '10-host': 'target=host',
    '20-db': `target=service:${project}/db`,
    '30-held': 'while=held',
    '40-tool': `target=service:${project}/tool while=held`,
  };
  for (const [name, header] of Object.entries(headers).filter(([name]) => hooks.includes(name))) {
    const tell = (what: string) => `echo "$SIDEHOOK_PARAM_AS$SIDEHOOK_HOOK $2 ${what}" >>'${callsFile}'`;
    const lines = [`# sidehook: ${header} on=*.pre,*.post`, tell('begin'), LASTS, tell('end'), FAILS];
    const text = ['#!/bin/sh', ...lines, ''].join('\n');
    await writeFile(join(hooksDir, name), text);
    await chmod(join(hooksDir, name), 0o755);
  }
}

async function removeAll(engine: EngineView, label: string): Promise<void> {
  const filters = encodeURIComponent(JSON.stringify({ label: [label] }));
  const listed = await engine.ask<readonly { readonly Id: string }[]>(
    'GET',
    `/containers/json?all=1&filters=${filters}`,
  );
  await Promise.all(listed.map(({ Id }) => engine.ask('DELETE', `/containers/${Id}?force=1&v=1`)));
}
