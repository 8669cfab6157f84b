/** Velero's annotations, read as ours: `compat: velero`. */
import { formatDuration } from '../core/duration.ts';
import { OperationalError } from '../core/errors.ts';
import type { Note } from '../core/ports.ts';

/** What Velero's annotations of one pod come to. */
export type VeleroWishes = {
  /** As `sidehook.*` labels. */
  readonly labels: Readonly<Record<string, string>>;
  /** What has no meaning here, and is passed over. */
  readonly notes: readonly Note[];
  /** Why an operation cannot be done as these annotations have it. */
  readonly cannot: Readonly<Record<string, string>>;
};

/** Whose annotations they are, for messages; its containers, of which Velero takes the first. */
export type VeleroPod = { readonly name: string; readonly containers: readonly string[] };

/** One of Velero's hooks, and what it is with us. */
type Rule = {
  readonly operation: string;
  readonly state: 'pre' | 'post';
  /** The older names come last. */
  readonly prefixes: readonly string[];
  readonly timeout: 'timeout' | 'exec-timeout';
  readonly onError: 'abort' | 'continue';
};

const RULES: readonly Rule[] = [
  {
    ...{ operation: 'backup', state: 'pre', timeout: 'timeout', onError: 'abort' },
    prefixes: ['pre.hook.backup.velero.io/', 'hook.backup.velero.io/'],
  },
  {
    ...{ operation: 'backup', state: 'post', timeout: 'timeout', onError: 'abort' },
    prefixes: ['post.hook.backup.velero.io/'],
  },
  {
    ...{ operation: 'restore', state: 'post', timeout: 'exec-timeout', onError: 'continue' },
    prefixes: ['post.hook.restore.velero.io/'],
  },
];
const INIT = 'init.hook.restore.velero.io/';
const VELEROS = /^(?:(?:pre\.|post\.)?hook\.backup|(?:post|init)\.hook\.restore)\.velero\.io\//;
const VELEROS_TIMEOUT_MS = 30_000;
/** Ours waits for readiness by itself, before hooks that run after a restore. */
const MOOT = ['wait-timeout', 'wait-for-ready'];
const ON_ERROR: Readonly<Record<string, string>> = { Fail: 'abort', Continue: 'continue' };

/** Whether an annotation is one of Velero's hooks. */
export function isVeleros(name: string): boolean {
  return VELEROS.test(name);
}

/**
 * Maps them. Operations that are not allowed here are left to Velero.
 * @throws OperationalError `configuration`, naming pod and annotation, for what cannot be obeyed
 */
export function readVelero(
  annotations: Readonly<Record<string, string>>,
  pod: VeleroPod,
  operations: readonly string[],
): VeleroWishes {
  const known = new Set(Object.keys(annotations).filter(isVeleros));
  const take = (name: string): string | undefined => (known.delete(name) ? annotations[name] : undefined);
  const labels: Record<string, string> = {};
  const notes: Note[] = [];
  const cannot: Record<string, string> = {};

  for (const rule of RULES) {
    const found = rule.prefixes.map((prefix) => ({ prefix, command: take(`${prefix}command`) }));
    const chosen = found.find(({ command }) => command !== undefined);
    const hook = new Map(
      rule.prefixes.flatMap((prefix) =>
        ['container', 'on-error', rule.timeout, ...MOOT].map((key) => [`${prefix}${key}`, take(`${prefix}${key}`)]),
      ),
    );
    if (chosen?.command === undefined || !operations.includes(rule.operation)) continue;
    const read = (key: string): readonly [name: string, value: string | undefined] => [
      `${chosen.prefix}${key}`,
      hook.get(`${chosen.prefix}${key}`),
    ];
    const label = `sidehook.${rule.operation}.${rule.state}`;
    labels[label] = wordsOf(chosen.command);
    labels[`${label}.on-error`] = onErrorOf(read('on-error'), rule, pod);
    labels[`${label}.timeout`] = formatDuration(timeoutOf(read(rule.timeout), pod));
    takeContainer(labels, read('container'), pod);
    for (const [name, value] of MOOT.map(read)) {
      if (value === undefined) continue;
      notes.push(`pod ${pod.name}, annotation ${name}: passed over: its workload is waited for in any case`);
    }
  }

  const init = [...known].filter((name) => name.startsWith(INIT));
  for (const name of init) known.delete(name);
  if (init.length > 0) {
    cannot.restore = `pod ${pod.name}, annotation ${init[0]}: an init container cannot be put into a pod that is there already`;
  }
  for (const name of known) notes.push(`pod ${pod.name}, annotation ${name}: passed over: no hook of Velero has it`);
  return { labels, notes, cannot };
}

/** A JSON array, or one word: Velero has no shell. What begins as an array and is none, our own reading refuses. */
function wordsOf(command: string): string {
  return command.trimStart().startsWith('[') ? command : JSON.stringify([command]);
}

function onErrorOf([name, value]: readonly [string, string | undefined], rule: Rule, pod: VeleroPod): string {
  if (value === undefined) return rule.onError;
  return ON_ERROR[value] ?? wrong(pod, name, 'Fail or Continue', value);
}

const GO_UNITS_MS: Readonly<Record<string, number>> = { h: 3_600_000, m: 60_000, s: 1_000, ms: 1, us: 1e-3, ns: 1e-6 };
const GO_DURATION = /^(?:\d+(?:\.\d+)?(?:h|m|s|ms|us|µs|ns))+$/;

function timeoutOf([name, value]: readonly [string, string | undefined], pod: VeleroPod): number {
  if (value === undefined) return VELEROS_TIMEOUT_MS;
  const parts = GO_DURATION.test(value) ? value.matchAll(/(\d+(?:\.\d+)?)(h|ms|m|s|us|µs|ns)/g) : [];
  let ms = 0;
  for (const [, count, unit = ''] of parts) ms += Number(count) * (GO_UNITS_MS[unit === 'µs' ? 'us' : unit] ?? 0);
  return ms > 0 ? Math.ceil(ms) : wrong(pod, name, 'a duration such as 30s, 10m or 1h30m', value);
}

/** We have one container for all hooks of a pod's annotations. */
function takeContainer(
  labels: Record<string, string>,
  [name, value]: readonly [string, string | undefined],
  pod: VeleroPod,
): void {
  const wanted = value ?? pod.containers[0] ?? '';
  if (!pod.containers.includes(wanted)) wrong(pod, name, `a container of it (${pod.containers.join(', ')})`, wanted);
  const { 'sidehook.container': other = wanted } = labels;
  if (other !== wanted) {
    wrong(pod, name, `the same container as that of its other hooks (${other}), for sidehook knows one alone`, wanted);
  }
  labels['sidehook.container'] = wanted;
}

function wrong({ name: pod }: VeleroPod, name: string, expected: string, got: string): never {
  const why = `expected ${expected}, got ${JSON.stringify(got)}`;
  throw new OperationalError('configuration', `pod ${pod}, annotation ${name}: ${why}`);
}
