/** What the engine, or a proxy before it, lets us do: found out by calls that change nothing. */
import { randomBytes } from 'node:crypto';
import type { EngineUse, Finding } from '../core/finding.ts';
import type { Api } from './docker-api.ts';

/** One call that we make, in a form that does nothing. */
type Probe = {
  /** `stop containers` */
  readonly deed: string;
  readonly method: 'GET' | 'POST';
  /** Undefined: always. */
  readonly use?: EngineUse;
  readonly path: string;
  readonly query?: Readonly<Record<string, string>>;
  /** What is lost without it, where we can do without. */
  readonly without?: string;
};

/** Whatever comes back but these, the engine itself has said it: that there is no such container, above all. */
export const REFUSED: readonly number[] = [401, 403, 405];
const UNDERSTOOD = [400, 404, 406, 409, 500, ...REFUSED];
const PROBE_MS = 10_000;

/** Of a container that does not exist. */
function probesOf(nobody: string): readonly Probe[] {
  const container = `/containers/${nobody}`;
  const post = (use: EngineUse, deed: string, path: string): Probe => ({ use, deed, method: 'POST', path });
  return [
    { deed: 'list containers', method: 'GET', path: '/containers/json', query: { limit: '1' } },
    { deed: 'inspect containers', method: 'GET', path: `${container}/json` },
    { deed: 'inspect images', method: 'GET', path: `/images/${nobody}/json` },
    {
      ...{ deed: 'follow events', method: 'GET', path: '/events', query: { since: '1', until: '2' } },
      without: 'a lost hold is found up to 10s later',
    },
    post('exec', 'prepare an exec', `${container}/exec`),
    post('exec', 'start an exec', `/exec/${nobody}/start`),
    { use: 'exec', deed: 'ask for an exit code', method: 'GET', path: `/exec/${nobody}/json` },
    post('stop', 'stop containers', `${container}/stop`),
    post('stop', 'start containers', `${container}/start`),
    post('pause', 'pause containers', `${container}/pause`),
    post('pause', 'unpause containers', `${container}/unpause`),
  ];
}

/**
 * Tries each call that we make on a container that does not exist. What is used and refused is a failure, with the
 * switches of a socket proxy that would permit it; what is refused and not used yet, a warning.
 * @throws OperationalError `engine-unavailable`
 */
export async function examinePermissions(
  api: Api,
  uses: readonly EngineUse[],
  signal: AbortSignal,
): Promise<readonly Finding[]> {
  const nobody = `sidehook-doctor-${randomBytes(8).toString('hex')}`;
  const probes = probesOf(nobody);
  // To tell a missing POST from a missing switch of one verb: nothing that we need, and nobody to resize.
  const other: Probe = {
    deed: 'post',
    method: 'POST',
    path: `/containers/${nobody}/resize`,
    query: { h: '1', w: '1' },
  };
  const refusals = new Map<Probe, string | undefined>();
  await Promise.all([...probes, other].map(async (probe) => refusals.set(probe, await refusalOf(api, probe, signal))));
  const isClosed = (method: string, start: string): boolean =>
    probes.some(
      (probe) => probe.method === method && probe.path.startsWith(start) && refusals.get(probe) !== undefined,
    );
  const closed = {
    containers: isClosed('GET', '/containers'),
    exec: isClosed('GET', '/exec'),
    post: refusals.get(other) !== undefined,
  };
  return probes.map((probe): Finding => {
    const what = `permission to ${probe.deed}`;
    const refusal = refusals.get(probe);
    if (refusal === undefined) return { what, level: 'ok', says: 'granted' };
    const isUsed = probe.use === undefined || uses.includes(probe.use);
    const says = `refused (${refusal}): ${remedyOf(probe, closed)}`;
    if (probe.without !== undefined) return { what, level: 'warn', says: `${says}; without it, ${probe.without}` };
    return isUsed ? { what, level: 'fail', says } : { what, level: 'warn', says: `${says}; nothing uses it yet` };
  });
}

async function refusalOf(api: Api, probe: Probe, signal: AbortSignal): Promise<string | undefined> {
  const { deed, method, path, query } = probe;
  const question = { doing: deed, method, path, accept: UNDERSTOOD, signal, limitMs: PROBE_MS };
  // An exec needs a body that makes sense, or the engine complains of that first, which will do as well.
  const body = method === 'POST' && path.includes('exec') ? { body: { Cmd: ['true'], Detach: true } } : {};
  const { status, message } = await api.ask({ ...question, ...(query === undefined ? {} : { query }), ...body });
  if (!REFUSED.includes(status)) return undefined;
  const shown = path.replace(/sidehook-doctor-\w+/, 'ID');
  return `${method} ${shown}: ${status}${message === '' ? '' : ` ${message}`}`;
}

/** What of a proxy is known to be closed. `post` is, too, where containers are. */
type Closed = { readonly containers: boolean; readonly exec: boolean; readonly post: boolean };

/**
 * The switches of docker-socket-proxy. They differ: Tecnativa's wants POST=1 for whatever is no GET, and its newer ones
 * ALLOW_EXEC=1 beside it; LinuxServer's always wants ALLOW_START=1 and ALLOW_STOP=1 for these two.
 */
function remedyOf({ method, path }: Probe, closed: Closed): string {
  const [, area = '', , verb = ''] = path.split('/');
  const isAreaClosed = method === 'GET' || (area === 'exec' ? closed.exec : closed.containers);
  const missing = [
    ...(isAreaClosed ? [`${area.toUpperCase()}=1`] : []),
    ...(method === 'POST' && closed.post ? ['POST=1'] : []),
  ];
  const own = area === 'exec' ? 'EXEC=1' : `ALLOW_${verb.toUpperCase()}=1`;
  const isOften = ['exec', 'start', 'stop'].includes(verb) && area === 'containers';
  const rest = missing.length > 0 && isOften ? ` (and ${own}, where it has that)` : '';
  return `behind docker-socket-proxy, set ${missing.join(' and ') || own}${rest}`;
}
