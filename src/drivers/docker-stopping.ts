/** What else of the sidecar's project is being stopped: whether `compose stop` is at work, or somebody stops us alone. */
import { OperationalError } from '../core/errors.ts';
import type { WorkloadKey } from '../core/workload.ts';
import { inspectContainer } from './docker-find.ts';
import { findSharedPlace, sharesPlace } from './docker-guard.ts';
import type { Lookout } from './docker-look.ts';
import * as own from './docker-workload.ts';

/** Longer than the ten seconds that compose gives a client before it stops the sidecar that it depends on. */
const LAST_MOMENTS_MS = 15_000;
/** The signals that ask for something else than an end: HUP, USR1, USR2. And KILL, by which nobody stops a project. */
const NO_STOPS = ['1', '9', '10', '12'];

/** One event, as far as we read it. */
type Event = {
  readonly Action?: string;
  readonly Actor?: { readonly ID?: string; readonly Attributes?: Readonly<Record<string, string>> };
};

/**
 * `Driver.findStopping`, from the engine's own events, past and to come: the engine that made our container has our
 * clock. It remembers the last 256.
 */
export async function findStopping(
  lookout: Lookout,
  except: readonly WorkloadKey[],
  forMs: number,
  signal: AbortSignal,
): Promise<string | undefined> {
  const self = await lookout.findSelf(signal);
  if (self.kind !== 'container') return undefined;
  const { Id: selfId, Config } = self.container;
  const project = Config.Labels?.[own.PROJECT_LABEL];
  if (project === undefined) return undefined;

  const stopping = new Map<string, string>();
  for await (const { Action, Actor } of events(lookout, project, forMs, signal)) {
    const { ID: id = '', Attributes: attributes = {} } = Actor ?? {};
    const { name = id } = attributes;
    if (id === selfId || own.isOneOff(attributes) || except.includes(own.keyOf(name, attributes))) continue;
    if (Action === 'start') stopping.delete(id);
    else if (Action === 'stop' || !NO_STOPS.includes(attributes.signal ?? '')) stopping.set(id, name);
  }
  const place = await findSharedPlace(self, lookout.runDir);
  for (const [id, name] of stopping) {
    const container = await inspectContainer(lookout.api, id, signal);
    if (container === undefined || !sharesPlace(container, place)) return name;
  }
  return undefined;
}

async function* events(lookout: Lookout, project: string, forMs: number, signal: AbortSignal): AsyncGenerator<Event> {
  const label = [`${own.PROJECT_LABEL}=${project}`];
  const filters = JSON.stringify({ type: ['container'], event: ['kill', 'stop', 'start'], label });
  const [since, until] = [-LAST_MOMENTS_MS, forMs].map((ms) => ((Date.now() + ms) / 1000).toFixed(3));
  const query = { filters, since: `${since}`, until: `${until}` };
  const doing = 'look what else is being stopped';
  const stream = await lookout.api.open({ doing, path: '/events', query, signal });
  let rest = '';
  try {
    for await (const piece of stream.setEncoding('utf8')) {
      const lines = `${rest}${piece}`.split('\n');
      rest = lines.pop() ?? '';
      yield* lines.filter((line) => line !== '').map((line) => JSON.parse(line) as Event);
    }
  } catch (cause) {
    signal.throwIfAborted();
    throw new OperationalError('engine-unavailable', `${doing}: the engine's events broke off`, { cause });
  }
}
