import { OperationalError } from './errors.ts';
import type { HoldKind } from './hold.ts';
import type { Action, Hook, Program } from './hook.ts';
import { STATES, type State } from './request.ts';
import { defaultSettings, durationOf, type HookLimits, jobsOf, listOf, oneOf, settingOf } from './settings.ts';
import type { Workload } from './workload.ts';

/** What a workload's labels ask for. */
export type LabelWishes = {
  readonly hook?: Hook;
  readonly hold?: HoldWish;
  /** `sidehook.hold.after`: names of containers or services that this one depends on. */
  readonly after: readonly string[];
};

export type HoldWish = {
  readonly kind: HoldKind;
  readonly operations: readonly string[];
  readonly jobs?: readonly string[];
  readonly stopTimeoutMs?: number;
  readonly maxMs?: number;
};

const PREFIX = 'sidehook.';
/** What is held how: a container cannot be scaled, and a Deployment neither be stopped nor paused. */
const KINDS_OF = { container: ['stop', 'pause'], other: ['scale'] } as const satisfies Record<
  string,
  readonly HoldKind[]
>;
const SETTINGS = ['user', 'timeout', 'on-error', 'while', 'match', 'outcome'];

/**
 * Reads a workload's `sidehook.*` labels; on Kubernetes they are the annotations `sidehook.io/*`.
 * @throws OperationalError `configuration`, naming container and label; a label that is unknown is an error too
 */
export function parseLabels(workload: Workload, limits: HookLimits): LabelWishes {
  const labels = new Map(Object.entries(workload.labels).filter(([label]) => label.startsWith(PREFIX)));
  const take = (label: string): string | undefined => {
    const value = labels.get(label);
    labels.delete(label);
    return value;
  };
  const where = (label: string): string => `${workload.kind} ${workload.name}, ${wordOf(workload, label)}`;

  const jobsText = take('sidehook.job');
  const jobs = jobsText === undefined ? {} : { jobs: jobsOf(where('sidehook.job'), jobsText) };
  const kinds = KINDS_OF[workload.kind === 'container' ? 'container' : 'other'];
  const hold = takeHold(take, where, kinds, jobs, limits.operations);
  const afterText = take('sidehook.hold.after');
  const container = workload.kind === 'pod' ? take('sidehook.container') : undefined;
  const actions = [...takeActions(take, where, limits)];

  const [stray] = labels.keys();
  if (stray !== undefined)
    throw new OperationalError('configuration', `${where(stray)}: ${whyUnknown(stray, limits.operations)}`);
  const hook: Hook = {
    id: `label:${workload.key}`,
    name: `${workload.kind === 'container' ? 'labels' : 'annotations'} of ${workload.name}`,
    target: {
      ...{ kind: 'workload', key: workload.key, name: workload.name },
      ...(container === undefined ? {} : { container }),
    },
    ...jobs,
    actions,
  };
  return {
    ...(actions.length > 0 ? { hook } : {}),
    ...(hold === undefined ? {} : { hold }),
    after: afterText === undefined ? [] : listOf(where('sidehook.hold.after'), afterText),
  };
}

type Take = (label: string) => string | undefined;
type Where = (label: string) => string;

function* takeActions(take: Take, where: Where, limits: HookLimits): Iterable<Action> {
  for (const operation of limits.operations) {
    for (const state of STATES) {
      const label = `${PREFIX}${operation}.${state}`;
      const command = take(label);
      if (command === undefined) continue; // a setting without its command is left over, and so refused
      if (state === 'captured')
        throw new OperationalError('configuration', `${where(label)}: not supported by this version`);
      yield {
        operation,
        state,
        program: parseCommand(where(label), command),
        settings: takeSettings(take, where, label, limits),
      };
    }
  }
}

function takeSettings(take: Take, where: Where, label: string, limits: HookLimits): Action['settings'] {
  let settings = defaultSettings(limits);
  for (const key of SETTINGS) {
    const value = take(`${label}.${key}`);
    if (value !== undefined) settings = { ...settings, ...settingOf(key, value, where(`${label}.${key}`)) };
  }
  return settings;
}

/** A JSON array is run as it is; anything else is a line for sh. */
function parseCommand(where: string, text: string): Program {
  if (text.trim() === '') throw new OperationalError('configuration', `${where}: expected a command, got nothing`);
  if (!text.trimStart().startsWith('[')) return { kind: 'shell', line: text };
  const argv = parseJson(text);
  if (Array.isArray(argv) && argv.length > 0 && argv.every((word) => typeof word === 'string'))
    return { kind: 'argv', argv };
  const expected = 'a JSON array of strings, since it begins with [ (in a shell line write test instead of [)';
  throw new OperationalError('configuration', `${where}: expected ${expected}, got ${JSON.stringify(text)}`);
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function takeHold(
  take: Take,
  where: Where,
  kinds: readonly HoldKind[],
  jobs: { jobs?: string[] },
  operations: readonly string[],
): HoldWish | undefined {
  const kind = take('sidehook.hold');
  if (kind === undefined) return undefined; // sidehook.hold.on and the like alone are left over, and so refused
  const on = take('sidehook.hold.on');
  const timeout = take('sidehook.hold.timeout');
  const max = take('sidehook.hold.max');
  return {
    kind: oneOf(where('sidehook.hold'), kind, kinds),
    operations:
      on === undefined
        ? ['backup', 'restore']
        : listOf(where('sidehook.hold.on'), on).map((name) => oneOf(where('sidehook.hold.on'), name, operations)),
    ...jobs,
    ...(timeout === undefined ? {} : { stopTimeoutMs: durationOf(where('sidehook.hold.timeout'), timeout, 0) }),
    ...(max === undefined ? {} : { maxMs: durationOf(where('sidehook.hold.max'), max) }),
  };
}

/** As its operator wrote it: `label sidehook.hold`, `annotation sidehook.io/hold`. */
export function wordOf({ kind }: Pick<Workload, 'kind'>, label: string): string {
  if (kind === 'container') return `label ${label}`;
  return `annotation ${label.startsWith(PREFIX) ? `sidehook.io/${label.slice(PREFIX.length)}` : label}`;
}

function whyUnknown(label: string, operations: readonly string[]): string {
  const [, operation, state, setting] = /^sidehook\.([^.]+)\.([^.]+)(?:\.(.+))?$/.exec(label) ?? [];
  if (operation === 'hold') return 'needs sidehook.hold beside it, or is no label of ours';
  if (operation !== undefined && STATES.includes(state as State)) {
    if (!operations.includes(operation))
      return `operation ${operation} is not allowed; allowed are ${operations.join(', ')}`;
    if (setting !== undefined && SETTINGS.includes(setting))
      return `has no command: sidehook.${operation}.${state} is missing`;
  }
  return 'no such label';
}
