/** Which container the sidecar itself is: nothing in a container says so for certain, so what is found is verified. */
import { access, readFile } from 'node:fs/promises';
import { hostname } from 'node:os';
import type { Note } from '../core/ports.ts';
import type { Api } from './docker-api.ts';
import { inspectContainer, listContainers } from './docker-find.ts';
import { type Inspected, type Mount, PROJECT_LABEL } from './docker-workload.ts';

/** Where we run. */
export type Self =
  /** In no container of this engine: what it does to its containers does not touch us. */
  | { readonly kind: 'host' }
  | { readonly kind: 'container'; readonly container: Inspected }
  | { readonly kind: 'unknown'; readonly why: string };

/** One line of /proc/self/mountinfo. */
type MountPoint = { readonly root: string; readonly at: string; readonly options: string };

const CONTAINER_MARKS = ['/.dockerenv', '/run/.containerenv', '/var/run/secrets/kubernetes.io/serviceaccount'];
/** The engine mounts these three from the container's own folder, which is named by its id. */
const FROM_OWN_FOLDER = ['/etc/hostname', '/etc/hosts', '/etc/resolv.conf'];
const ID = /[0-9a-f]{64}/g;

/**
 * Finds out where we run.
 * @throws OperationalError `engine-unavailable`, `refused`
 */
export async function findSelf(api: Api, signal: AbortSignal): Promise<Self> {
  const mountPoints = parseMountInfo(await readFile('/proc/self/mountinfo', 'utf8'));
  const ids = await ownIds(mountPoints);
  const marks = await Promise.all(
    CONTAINER_MARKS.map((path) =>
      access(path).then(
        () => true,
        () => false,
      ),
    ),
  );
  if (ids.length === 0 && !marks.includes(true)) return { kind: 'host' };

  // Who shares another's network has that one's hosts file and name: the first that is found need not be us.
  let isKnown = false;
  const possible: Inspected[] = [];
  for (const id of new Set([...ids, hostname()])) {
    const container = await inspectContainer(api, id, signal);
    isKnown ||= container !== undefined;
    const likeness = container === undefined ? 'none' : compare(container, mountPoints);
    if (container !== undefined && likeness === 'same') return { kind: 'container', container };
    if (container !== undefined && likeness === 'possible') possible.push(container);
  }
  if (!isKnown && (await isEngineBesideUs(api, signal))) return { kind: 'host' };
  if (!isKnown || possible.length !== 1) possible.push(...(await searchAll(api, mountPoints, signal)));
  const [only, ...others] = [...new Map(possible.map((container) => [container.Id, container])).values()];
  if (only !== undefined && others.length === 0) return { kind: 'container', container: only };
  const found = only === undefined ? 'none of its containers fits' : `${others.length + 1} of its containers fit`;
  return {
    kind: 'unknown',
    why: `this is a container, but which one of those at ${api.host} cannot be told: ${found}`,
  };
}

async function ownIds(mountPoints: readonly MountPoint[]): Promise<readonly string[]> {
  const groups = await readFile('/proc/self/cgroup', 'utf8').catch(() => '');
  const fromGroups = groups.split('\n').flatMap((line) => line.match(ID)?.slice(-1) ?? []);
  const fromMounts = mountPoints
    .filter(({ at }) => FROM_OWN_FOLDER.includes(at))
    .flatMap(({ root }) => root.match(ID)?.slice(-1) ?? []);
  return [...new Set([...fromGroups, ...fromMounts])];
}

function parseMountInfo(text: string): readonly MountPoint[] {
  const lines = text.split('\n').filter((line) => line !== '');
  return lines.map((line) => {
    const [, , , root = '', at = ''] = line.split(' ').map(unescapeOctal);
    const options = line.slice(line.indexOf(' - ')).split(' ').slice(4).join(' ');
    return { root, at, options };
  });
}

function unescapeOctal(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_, digits: string) => String.fromCharCode(Number.parseInt(digits, 8)));
}

/** The writable layer is one container's alone; where the engine does not tell it, the mounts must at least agree. */
function compare(container: Inspected, mountPoints: readonly MountPoint[]): 'same' | 'possible' | 'none' {
  const rootOptions = mountPoints.findLast(({ at }) => at === '/')?.options ?? '';
  const ours = /(?:^|,)upperdir=((?:\\.|[^,\\])*)/.exec(rootOptions)?.[1]?.replace(/\\(.)/g, '$1');
  const theirs = container.GraphDriver?.Data?.UpperDir;
  if (ours !== undefined && theirs !== undefined) {
    return theirs === ours || theirs.endsWith(`/${ours}`) ? 'same' : 'none'; // a long list of layers has relative paths
  }
  if (container.State.Running !== true) return 'none';
  const points = new Set(mountPoints.map(({ at }) => at));
  const hasMounts = (container.Mounts ?? []).every(({ Destination }) =>
    points.has(Destination.replace(/(?<=.)\/$/, '')),
  );
  return hasMounts && container.Config.Hostname === hostname() ? 'possible' : 'none';
}

/** The engine that runs in the same container as we, as in a development container: its containers are not us. */
async function isEngineBesideUs(api: Api, signal: AbortSignal): Promise<boolean> {
  const { body } = await api.ask({ doing: 'ask the engine for its name', path: '/info', accept: [401, 403], signal });
  return (body as { readonly Name?: string } | undefined)?.Name === hostname();
}

/** No id led to us: whatever runs and has mounts only where we have some. */
async function searchAll(
  api: Api,
  mountPoints: readonly MountPoint[],
  signal: AbortSignal,
): Promise<readonly Inspected[]> {
  const points = new Set(mountPoints.map(({ at }) => at));
  const running = await listContainers(api, { status: ['running'] }, signal);
  const found: Inspected[] = [];
  for (const { Id, Mounts } of running) {
    const mounts = Mounts ?? [];
    if (mounts.length === 0 || !mounts.every(({ Destination }) => points.has(Destination))) continue;
    const container = await inspectContainer(api, Id, signal);
    if (container === undefined) continue;
    const likeness = compare(container, mountPoints);
    if (likeness === 'same') return [container];
    if (likeness === 'possible') found.push(container);
  }
  return found;
}

/** Why nothing may be held: a sidecar that cannot find its journal again, or that may stop itself, keeps no promise. */
export function whyNothingIsHeld(self: Self, stateDir: string): string | undefined {
  if (self.kind === 'unknown') return self.why;
  if (self.kind === 'host') return undefined;
  const isWithin = ({ Type, Destination }: Mount): boolean =>
    Type !== 'tmpfs' && `${stateDir}/`.startsWith(Destination.endsWith('/') ? Destination : `${Destination}/`);
  if ((self.container.Mounts ?? []).some(isWithin)) return undefined;
  return `state.dir ${stateDir} is no mount, so that what is held would be forgotten with the container: mount a volume there`;
}

/** A promise that a dead sidecar could not keep. */
export const NO_RESTART_POLICY =
  'the sidecar has no restart policy: if it dies, what it holds stays down: set restart: always';

/** What a stop of the sidecar should leave it to start what it holds; and what an engine leaves where nothing is said. */
export const ENOUGH_GRACE_S = 60;
export const DEFAULT_GRACE_S = 10;

/** What is odd about the sidecar's own container; `holds`: something in scope is to be held. */
export function notesOfSelf(
  self: Self,
  { scope, holds }: { readonly scope: 'project' | 'host' | readonly string[]; readonly holds: boolean },
): readonly Note[] {
  const notes: Note[] = [];
  if (self.kind === 'container') {
    const policy = self.container.HostConfig.RestartPolicy?.Name ?? '';
    if (policy === '' || policy === 'no') notes.push(NO_RESTART_POLICY);
    const graceS = self.container.Config.StopTimeout ?? DEFAULT_GRACE_S;
    if (holds && graceS >= 0 && graceS < ENOUGH_GRACE_S) {
      const told = `when the sidecar is told to end, it has ${graceS} s to start what it holds`;
      notes.push(`${told}: set stop_grace_period: 1m (docker run --stop-timeout 60)`);
    }
  }
  const project = self.kind === 'container' ? self.container.Config.Labels?.[PROJECT_LABEL] : undefined;
  if (scope === 'project' && project === undefined) {
    notes.push(
      'the sidecar belongs to no compose project, so that nothing is in scope: set scope to host or to projects',
    );
  }
  return notes;
}
