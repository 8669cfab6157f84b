/** web -> api -> db, as compose would have made them: each says that it is healthy some time after it started. */
import { composeLabels } from '../drivers/docker-bench.ts';
import { docker, engineHost, openStack, type Stack } from '../support/engine.ts';
import { startClient } from '../support/spool.ts';
import { until } from '../support/until.ts';

/** Comes up slowly, so that who does not wait for its health is found out. */
const SLOWLY = `rm -f /up; trap 'sleep "$END_SECONDS"; exit 0' TERM
  sleep 1; touch /up; while :; do sleep 3600 & wait $!; done`;

/** What the engine says of a container's life; moments in its own words, which sort as text. */
export type Life = {
  readonly Running: boolean;
  readonly StartedAt: string;
  readonly FinishedAt: string;
  readonly Health?: { readonly Status: string };
};

export type Service = {
  readonly name: string;
  readonly after?: string;
  readonly held?: false;
  readonly endSeconds?: number;
};

/** What became of a container: `die`, `start`, `health_status: healthy`; the moment in nanoseconds. */
export type Event = { readonly service: string; readonly what: string; readonly at: bigint };

export type Project = AsyncDisposable & {
  readonly stack: Stack;
  lifeOf(service: string): Promise<Life>;
  runs(...services: readonly string[]): Promise<boolean>;
  untilRunning(...services: readonly string[]): Promise<void>;
  untilStopped(...services: readonly string[]): Promise<void>;
  /** Follows what becomes of the containers from now on; gives what has come so far, in order. */
  events(): () => readonly Event[];
};

/** Starts the services, and waits until all are healthy. */
export async function openServices(services: readonly Service[]): Promise<Project> {
  await using opened = new AsyncDisposableStack();
  const stack = opened.use(await openStack('whole'));
  await Promise.all(
    services.map(({ name, after, held, endSeconds = 0 }) => {
      const dependsOn: Record<string, string> =
        after === undefined ? {} : { 'com.docker.compose.depends_on': `${after}:service_healthy:false` };
      const hold: Record<string, string> = held === false ? {} : { 'sidehook.hold': 'stop' };
      return stack.run({
        name,
        env: { END_SECONDS: String(endSeconds) },
        args: ['sh', '-c', SLOWLY],
        labels: { ...composeLabels(stack.name, name), ...dependsOn, ...hold },
        flags: ['--health-cmd', 'test -e /up', '--health-interval', '300ms', '--health-retries', '20'],
      });
    }),
  );

  const lifeOf = async (service: string): Promise<Life> =>
    JSON.parse(await docker('inspect', '--format', '{{json .State}}', stack.named(service)));
  const all = async (names: readonly string[], is: (life: Life) => boolean): Promise<boolean> =>
    (await Promise.all(names.map(lifeOf))).every(is);
  const isRunning = ({ Running }: Life) => Running;
  await until(
    () =>
      all(
        services.map(({ name }) => name),
        ({ Health }) => Health?.Status === 'healthy',
      ),
    {
      what: 'all services to be healthy',
      deadlineMs: 60_000,
      everyMs: 200,
    },
  );

  const owned = opened.move();
  return {
    stack,
    lifeOf,
    runs: (...names) => all(names, isRunning),
    untilRunning: async (...names) =>
      void (await until(() => all(names, isRunning), { what: `${names} to run`, deadlineMs: 60_000, everyMs: 200 })),
    untilStopped: async (...names) =>
      void (await until(() => all(names, (life) => !life.Running), {
        ...{ what: `${names} to be stopped`, deadlineMs: 60_000, everyMs: 100 },
      })),
    events() {
      // Followed rather than asked for afterwards: the engine remembers 256, and health checks make three each time.
      const kinds = ['kill', 'die', 'start', 'health_status'].flatMap((kind) => ['--filter', `event=${kind}`]);
      const filters = ['--filter', 'type=container', '--filter', `label=${stack.label}`, ...kinds];
      const since = ['--since', (Date.now() / 1000).toFixed(3)];
      const client = startClient(['docker', 'events', ...since, ...filters, '--format', '{{json .}}'], {
        env: { DOCKER_HOST: engineHost() },
      });
      owned.defer(client.endAll);
      return () => client.out().split('\n').slice(0, -1).map(parseEvent);
    },
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };

  function parseEvent(line: string): Event {
    const { Action, Actor } = JSON.parse(line) as { Action: string; Actor: { Attributes: { name: string } } };
    const at = BigInt(/"timeNano":(\d+)/.exec(line)?.[1] ?? 0); // too large for a number
    return { service: Actor.Attributes.name.slice(stack.name.length + 1), what: Action, at };
  }
}
