import { DURATION_WORDS, LONGEST_TERM_MS, parseDuration } from './duration.ts';
import { OperationalError } from './errors.ts';

export const STATES = ['pre', 'inspect', 'captured', 'post'] as const;
export type State = (typeof STATES)[number];

/** One message from a client, checked. Users say "signal"; in code a signal is always an AbortSignal. */
export type Request = {
  /** Random, made by the client: the same id is the same request, whenever it comes. */
  readonly id: string;
  /** Which directory it came through, which is who sent it. */
  readonly client: string;
  readonly operation: string;
  /** `started`: the client is about to start its command (reported before a restore's). */
  readonly state: State | 'started';
  readonly job: string;
  readonly params: Readonly<Record<string, string>>;
  /** How long a `pre` may wait for its turn. */
  readonly waitMs: number;
  /** `held`: the run lives as long as the sender (`run`). A number: milliseconds without a word (`signal`). */
  readonly lease: 'held' | number;
  readonly runId?: string;
  /** At `post`: how the client's command ended. */
  readonly outcome: 'success' | 'failure';
  readonly status?: number;
};

/** What a parser must know beside the message itself. */
export type RequestLimits = {
  readonly client: string;
  readonly operations: readonly string[];
  /** The lease of a bare signal that names none. */
  readonly unattendedMs: number;
  /** `hold.max`: no lease is longer. */
  readonly longestLeaseMs: number;
};

const FIELDS = 'version id operation state job run params wait lease outcome status inspect'.split(' ');
const LARGEST_VALUE = 4096;
const MOST_PARAMS = 64;

/**
 * Turns a message (an object of strings, numbers and `params`) into a Request, or refuses it with the field named.
 * @throws OperationalError `invalid-request`; `refused` for an operation that is not allowed; `configuration` for what
 * this version does not do
 */
export function parseRequest(raw: unknown, limits: RequestLimits): Request {
  if (typeof raw !== 'object' || raw === null || Array.isArray(raw)) throw invalid('request', 'an object', raw);
  const fields = raw as Record<string, unknown>;
  const stray = Object.keys(fields).find((field) => !FIELDS.includes(field));
  if (stray !== undefined) throw invalid(stray, `no such field; known are ${FIELDS.join(', ')}`, fields[stray]);

  const { version, id, inspect } = fields;
  if (String(version) !== '1') throw invalid('version', '1', version);
  if (typeof id !== 'string' || !isId(id)) throw invalid('id', '1 to 80 letters, digits, . _ or -', id);
  const operation = nameOf('operation', fields.operation);
  if (!limits.operations.includes(operation)) {
    throw new OperationalError(
      'refused',
      `operation ${operation}: not allowed here; allowed are ${limits.operations.join(', ')}`,
    );
  }
  const state = stateOf(fields.state);
  if (inspect !== undefined)
    throw new OperationalError('configuration', 'inspect with a directory: not supported by this version');
  if (state === 'captured')
    throw new OperationalError('configuration', 'state captured: not supported by this version');

  const runId = fields.run;
  if (runId !== undefined && !(typeof runId === 'string' && isId(runId)))
    throw invalid('run', 'the id of a run', runId);
  if (state === 'started' && runId === undefined) throw invalid('run', 'the id of the run whose command starts', runId);
  const status = statusOf(fields.status);
  return {
    id,
    client: limits.client,
    operation,
    state,
    job: fields.job === undefined ? 'default' : nameOf('job', fields.job),
    params: paramsOf(fields.params),
    waitMs: termOf('wait', fields.wait, 0),
    lease: fields.lease === 'held' ? 'held' : leaseOf(fields.lease, limits),
    outcome: outcomeOf(fields.outcome, status),
    ...(runId === undefined ? {} : { runId: runId as string }),
    ...(status === undefined ? {} : { status }),
  };
}

function leaseOf(value: unknown, limits: RequestLimits): number {
  const ms = termOf('lease', value, limits.unattendedMs);
  if (ms === 0) throw invalid('lease', 'held, or a duration over 0 such as 6h', value);
  return Math.min(ms, limits.longestLeaseMs);
}

function stateOf(value: unknown): Request['state'] {
  const state = ([...STATES, 'started'] as const).find((known) => known === value);
  if (state === undefined) throw invalid('state', STATES.join(', '), value);
  return state;
}

function outcomeOf(value: unknown, status: number | undefined): Request['outcome'] {
  if (value === undefined) return status === undefined || status === 0 ? 'success' : 'failure';
  if (value !== 'success' && value !== 'failure') throw invalid('outcome', 'success or failure', value);
  return value;
}

function statusOf(value: unknown): number | undefined {
  if (value === undefined) return undefined;
  if (!/^\d{1,3}$/.test(String(value)) || Number(value) > 255) throw invalid('status', '0 to 255', value);
  return Number(value);
}

function termOf(field: string, value: unknown, fallback: number): number {
  if (value === undefined) return fallback;
  const ms = typeof value === 'string' ? parseDuration(value) : undefined;
  if (ms === undefined || ms > LONGEST_TERM_MS) throw invalid(field, `${DURATION_WORDS}, at most 24d`, value);
  return ms;
}

function nameOf(field: string, value: unknown): string {
  if (typeof value === 'string' && /^[a-zA-Z0-9][\w.-]{0,63}$/.test(value)) return value;
  throw invalid(field, '1 to 64 letters, digits, . _ or -, a letter or digit first', value);
}

/** Names become `SIDEHOOK_PARAM_NAME`, so upper and lower case are one name. */
function paramsOf(value: unknown): Record<string, string> {
  if (value === undefined) return {};
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw invalid('params', 'an object of strings', value);
  const entries = Object.entries(value);
  if (entries.length > MOST_PARAMS) throw invalid('params', `at most ${MOST_PARAMS}`, entries.length);
  const params: Record<string, string> = {};
  for (const [name, text] of entries) {
    if (!/^[A-Za-z][A-Za-z0-9_]{0,63}$/.test(name)) throw invalid('param', 'a name of letters, digits and _', name);
    const key = name.toUpperCase();
    if (Object.hasOwn(params, key)) throw invalid(`param ${name}`, 'each name once, whatever its case', text);
    if (typeof text !== 'string' || text.length > LARGEST_VALUE || hasControl(text)) {
      throw invalid(`param ${name}`, `one line of at most ${LARGEST_VALUE} characters`, text);
    }
    params[key] = text;
  }
  return params;
}

function hasControl(text: string): boolean {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is looked for
  return /[\u0000-\u0008\u000a-\u001f\u007f]/.test(text);
}

function isId(value: string): boolean {
  return /^[a-zA-Z0-9][\w.-]{0,79}$/.test(value);
}

function invalid(field: string, expected: string, came: unknown): OperationalError {
  const shown = came === undefined ? 'nothing' : JSON.stringify(came);
  const short = shown.length > 80 ? `${shown.slice(0, 77)}...` : shown;
  return new OperationalError('invalid-request', `${field}: expected ${expected}, got ${short}`);
}
