/** Finds a container again, after it was made anew too. */
import { OperationalError } from '../core/errors.ts';
import type { WorkloadRef } from '../core/workload.ts';
import type { Api } from './docker-api.ts';
import {
  type Inspected,
  keyOf,
  type Listed,
  NUMBER_LABEL,
  nameOf,
  PROJECT_LABEL,
  SERVICE_LABEL,
} from './docker-workload.ts';

/**
 * Every container that carries all of these labels, or that the other filters match, running or not.
 * @throws OperationalError `engine-unavailable`, `refused`
 */
export async function listContainers(
  api: Api,
  filters: Readonly<Record<string, readonly string[]>>,
  signal: AbortSignal,
): Promise<readonly Listed[]> {
  const query = { all: 'true', filters: JSON.stringify(filters) };
  const { body } = await api.ask({ doing: 'list containers', path: '/containers/json', query, signal });
  return Array.isArray(body) ? (body as readonly Listed[]) : [];
}

/**
 * One container by its id or name; undefined: there is none. `name` is what messages call it.
 * @throws OperationalError `engine-unavailable`, `refused`
 */
export async function inspectContainer(
  api: Api,
  idOrName: string,
  signal: AbortSignal,
  name = idOrName,
): Promise<Inspected | undefined> {
  const path = `/containers/${encodeURIComponent(idOrName)}/json`;
  const question = { doing: `inspect container ${name}`, path, accept: [404], signal };
  const answer = await api.ask(question).catch((error: unknown) => {
    if (error instanceof OperationalError && NO_SUCH.test(error.message)) return undefined;
    throw error;
  });
  return answer === undefined || answer.status === 404 ? undefined : (answer.body as Inspected);
}

/** Podman says so with 500 while it removes one. */
const NO_SUCH = /no such container/i;

/**
 * The instance while it exists, else the container that took its place; undefined: neither is there.
 * @throws OperationalError `engine-unavailable`, `refused`
 */
export async function findContainer(api: Api, ref: WorkloadRef, signal: AbortSignal): Promise<Inspected | undefined> {
  const same = await inspectContainer(api, ref.instance, signal, ref.name);
  if (same !== undefined) return same;
  const heirs = (await listByKey(api, ref.key, signal)).toSorted(byPreference);
  for (const { Id } of heirs) {
    const heir = await inspectContainer(api, Id, signal, ref.name);
    if (heir !== undefined) return heir;
  }
  return undefined;
}

/** All containers with this key. Compose has two of them for a moment while it makes one anew. */
export async function listByKey(api: Api, key: string, signal: AbortSignal): Promise<readonly Listed[]> {
  const named = /^container:(.+)$/.exec(key)?.[1];
  if (named !== undefined) {
    const found = await inspectContainer(api, named, signal);
    // The engine also takes the beginning of an id for a name.
    return found?.Name === `/${named}` || found?.Name === named ? [{ Id: found.Id, Names: [found.Name] }] : [];
  }
  const [project = '', service = '', number = ''] = key.split('/');
  const label = [`${PROJECT_LABEL}=${project}`, `${SERVICE_LABEL}=${service}`, `${NUMBER_LABEL}=${number}`];
  const listed = await listContainers(api, { label }, signal);
  return listed.filter((container) => keyOf(nameOf(container), container.Labels ?? {}) === key);
}

/** Of containers with the same key, the one that runs comes first, then the newest. */
export function byPreference(a: Listed, b: Listed): number {
  const isUp = ({ State }: Listed) => Number(State === 'running' || State === 'paused');
  return isUp(b) - isUp(a) || (b.Created ?? 0) - (a.Created ?? 0);
}
