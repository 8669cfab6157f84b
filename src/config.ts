import { complaintsOfPlaces, isWritableByOthers, type Place } from './config-places.ts';
import {
  flagOf,
  listOfText,
  openSettings,
  ownerOf,
  SETTING_KEYS,
  type SettingKey,
  settingOf,
  type Written,
} from './config-schema.ts';
import {
  type Entry,
  entriesOfEnvironment,
  entriesOfFile,
  entriesOfFlags,
  type Origin,
  quoted,
} from './config-sources.ts';
import { parseDuration } from './core/duration.ts';
import { OperationalError } from './core/errors.ts';
import { looksSecret } from './core/secret.ts';

/** Where the settings are looked for when nobody says. */
export const CONFIG_PATH = '/etc/sidehook/sidehook.yaml';

/** All settings: frozen, plain, lengths in milliseconds, paths absolute. */
export type Config = {
  /** Where the file of settings is, or would be. */
  readonly file: string;
  readonly run: {
    readonly dir: string;
    /** Undefined: the sidecar's own. */
    readonly uid?: number;
    readonly gid?: number;
    readonly mode: number;
  };
  readonly state: { readonly dir: string };
  readonly hooks: { readonly dir: string; readonly timeoutMs: number };
  readonly engine: 'auto' | 'docker' | 'kubernetes' | 'none';
  /** `project`: the sidecar's own compose project. A list: these projects. */
  readonly scope: 'project' | 'host' | readonly string[];
  readonly operations: readonly string[];
  readonly lease: { readonly ttlMs: number; readonly unattendedMs: number };
  readonly hold: {
    readonly maxMs: number;
    readonly healthTimeoutMs: number;
    readonly unclean: 'warn' | 'abort';
    readonly failedRestore: 'keep' | 'release';
  };
  readonly shutdown: { readonly holds: 'release' | 'keep' };
  /** Whose labels or annotations are read as ours, too. */
  readonly compat: readonly string[];
  readonly log: { readonly level: 'error' | 'warn' | 'info' | 'debug'; readonly format: 'auto' | 'json' | 'pretty' };
};

/** The settings, with what was written for each and where. */
export type LoadedConfig = {
  readonly config: Config;
  readonly written: Readonly<Record<SettingKey, Written>>;
  readonly origins: Readonly<Record<SettingKey, Origin>>;
};

/** What settings are made of. */
export type ConfigSources = {
  readonly env: Readonly<Record<string, string | undefined>>;
  /** As `parseArgs` read them, by `CONFIG_FLAGS`; what is no setting is passed over. */
  readonly flags?: Readonly<Record<string, unknown>>;
  /** `--config`: must exist. */
  readonly configPath?: string;
  /** For tests: where the file is looked for when there is no `configPath`. */
  readonly defaultPath?: string;
  /** Whether unknown keys and variables are errors: for `serve`, `doctor`, `config`. */
  readonly strict?: boolean;
};

/** The flags of all settings, for `parseArgs`. */
export const CONFIG_FLAGS: Readonly<Record<string, { readonly type: 'string' }>> = Object.fromEntries(
  SETTING_KEYS.filter((key) => !settingOf(key).fileOnly).map((key) => [flagOf(key), { type: 'string' }]),
);

/**
 * Reads the settings once: defaults, file, environment, flags, the later ones over the earlier. The rest of the program
 * gets plain frozen data.
 * @throws OperationalError `configuration` with everything that is wrong, a line each
 */
export function loadConfig({
  env,
  flags = {},
  configPath,
  defaultPath = CONFIG_PATH,
  strict,
}: ConfigSources): LoadedConfig {
  const settings = openSettings();
  const complaints: string[] = [];
  const origins = Object.fromEntries(
    SETTING_KEYS.map((key): [SettingKey, Origin] => [key, { from: 'default', name: 'default' }]),
  ) as Record<SettingKey, Origin>;

  const file = configPath ?? defaultPath;
  const entries = [
    ...entriesOfFile(file, configPath === undefined ? 'may exist' : 'must exist'),
    ...entriesOfEnvironment(env),
    ...entriesOfFlags(flags),
  ];
  for (const entry of entries) {
    if ('complaint' in entry) {
      if (strict || !entry.stray) complaints.push(entry.complaint);
      continue;
    }
    const before: unknown = settings.get(entry.key);
    settings.set(entry.key, entry.value);
    try {
      settings.validate({ allowed: 'strict' });
      origins[entry.key] = entry.origin;
    } catch {
      settings.set(entry.key, before);
      complaints.push(complaintOf(entry));
    }
  }

  const written = Object.fromEntries(SETTING_KEYS.map((key) => [key, settings.get(key)])) as Record<
    SettingKey,
    Written
  >;
  const config = makeConfig((key) => written[key], file);
  complaints.push(...complaintsOfPlaces({ name: 'run.dir', path: config.run.dir }, ownPlacesOf(config)));
  if (isWritableByOthers(file)) complaints.push(`${file}: writable by others, so that anyone could choose other hooks`);

  if (complaints.length > 0) throw new OperationalError('configuration', complaints.join('\n'));
  return { config, written, origins };
}

/** What no client may write: who can, chooses what is run or forgets what is held. */
export function ownPlacesOf({ file, hooks, state }: Config): readonly Place[] {
  return [
    { name: 'hooks.dir', path: hooks.dir },
    { name: 'state.dir', path: state.dir },
    { name: 'the configuration', path: file },
  ];
}

/** Every setting on a line, `key = value  (where it came from)`; what may be secret is masked. */
export function describeConfig({ written, origins }: LoadedConfig, secrets: readonly string[] = []): string {
  const rows = SETTING_KEYS.map((key) => ({
    key,
    shown: shownOf(key, written[key], secrets),
    origin: origins[key].name,
  }));
  const keyWidth = Math.max(...rows.map(({ key }) => key.length));
  const width = Math.max(...rows.map(({ shown }) => shown.length));
  return rows.map(({ key, shown, origin }) => `${key.padEnd(keyWidth)}  ${shown.padEnd(width)}  ${origin}\n`).join('');
}

/** A setting's text for people: masked where its name or its value is secret. */
export function shownOf(key: SettingKey, value: Written, secrets: readonly string[] = []): string {
  const text = typeof value === 'string' ? value : value.join(',');
  if (looksSecret(key.replaceAll(/[.-]/g, '_'))) return '***';
  const masked = secrets.reduce((masked, secret) => masked.replaceAll(secret, '***'), text);
  return masked === '' ? (settingOf(key).defaultWords ?? 'none') : masked;
}

function complaintOf(entry: Extract<Entry, { readonly key: SettingKey }>): string {
  const { key, value, origin, hidden } = entry;
  const { expected, unsupported } = settingOf(key);
  if (unsupported !== undefined) return `${key} (${origin.name}): ${unsupported}`;
  const got = hidden ? `something else, ${value.length} characters long` : quoted(value);
  return `${key} (${origin.name}): expected ${expected}, got ${value === '' ? 'nothing' : got}`;
}

/** Turns checked text into what the program works with. */
function makeConfig(read: (key: SettingKey) => Written, file: string): Config {
  const text = (key: SettingKey) => String(read(key));
  const term = (key: SettingKey) => parseDuration(text(key)) ?? 0;
  const path = (key: SettingKey) => text(key).replace(/\/+$/, '');
  const scope = read('scope');
  return freeze({
    file,
    run: {
      dir: path('run.dir'),
      ...ownerOf(text('run.owner')),
      mode: Number.parseInt(text('run.mode').replace('o', ''), 8),
    },
    state: { dir: path('state.dir') },
    hooks: { dir: path('hooks.dir'), timeoutMs: term('hooks.timeout') },
    engine: text('engine') as Config['engine'],
    scope: scope === 'project' || scope === 'host' ? scope : [...new Set(listOfText(scope))],
    operations: [...new Set(listOfText(read('operations')))],
    lease: { ttlMs: term('lease.ttl'), unattendedMs: term('lease.unattended') },
    hold: {
      maxMs: term('hold.max'),
      healthTimeoutMs: term('hold.health-timeout'),
      unclean: text('hold.unclean') as Config['hold']['unclean'],
      failedRestore: text('hold.failed-restore') as Config['hold']['failedRestore'],
    },
    shutdown: { holds: text('shutdown.holds') as Config['shutdown']['holds'] },
    compat: read('compat').length === 0 ? [] : [...new Set(listOfText(read('compat')))],
    log: { level: text('log.level') as Config['log']['level'], format: text('log.format') as Config['log']['format'] },
  });
}

function freeze<Value extends object>(value: Value): Value {
  for (const inner of Object.values(value)) if (typeof inner === 'object' && inner !== null) freeze(inner);
  return Object.freeze(value);
}
