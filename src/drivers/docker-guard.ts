/** Who may never be held, and why (DESIGN 5.1). */
import { lookup } from 'node:dns/promises';
import { realpath } from 'node:fs/promises';
import { isIP } from 'node:net';
import { join, relative } from 'node:path';
import type { Api } from './docker-api.ts';
import type { Self } from './docker-self.ts';
import { type Inspected, isInspected, type Listed, type Mount, nameOf, SERVICE_LABEL } from './docker-workload.ts';

/** The shared directory, as the engine knows it; undefined: it is on no mount, so nobody can share it. */
export type SharedPlace = { readonly volume?: string; readonly path: string };

/** Where `runDir` is for the engine: below a mount of the sidecar's container, or on its own machine. */
export async function findSharedPlace(self: Self, runDir: string): Promise<SharedPlace | undefined> {
  if (self.kind !== 'container') return { path: normal(await realpath(runDir).catch(() => runDir)) };
  const mount = mountOf(self.container, runDir);
  if (mount === undefined) return undefined;
  const path = normal(join(mount.Source ?? '', relative(mount.Destination, runDir)));
  return mount.Type === 'volume' && mount.Name !== undefined ? { volume: mount.Name, path } : { path };
}

/** The mount of a container that a path lies on; undefined: it lies in its writable layer. */
export function mountOf({ Mounts }: Inspected, path: string): Mount | undefined {
  const mounts = (Mounts ?? []).filter(({ Destination }) => isWithin(path, Destination));
  return mounts.toSorted((a, b) => b.Destination.length - a.Destination.length)[0];
}

/** Whether a container mounts the shared directory, something below it, or something that it lies in. */
export function sharesPlace({ Mounts }: Listed | Inspected, place: SharedPlace | undefined): boolean {
  if (place === undefined) return false;
  return (Mounts ?? []).some(({ Type, Name, Source = '' }: Mount) => {
    if (Type === 'volume' && Name !== undefined && Name === place.volume) return true;
    if (!Source.startsWith('/') || !place.path.startsWith('/')) return false;
    return isWithin(normal(Source), place.path) || isWithin(place.path, normal(Source));
  });
}

/** A directory or file of ours that no client may write, by the setting that names it. */
export type OwnPlace = { readonly name: string; readonly path: string };

/** What of ours these clients can write, by the engine's word: the same volume may be mounted elsewhere, or in part. */
export async function exposuresOf(
  self: Self,
  own: readonly OwnPlace[],
  clients: readonly (Listed | Inspected)[],
): Promise<readonly (OwnPlace & { readonly says: string })[]> {
  const found = own.map(async (one) => {
    const place = await findSharedPlace(self, one.path);
    const writers = clients.filter(({ Mounts, ...client }) => {
      const writable = (Mounts ?? []).filter(({ RW }) => RW !== false);
      return sharesPlace({ ...client, Mounts: writable } as Listed, place);
    });
    const says = (name: string) => `${one.path} lies where client ${name} can write: give it a volume of its own`;
    return writers.map((client) => ({ ...one, says: says(nameOfEither(client)) }));
  });
  return (await Promise.all(found)).flat();
}

function isWithin(path: string, folder: string): boolean {
  const way = relative(folder, path);
  return way !== '..' && !way.startsWith('../');
}

/** The engine keeps a bind's source as it was written, and /var/run is /run nearly everywhere. */
function normal(path: string): string {
  return path.replace(/^\/var\/run(?=\/|$)/, '/run');
}

/** Says why a container may never be held; undefined: it may. */
export type Guard = (container: Inspected | Listed) => string | undefined;

export type Guarded = {
  readonly self: Self;
  readonly runDir: string;
  readonly place: SharedPlace | undefined;
  /** The sidecar and its clients, whose namespaces must stay. */
  readonly residents: readonly Inspected[];
  readonly engine: Doorway | undefined;
};

/** Makes the guard from what has been looked up. */
export function makeGuard({ self, runDir, place, residents, engine }: Guarded): Guard {
  const selfId = self.kind === 'container' ? self.container.Id : undefined;
  const isLandlordOf = (container: Inspected | Listed, mode = ''): boolean => {
    const [, landlord] = /^container:(.+)$/.exec(mode) ?? [];
    return landlord !== undefined && (container.Id.startsWith(landlord) || nameOfEither(container) === landlord);
  };
  return (container) => {
    if (container.Id === selfId) return 'it is the sidecar itself';
    if (sharesPlace(container, place)) return `it mounts the shared directory ${runDir}, and so is a client`;
    for (const { Id, Name, HostConfig: modes } of residents) {
      const kinds = [
        ['network', modes.NetworkMode],
        ['process', modes.PidMode],
        ['IPC', modes.IpcMode],
      ] as const;
      const kind = kinds.find(([, mode]) => isLandlordOf(container, mode))?.[0];
      const who = Id === selfId ? 'the sidecar' : `the client ${Name.replace(/^\//, '')}`;
      if (kind !== undefined) return `${who} lives in its ${kind} namespace`;
    }
    if (engine !== undefined && leadsTo(container, engine)) return `the engine is reached through it (${engine.host})`;
    if (isInspected(container) && container.HostConfig.AutoRemove === true) {
      return 'it was started with --rm: to stop it would be to delete it';
    }
    return undefined;
  };
}

/** Where a DOCKER_HOST of tcp:// leads. */
export type Doorway = {
  readonly host: string;
  readonly hostname: string;
  readonly port: number;
  readonly addresses: readonly string[];
};

/** Looks up where we connect to; undefined for a socket of this machine. */
export async function findDoorway({ host, hostname, port }: Api): Promise<Doorway | undefined> {
  if (hostname === undefined || port === undefined) return undefined;
  if (isIP(hostname) !== 0) return { host, hostname, port, addresses: [hostname] };
  const found = await lookup(hostname, { all: true }).catch(() => []); // its name or alias may do without
  return { host, hostname, port, addresses: found.map(({ address }) => address) };
}

/** By container name, service, network alias or address; or since it publishes the port that we connect to. */
function leadsTo(container: Inspected | Listed, { hostname, port, addresses }: Doorway): boolean {
  const labels = (isInspected(container) ? container.Config.Labels : container.Labels) ?? {};
  const networks = Object.values(container.NetworkSettings?.Networks ?? {});
  const names = [nameOfEither(container), labels[SERVICE_LABEL], ...networks.flatMap(({ Aliases }) => Aliases ?? [])];
  if (names.includes(hostname)) return true;
  if (networks.some(({ IPAddress = '' }) => IPAddress !== '' && addresses.includes(IPAddress))) return true;
  return publishedPorts(container).includes(port);
}

function publishedPorts(container: Inspected | Listed): readonly number[] {
  if (!isInspected(container)) return (container.Ports ?? []).map(({ PublicPort = 0 }) => PublicPort);
  const bindings = Object.values(container.NetworkSettings?.Ports ?? {});
  return bindings.flatMap((ports) => (ports ?? []).map(({ HostPort }) => Number(HostPort)));
}

/** What people call it. */
export function nameOfEither(container: Inspected | Listed): string {
  return isInspected(container) ? container.Name.replace(/^\//, '') : nameOf(container);
}
