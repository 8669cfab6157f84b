/** What `doctor` finds out from the engine: what we may do there, and how our own container is made. */
import type { EngineUse, Finding } from '../core/finding.ts';
import type { Api } from './docker-api.ts';
import { inspectContainer, listContainers } from './docker-find.ts';
import { exposuresOf, findSharedPlace, mountOf, nameOfEither as nameOf, sharesPlace } from './docker-guard.ts';
import { type Lookout, listClients } from './docker-look.ts';
import { examinePermissions, REFUSED } from './docker-permissions.ts';
import {
  DEFAULT_GRACE_S,
  ENOUGH_GRACE_S,
  NO_RESTART_POLICY,
  notesOfSelf,
  type Self,
  whyNothingIsHeld,
} from './docker-self.ts';
import { type Inspected, isOneOff, PROJECT_LABEL, SERVICE_LABEL } from './docker-workload.ts';

/** `Driver.examine`. */
export async function examine(
  lookout: Lookout,
  uses: readonly EngineUse[],
  signal: AbortSignal,
): Promise<readonly Finding[]> {
  const { api, scope } = lookout;
  const engine = await examineEngine(api, signal);
  const permissions = await examinePermissions(api, uses, signal);
  const isBlind = permissions.some(({ what, level }) => level === 'fail' && /list|inspect containers/.test(what));
  if (isBlind) return [engine, ...permissions];

  const self = await lookout.findSelf(signal);
  const findings: Finding[] = [engine, ...permissions, await sayWho(api, self, signal)];
  if (self.kind === 'container') {
    const container = (await serviceOf(api, self.container, signal)) ?? self.container;
    findings.push(restartOf(container, scope), graceOf(container), stateOf(self, self.container, lookout.stateDir));
  }
  for (const note of notesOfSelf(self, { scope, holds: false }).filter((note) => note !== NO_RESTART_POLICY))
    findings.push({ what: 'scope', level: 'warn', says: note });
  return [...findings, ...(await clientsOf(lookout, self, signal))];
}

type VersionBody = {
  readonly Version?: string;
  readonly ApiVersion?: string;
  readonly Components?: readonly { readonly Name?: string }[];
};

/** Its name and version, where it may be asked; the other calls tell whether it answers. */
async function examineEngine(api: Api, signal: AbortSignal): Promise<Finding> {
  const question = { doing: 'ask the engine for its version', path: '/version', accept: REFUSED, signal };
  const { status, body } = await api.ask({ ...question, limitMs: 10_000 });
  const { Version, ApiVersion, Components } = status < 300 ? (body as VersionBody) : {};
  const name = Components?.some((one) => /podman/i.test(one.Name ?? '')) ? 'Podman' : 'Docker';
  const version =
    Version === undefined ? 'answers; it may not be asked for its version' : `${name} ${Version}, API ${ApiVersion}`;
  return { what: 'engine', level: 'ok', says: `${version}, at ${api.host}` };
}

async function sayWho(api: Api, self: Self, signal: AbortSignal): Promise<Finding> {
  const what = 'sidecar';
  const onHost = 'runs on the host: its service manager must start it anew when it dies';
  if (self.kind === 'host') return { what, level: 'ok', says: onHost };
  if (self.kind === 'container') return { what, level: 'ok', says: `container ${nameOf(self.container)}` };
  // The engine's own name would tell one that runs beside us from one that runs us.
  const { status } = await api.ask({ doing: 'ask the engine for its name', path: '/info', accept: REFUSED, signal });
  const advice = REFUSED.includes(status)
    ? 'behind docker-socket-proxy, set INFO=1'
    : 'leave its hostname to the engine, or run it on the host';
  return { what, level: 'fail', says: `${self.why}: ${advice}` };
}

/** The service's own container, where we are in one of `compose run`; undefined: it is this one, or there is none. */
async function serviceOf(api: Api, { Config }: Inspected, signal: AbortSignal): Promise<Inspected | undefined> {
  const labels = Config.Labels ?? {};
  if (!isOneOff(labels)) return undefined;
  const wanted = [PROJECT_LABEL, SERVICE_LABEL].map((label) => `${label}=${labels[label]}`);
  const listed = await listContainers(api, { label: wanted }, signal);
  const own = listed.find((one) => !isOneOff(one.Labels ?? {}));
  return own && inspectContainer(api, own.Id, signal);
}

function restartOf(container: Inspected, scope: Lookout['scope']): Finding {
  const what = 'restart policy';
  const isMissing = notesOfSelf({ kind: 'container', container }, { scope, holds: false }).includes(NO_RESTART_POLICY);
  if (isMissing) return { what, level: 'fail', says: NO_RESTART_POLICY };
  const policy = String(container.HostConfig.RestartPolicy?.Name);
  if (policy === 'always') return { what, level: 'ok', says: policy };
  return { what, level: 'warn', says: `${policy}: an engine that crashed leaves it down: set restart: always` };
}

function graceOf({ Config }: Inspected): Finding {
  const seconds = Config.StopTimeout ?? DEFAULT_GRACE_S;
  const what = 'stop grace period';
  if (seconds < 0 || seconds >= ENOUGH_GRACE_S)
    return { what, level: 'ok', says: seconds < 0 ? 'no end' : `${seconds}s` };
  const why = 'too short to start again all that it may hold: set stop_grace_period: 1m';
  return { what, level: 'warn', says: `${seconds}s, ${why}` };
}

function stateOf(self: Self, container: Inspected, stateDir: string): Finding {
  const what = 'state.dir';
  const why = whyNothingIsHeld(self, stateDir);
  if (why !== undefined) return { what, level: 'fail', says: why };
  const { Type, Name, Source } = mountOf(container, stateDir) ?? {};
  if (Type === 'volume' && /^[0-9a-f]{64}$/.test(Name ?? '')) {
    const advice = '`docker run --rm` and `compose up --renew-anon-volumes` lose it: name it';
    return { what, level: 'warn', says: `${stateDir} lies on an anonymous volume: ${advice}` };
  }
  return { what, level: 'ok', says: `${stateDir} lies on ${Type} ${Name ?? Source}` };
}

/** Who shares run.dir with us, and what else they have of ours. */
async function clientsOf({ api, runDir, own }: Lookout, self: Self, signal: AbortSignal): Promise<readonly Finding[]> {
  const place = await findSharedPlace(self, runDir);
  if (place === undefined) {
    const advice = 'mount a volume there, and the same one in the backup container';
    return [
      { what: 'clients', level: 'warn', says: `run.dir ${runDir} is no mount, so that nobody can reach it: ${advice}` },
    ];
  }
  const listed = await listClients(api, place, signal);
  const clients = listed.filter(({ Id }) => self.kind !== 'container' || Id !== self.container.Id);
  const names = clients.map((client) => nameOf(client)).join(', ');
  const findings: Finding[] = [
    {
      what: 'clients',
      level: 'ok',
      says: names === '' ? 'none now' : `${names} ${clients.length > 1 ? 'share' : 'shares'} run.dir`,
    },
  ];
  for (const { name, says } of await exposuresOf(self, own, clients))
    findings.push({ what: name, level: 'fail', says });
  const socket = api.host.startsWith('unix://')
    ? await findSharedPlace(self, api.host.slice('unix://'.length))
    : undefined;
  for (const client of clients.filter((one) => sharesPlace(one, socket)))
    findings.push({
      ...{ what: 'clients', level: 'warn' },
      says: `${nameOf(client)} has the engine's socket: whoever takes it over is root on this machine: take it away`,
    });
  return findings;
}
