import { isAbsolute, normalize } from 'node:path';
import convict from 'convict';
import { DURATION_WORDS, LONGEST_TERM_MS, parseDuration } from './core/duration.ts';

/** A setting as its source had it: text, or a list of texts in a file. */
export type Written = string | readonly string[];

/** One setting: what it means, what it may be, and what it is when nobody says. */
export type Setting = {
  readonly doc: string;
  readonly default: string;
  /** The default in words, where the text alone says too little. */
  readonly defaultWords?: string;
  /** What may stand there, for the error message and the table. */
  readonly expected: string;
  /** Set for what the design knows and this version does not do yet; what we say about it. */
  readonly unsupported?: string;
  /** Has no variable and no flag. */
  readonly fileOnly?: true;
  accepts(value: Written): boolean;
};

type Format = Pick<Setting, 'expected' | 'accepts'>;

const PATH: Format = { expected: 'an absolute path', accepts: isPlainPath };

const TERM: Format = {
  expected: `${DURATION_WORDS}, at most 24d`,
  accepts(value) {
    const ms = typeof value === 'string' ? parseDuration(value) : undefined;
    return ms !== undefined && ms > 0 && ms <= LONGEST_TERM_MS;
  },
};

function oneOf(...words: readonly string[]): Format {
  return { expected: words.join(' or '), accepts: (value) => typeof value === 'string' && words.includes(value) };
}

function listOf(expected: string, item: RegExp): Format {
  return { expected, accepts: (value) => value.length > 0 && listOfText(value).every((text) => item.test(text)) };
}

/** Known to the design, not built yet: set to anything but nothing, it is refused rather than ignored. */
function notYet(nothing: string): Format & Pick<Setting, 'default' | 'unsupported'> {
  return {
    default: nothing,
    expected: 'nothing',
    unsupported: 'is not supported yet',
    accepts: (it) => it === nothing || it.length === 0,
  };
}

const OPERATIONS = listOf('names of a-z, 0-9 and -, starting with a letter, 32 at most', /^[a-z][a-z0-9-]{0,31}$/);

const SCOPE: Format = {
  expected: 'project or host, or names of compose projects',
  accepts(value) {
    const names = listOfText(value);
    if (names.length === 1 && typeof value === 'string' && (value === 'project' || value === 'host')) return true;
    return (
      names.length > 0 &&
      names.every((name) => /^[a-z0-9][a-z0-9_-]*$/.test(name) && name !== 'project' && name !== 'host')
    );
  },
};

const OWNER: Format = {
  expected: 'UID, UID:GID or :GID, in numbers',
  accepts: (value) => value === '' || (typeof value === 'string' && ownerOf(value) !== undefined),
};

const MODE: Format = {
  expected: 'an octal mode such as 0770, in which the owner may do everything',
  accepts: (value) => typeof value === 'string' && /^(?:0o?)?[0-7]?7[0-7]{2}$/.test(value),
};

const COMPAT: Format = {
  expected: 'velero, or nothing (offen is not supported yet)',
  accepts: (value) => value.length === 0 || listOfText(value).every((name) => name === 'velero'),
};

/** Every setting, in the order of the table; the one place that knows their names, defaults and what they may be. */
const SETTINGS = {
  'run.dir': {
    ...PATH,
    default: '/run/sidehook',
    doc: 'The shared directory: client, socket, spool. The only one that a client may have writable.',
  },
  'run.owner': {
    ...OWNER,
    default: '',
    defaultWords: "the sidecar's own uid and gid",
    doc: 'Who owns what is in it: who may signal.',
  },
  'run.mode': {
    ...MODE,
    default: '0770',
    doc: 'Its mode. Root in both containers works as it is; others share a gid.',
  },
  'state.dir': { ...PATH, default: '/var/lib/sidehook', doc: 'Journal and history; not shared.' },
  'hooks.dir': { ...PATH, default: '/etc/sidehook/hooks.d', doc: 'The hooks.' },
  'hooks.timeout': { ...TERM, default: '1h', doc: 'How long a hook may take that says nothing else.' },
  engine: {
    ...oneOf('auto', 'docker', 'kubernetes', 'none'),
    default: 'auto',
    doc: 'What runs the workloads. `auto`: DOCKER_HOST, the usual sockets, or the pod’s service account. `none`: host hooks alone.',
  },
  scope: {
    ...SCOPE,
    default: 'project',
    doc: "Whose containers count: the sidecar's own compose project, the whole host, or a list of projects.",
  },
  operations: { ...OPERATIONS, default: 'backup,restore', doc: 'What a client may ask for.' },
  'inspect.root': { ...notYet(''), doc: 'Below which `inspect` may name a directory. Not supported yet.' },
  'lease.ttl': { ...TERM, default: '60s', doc: 'How long a client without a FIFO may give no sign of life.' },
  'lease.unattended': { ...TERM, default: '6h', doc: 'How long a run of bare signals stays open without a word.' },
  'hold.max': { ...TERM, default: '12h', doc: 'How long anything is held at most, whatever its client says.' },
  'hold.health-timeout': { ...TERM, default: '2m', doc: 'How long release waits for health at least.' },
  'hold.unclean': {
    ...oneOf('warn', 'abort'),
    default: 'warn',
    doc: 'What to do when a workload had to be killed to stop it.',
  },
  'hold.failed-restore': {
    ...oneOf('keep', 'release'),
    default: 'keep',
    doc: 'What becomes of holds after a restore that failed.',
  },
  'shutdown.holds': {
    ...oneOf('release', 'keep'),
    default: 'release',
    doc: 'What becomes of holds when the sidecar is told to end.',
  },
  'host.enter': { ...notYet('none'), doc: 'How host hooks reach the host: `nsenter`. Not supported yet.' },
  'helper.images': { ...notYet(''), doc: 'Images that `image=` may name. Not supported yet.' },
  compat: {
    ...COMPAT,
    default: '',
    doc: 'Whose annotations are read as ours, in a cluster. `offen` is not supported yet.',
  },
  'http.listen': { ...notYet('off'), doc: 'HOST:PORT for metrics, health and the page. Not supported yet.' },
  'log.level': { ...oneOf('error', 'warn', 'info', 'debug'), default: 'info', doc: 'The least that is logged.' },
  'log.format': {
    ...oneOf('auto', 'json', 'pretty'),
    default: 'auto',
    doc: '`auto`: pretty on a terminal, else JSON, a line per event.',
  },
  clients: { ...notYet(''), fileOnly: true, doc: 'A directory for each backup container. Not supported yet.' },
} as const satisfies Readonly<Record<string, Setting>>;

/** The name of a setting: `hold.failed-restore`. */
export type SettingKey = keyof typeof SETTINGS;

/** All names, in the order of the table. */
export const SETTING_KEYS = Object.keys(SETTINGS) as readonly SettingKey[];

/** One setting, with what it may leave unsaid. */
export function settingOf(key: SettingKey): Setting {
  return SETTINGS[key];
}

/** The variable of a setting: `SIDEHOOK_HOLD_FAILED_RESTORE`. */
export function variableOf(key: SettingKey): string {
  return `SIDEHOOK_${key.toUpperCase().replaceAll(/[.-]/g, '_')}`;
}

/** The flag of a setting, without its dashes: `hold-failed-restore`. */
export function flagOf(key: SettingKey): string {
  return key.replaceAll('.', '-');
}

/** A list as its source had it, `a, b` or a YAML list, taken apart. */
export function listOfText(value: Written): readonly string[] {
  return typeof value === 'string' ? value.split(',').map((text) => text.trim()) : value;
}

/** The ids in `UID`, `UID:GID` or `:GID`, as chown(1) takes them; undefined if it is none of these. */
export function ownerOf(text: string): { readonly uid?: number; readonly gid?: number } | undefined {
  const [, uid, gid] = /^(?=.)(\d{1,10})?(?::(\d{1,10}))?$/.exec(text) ?? [];
  if ([uid, gid].some((id) => id !== undefined && Number(id) >= 0xffff_ffff)) return undefined; // -1 means "leave it"
  if (uid === undefined && gid === undefined) return undefined;
  return { ...(uid !== undefined && { uid: Number(uid) }), ...(gid !== undefined && { gid: Number(gid) }) };
}

/** The settings as convict keeps them, all at their defaults. It never looks at our variables or arguments itself. */
export function openSettings(): convict.Config<Record<string, unknown>> {
  const schema: Record<string, unknown> = {};
  for (const key of SETTING_KEYS) {
    const [group = key, name] = key.split('.');
    const node = makeNode(key);
    if (name === undefined) schema[group] = node;
    else schema[group] = { ...(schema[group] as object), [name]: node };
  }
  return convict(schema as convict.Schema<Record<string, unknown>>, { env: {}, args: [] });
}

function makeNode(key: SettingKey): convict.SchemaObj {
  const { doc, default: initial, expected, accepts } = settingOf(key);
  const format = (value: Written) => {
    if (!accepts(value)) throw new TypeError(`expected ${expected}`);
  };
  return { doc, default: initial, format };
}

/** `/a/../b` is not what it looks like; a path is written as it is meant. */
function isPlainPath(value: Written): boolean {
  if (typeof value !== 'string' || !isAbsolute(value) || value.includes('\0')) return false;
  const path = value.replace(/\/+$/, '');
  return path !== '' && normalize(path) === path;
}
