import { OperationalError } from './errors.ts';
import type { Action, Hook, Program, Settings } from './hook.ts';
import type { HookFile } from './ports.ts';
import { STATES } from './request.ts';
import { defaultSettings, type HookLimits, jobsOf, listOf, operationOf, settingOf, wrong } from './settings.ts';
import type { Requirement, Target } from './workload.ts';

const HEADER_LINES = 20;
const HEADER = /^\s*(?:#+|\/\/+|--+|;+)\s*sidehook:\s*(.*?)\s*$/;
const LATER = ['session', 'image'];
/** What a hook would hand back there nobody would take: better refused than lost. */
const RETURN = 'SIDEHOOK_RETURN';
/** When a hook is called. */
type On = Pick<Action, 'operation' | 'state'>;

/** TKLBAM's: the hook itself looks at its arguments. */
const DEFAULT_ON: readonly On[] = ['backup', 'restore'].flatMap((operation) =>
  (['pre', 'inspect', 'post'] as const).map((state) => ({ operation, state })),
);

/**
 * Reads a file of hooks.d into a Hook: its header, never half obeyed, and what is to be run where.
 * @throws OperationalError `configuration`, naming file, line and key
 */
export function parseHookFile(file: HookFile, limits: HookLimits): Hook {
  let target: Target = { kind: 'host' };
  let on: readonly On[] = DEFAULT_ON;
  let jobs: readonly string[] | undefined;
  let settings: Settings = defaultSettings(limits);
  const seen = new Set<string>();

  for (const { line, key, value } of headerWords(file)) {
    const where = `hook ${file.name}, line ${line}, ${key}`;
    if (seen.has(key)) throw new OperationalError('configuration', `${where}: said twice`);
    seen.add(key);
    if (LATER.includes(key)) throw new OperationalError('configuration', `${where}: not supported by this version`);
    if (key === 'target') target = parseTarget(where, value);
    else if (key === 'on') on = listOf(where, value).map((pattern) => parseOn(where, pattern, limits));
    else if (key === 'job') jobs = jobsOf(where, value);
    else {
      const setting = settingOf(key, value, where);
      if (setting === undefined)
        throw new OperationalError('configuration', `${where}: no such key; known are ${KEYS}`);
      settings = { ...settings, ...setting };
    }
  }

  const returning = file.text?.split('\n').findIndex((line) => line.includes(RETURN)) ?? -1;
  if (returning >= 0) {
    const where = `hook ${file.name}, line ${returning + 1}, ${RETURN}`;
    throw new OperationalError('configuration', `${where}: not supported by this version`);
  }
  const program = programOf(file, target);
  return {
    id: `file:${file.name}`,
    name: file.name,
    target,
    ...(jobs === undefined ? {} : { jobs }),
    actions: on.map((when): Action => ({ ...when, program, settings })),
  };
}

const KEYS = 'target, on, outcome, while, job, timeout, on-error, retries, retry-delay, user, workdir, match';

/** What was meant as a header, and would be passed over: misspelt, or too far down. */
const MEANT =
  /^\s*(?:#+|\/\/+|--+|;+)\s*sidehook\b\W*(?:target|on|outcome|while|job|timeout|on-error|retries|retry-delay|user|workdir|match|session|image)=\S/i;

function* headerWords({ name, head, text = head }: HookFile): Iterable<{ line: number; key: string; value: string }> {
  for (const [index, comment] of text.split(/\r?\n/).entries()) {
    const line = index + 1;
    const words = line > HEADER_LINES ? undefined : HEADER.exec(comment)?.[1];
    if (words === undefined && MEANT.test(comment)) {
      const expected = line > HEADER_LINES ? `a header within the first ${HEADER_LINES} lines` : 'sidehook: key=value';
      throw wrong(`hook ${name}, line ${line}`, expected, comment.trim());
    }
    for (const word of words?.split(/\s+/) ?? []) {
      const [, key, value] = /^([a-z-]+)=(.+)$/.exec(word) ?? [];
      if (key === undefined || value === undefined) throw wrong(`hook ${name}, line ${line}`, 'key=value', word);
      yield { line, key, value };
    }
  }
}

function parseOn(where: string, pattern: string, limits: HookLimits): On {
  const [, operation, word] = /^(\*|[a-zA-Z0-9][\w-]*)\.(\*|[a-z]+)$/.exec(pattern) ?? [];
  const state = word === '*' ? '*' : STATES.find((known) => known === word);
  if (operation === undefined || state === undefined) throw wrong(where, 'OPERATION.STATE such as backup.pre', pattern);
  if (state === 'captured')
    throw new OperationalError('configuration', `${where}: captured is not supported by this version`);
  return { operation: operation === '*' ? operation : operationOf(where, operation, limits), state };
}

/** Reads `host`, `container:NAME`, `service:[PROJECT/]NAME`, `label:KEY=VALUE`, `pod:SELECTOR`. @throws OperationalError `configuration` */
function parseTarget(where: string, text: string): Target {
  if (text === 'host') return { kind: 'host' };
  const [, kind, rest] = /^([a-z]+):(.+)$/.exec(text) ?? [];
  if (kind === 'container' && rest !== undefined && isName(rest)) return { kind, name: rest };
  if (kind === 'service' && rest !== undefined) {
    const names = rest.split('/');
    const [first, second] = names;
    if (names.length === 1 && isName(first)) return { kind, service: first };
    if (names.length === 2 && isName(first) && isName(second)) return { kind, project: first, service: second };
  }
  if (kind === 'label' && rest !== undefined) {
    const [, label, value] = /^([^=]+)=(.*)$/.exec(rest) ?? [];
    if (label !== undefined && value !== undefined) return { kind, label, value };
  }
  if (kind === 'pod' && rest !== undefined) {
    const target = parsePod(rest);
    if (target !== undefined) return target;
  }
  const expected = 'host, container:NAME, service:NAME, service:PROJECT/NAME, label:KEY=VALUE or pod:SELECTOR';
  throw wrong(where, expected, text);
}

const LABEL = String.raw`(?:[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?/)?[a-zA-Z0-9](?:[\w.-]*[a-zA-Z0-9])?`;
const LABEL_VALUE = String.raw`(?:[a-zA-Z0-9](?:[\w.-]*[a-zA-Z0-9])?)?`;
const REQUIREMENT = new RegExp(`^(!?)(${LABEL})(?:(==?|!=)(${LABEL_VALUE}))?$`);

/** `app=db,tier!=cache`, and after a semicolon `container=NAME`; undefined: it is none. */
function parsePod(text: string): Target | undefined {
  const [, selectorText = '', container] =
    /^([^;]+)(?:;container=([a-z0-9](?:[a-z0-9-]*[a-z0-9])?))?$/.exec(text) ?? [];
  const selector: Requirement[] = [];
  for (const part of selectorText.split(',')) {
    const [, not, label, sign, value = ''] = REQUIREMENT.exec(part) ?? [];
    if (label === undefined || (not === '!' && sign !== undefined)) return undefined;
    const is = sign === '!=' ? 'other' : sign !== undefined ? 'equal' : not === '!' ? 'absent' : 'there';
    selector.push({ label, is, value });
  }
  return { kind: 'pod', selector, ...(container === undefined ? {} : { container }) };
}

function isName(text: string | undefined): text is string {
  return text !== undefined && /^[a-zA-Z0-9][\w.-]*$/.test(text);
}

function programOf(file: HookFile, target: Target): Program {
  if (target.kind === 'host') return { kind: 'executable', path: file.path };
  const { name, text } = file;
  const cannot = `hook ${name}: cannot travel into a container`;
  if (text === undefined) throw new OperationalError('configuration', `${cannot}: it is no text of at most 1 MiB`);
  // The kernel's rule: the interpreter, and all that follows is one argument.
  const [, interpreter, argument] = /^#![ \t]*(\S+)[ \t]*(.*?)[ \t]*\r?(?:\n|$)/.exec(text) ?? [];
  if (interpreter === undefined) throw new OperationalError('configuration', `${cannot}: its first line is no #! line`);
  return { kind: 'script', name, interpreter: argument ? [interpreter, argument] : [interpreter], text };
}
