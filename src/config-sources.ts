import { readFileSync } from 'node:fs';
import { isAlias, isMap, isScalar, isSeq, LineCounter, type Node, parseDocument } from 'yaml';
import { nearestTo } from './config-nearest.ts';
import { flagOf, SETTING_KEYS, type SettingKey, settingOf, variableOf, type Written } from './config-schema.ts';

/** Where a value came from: `file` and its line, a variable, a flag. */
export type Origin = {
  readonly from: 'default' | 'file' | 'environment' | 'flag';
  /** As people find it again: `/etc/sidehook/sidehook.yaml:3`, `SIDEHOOK_SCOPE`, `--scope`. */
  readonly name: string;
};

/** One setting as one source had it, or a complaint about that source. */
export type Entry =
  | {
      readonly key: SettingKey;
      readonly value: Written;
      readonly origin: Origin;
      /** Its text came out of a file that may hold anything: it may stand in no message. */
      readonly hidden?: true;
    }
  | { readonly complaint: string; readonly stray?: true };

type Environment = Readonly<Record<string, string | undefined>>;

/** A settings file is small; whatever is not, is something else. */
const LARGEST_FILE = 1024 * 1024;

/** What hooks and clients find in their environment (and a hook may pass on to us): no settings, and no mistakes. */
const NOT_OURS =
  /^SIDEHOOK_(?:(?:OPERATION|STATE|JOB|RUN_ID|HOOK|TARGET|OUTCOME|STATUS|STEP|DIR|RETURN)|(?:PARAM|RETURN)_.*|.*SERVICE_.*|.*PORT.*)$/;

const KEY_OF_VARIABLE: ReadonlyMap<string, SettingKey> = new Map(
  SETTING_KEYS.filter((key) => !settingOf(key).fileOnly).map((key) => [variableOf(key), key]),
);

/**
 * The settings in a YAML file, each under its key, nested or dotted. All text stays the text that was written: `0770`
 * is a mode and not a number. An absent file is empty, unless it must exist.
 */
export function entriesOfFile(path: string, existence: 'may exist' | 'must exist'): Entry[] {
  let bytes: Buffer;
  try {
    bytes = readFileSync(path);
  } catch (error) {
    if (existence === 'may exist' && (error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    return [{ complaint: `read ${path}: ${reasonOf(error)}` }];
  }
  if (bytes.length > LARGEST_FILE)
    return [{ complaint: `read ${path}: expected at most 1 MiB, got ${bytes.length} bytes` }];

  const lines = new LineCounter();
  const document = parseDocument(bytes.toString(), { schema: 'failsafe', lineCounter: lines, prettyErrors: false });
  const place = (offset = 0) => `${path}:${lines.linePos(offset).line}`;
  const mistakes = [...document.errors, ...document.warnings];
  if (mistakes.length > 0) return mistakes.map(({ message, pos }) => ({ complaint: `${place(pos[0])}: ${message}` }));

  const entries: Entry[] = [];
  const walk = (given: Node | null, prefix: string): void => {
    const node = isAlias(given) ? (given.resolve(document) ?? null) : given;
    const at = place(given?.range?.[0]);
    const key = SETTING_KEYS.find((known) => known === prefix);
    if (key !== undefined) {
      const value = writtenOf(node, (item) => (isAlias(item) ? item.resolve(document) : item));
      const origin: Origin = { from: 'file', name: at };
      const { expected, unsupported = `expected ${expected}, got a mapping` } = settingOf(key);
      entries.push(value === undefined ? { complaint: `${key} (${at}): ${unsupported}` } : { key, value, origin });
    } else if (prefix === '' || isGroup(prefix)) {
      if (isEmpty(node)) return; // everything below it is commented out
      if (!isMap<Node, Node | null>(node)) {
        entries.push({ complaint: `${at}: ${prefix || 'the file'}: expected a mapping of settings` });
        return;
      }
      for (const { key: name, value } of node.items) {
        walk(value ?? name, `${prefix}${prefix === '' ? '' : '.'}${isScalar(name) ? String(name.value) : '?'}`);
      }
    } else {
      entries.push({
        complaint: `${at}: unknown key ${quoted(prefix)}${nearestTo(prefix, SETTING_KEYS)}`,
        stray: true,
      });
    }
  };
  walk(document.contents, '');
  return [...entries, ...duplicatesOf(entries)];
}

/** The settings in the environment, `…_FILE` included. An empty variable is an unset one, as compose files mean it. */
export function entriesOfEnvironment(env: Environment): Entry[] {
  const entries: Entry[] = [];
  for (const [variable, value] of Object.entries(env)) {
    if (!variable.startsWith('SIDEHOOK_') || value === undefined || value === '') continue;

    const key = KEY_OF_VARIABLE.get(variable);
    const plain = variable.replace(/_FILE$/, '');
    const keyOfFile = KEY_OF_VARIABLE.get(plain);
    if (key !== undefined) {
      entries.push({ key, value, origin: { from: 'environment', name: variable } });
    } else if (keyOfFile !== undefined) {
      if (env[plain]) entries.push({ complaint: `${variable}: ${plain} is set too; expected one of them` });
      else entries.push(entryOfFile(keyOfFile, variable, value));
    } else if (!NOT_OURS.test(variable)) {
      const nearest = nearestTo(variable, [...KEY_OF_VARIABLE.keys()]);
      entries.push({ complaint: `unknown variable ${quoted(variable)}${nearest}`, stray: true });
    }
  }
  return entries;
}

/** The settings among flags that `parseArgs` has read; others, which are the command's own, are none of ours. */
export function entriesOfFlags(flags: Readonly<Record<string, unknown>>): Entry[] {
  return SETTING_KEYS.flatMap((key): Entry[] => {
    const value = settingOf(key).fileOnly ? undefined : flags[flagOf(key)];
    return typeof value === 'string' ? [{ key, value, origin: { from: 'flag', name: `--${flagOf(key)}` } }] : [];
  });
}

/** Text for a message: quoted, without control characters, cut. */
export function quoted(value: Written): string {
  const text = JSON.stringify(value).replaceAll(/[\u007f-\u009f\u2028\u2029]/g, '?');
  return text.length > 100 ? `${text.slice(0, 100)}…` : text;
}

function entryOfFile(key: SettingKey, variable: string, path: string): Entry {
  try {
    const bytes = readFileSync(path);
    if (bytes.length > LARGEST_FILE) return { complaint: `${variable}: read ${path}: expected at most 1 MiB` };
    const origin: Origin = { from: 'environment', name: `${variable} (${path})` };
    return { key, value: bytes.toString().trim(), origin, hidden: true };
  } catch (error) {
    return { complaint: `${variable}: read ${quoted(path)}: ${reasonOf(error)}` };
  }
}

function writtenOf(node: Node | null, resolve: (item: Node) => Node | undefined): Written | undefined {
  if (node === null) return '';
  if (isScalar(node)) return String(node.value ?? '');
  if (!isSeq<Node>(node)) return undefined;
  const items = node.items.map(resolve);
  return items.every((item) => isScalar(item)) ? items.map((item) => String(item.value)) : undefined;
}

function duplicatesOf(entries: readonly Entry[]): Entry[] {
  const seen = new Set<SettingKey>();
  return entries.flatMap((entry) => {
    if (!('key' in entry)) return [];
    if (seen.has(entry.key)) return [{ complaint: `${entry.origin.name}: ${entry.key} is set twice` }];
    seen.add(entry.key);
    return [];
  });
}

function isGroup(prefix: string): boolean {
  return SETTING_KEYS.some((key) => key.startsWith(`${prefix}.`));
}

function isEmpty(node: Node | null): boolean {
  return node === null || (isScalar(node) && (node.value === '' || node.value === null));
}

function reasonOf(error: unknown): string {
  const { code, message } = error as NodeJS.ErrnoException;
  return { ENOENT: 'no such file', EACCES: 'not permitted', EISDIR: 'is a directory' }[code ?? ''] ?? message;
}
