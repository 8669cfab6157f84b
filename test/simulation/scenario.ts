/** What happens in one simulated world: drawn from a seed, and then made smaller. */
import type { Request } from '../../src/core/request.ts';
import { makeRandom, type Random } from './world.ts';

export type BoxSpec = {
  readonly name: string;
  readonly dependsOn: readonly string[];
  readonly hold?: 'stop' | 'pause';
  readonly holdOn?: string;
  readonly jobs?: readonly string[];
  readonly runs: boolean;
  readonly healthyAfterMs?: number;
  readonly stopMs: number;
  readonly startMs: number;
  /** As compose's `restart:`; what the engine does after its own restart. */
  readonly restart: 'no' | 'unless-stopped' | 'always';
};

export type HookSpec = {
  readonly name: string;
  /** Undefined: the host. */
  readonly target?: string;
  readonly jobs?: readonly string[];
  readonly when: 'running' | 'held';
  readonly ms: number;
  readonly preCode: number;
  readonly postCode: number;
  readonly mayFail: boolean;
  readonly states: 'both' | 'pre' | 'post';
  /** Beside those: whatever the outcome, nothing is owed. */
  readonly inspects: boolean;
};

export type ClientSpec = {
  readonly name: string;
  readonly atMs: number;
  readonly verb: 'run' | 'signal';
  readonly operation: string;
  readonly job: string;
  readonly waitMs: number;
  readonly commandMs: number;
  readonly code: number;
  /** A signal's lease. */
  readonly leaseMs: number;
  /** A bare signal that never says `post`. */
  readonly forgets: boolean;
  /** A bare signal that says `inspect` before it reads. */
  readonly inspects: boolean;
};

export type Fault =
  | { readonly kind: 'kill'; readonly point: number; readonly when: 'before' | 'after'; readonly downMs: number }
  /** So many calls after a run's end began: in the middle of its `post`, or of what a dead client left. */
  | { readonly kind: 'kill-ending'; readonly point: number; readonly when: 'before' | 'after'; readonly downMs: number }
  | { readonly kind: 'kill-at'; readonly atMs: number; readonly downMs: number }
  | { readonly kind: 'term'; readonly atMs: number; readonly graceMs: number; readonly downMs: number }
  | { readonly kind: 'second'; readonly atMs: number }
  | { readonly kind: 'release'; readonly atMs: number; readonly which: 'all' | number }
  | { readonly kind: 'away'; readonly atMs: number; readonly forMs: number }
  | { readonly kind: 'error'; readonly call: number; readonly when: 'before' | 'after' }
  | { readonly kind: 'slow'; readonly call: number; readonly forMs: number }
  | { readonly kind: 'restart-engine'; readonly atMs: number; readonly forMs: number; readonly live: boolean }
  | { readonly kind: 'disk-full'; readonly atMs: number; readonly forMs: number }
  | { readonly kind: 'wall'; readonly atMs: number; readonly byMs: number }
  | { readonly kind: 'start' | 'stop' | 'remove' | 'recreate' | 'crash'; readonly atMs: number; readonly box: string }
  /** The whole project, its clients and the sidecar, and up again; `compose-up`: what does not run is started. */
  | { readonly kind: 'compose-stop' | 'compose-down'; readonly atMs: number; readonly forMs: number }
  | { readonly kind: 'compose-up'; readonly atMs: number }
  | { readonly kind: 'stuck' | 'sick'; readonly atMs: number; readonly box: string; readonly forMs: number }
  | { readonly kind: 'die'; readonly client: string; readonly atMs: number; readonly withCommand: boolean }
  | { readonly kind: 'pause'; readonly client: string; readonly atMs: number; readonly forMs: number }
  | { readonly kind: 'quit'; readonly client: string; readonly atMs: number }
  | { readonly kind: 'repeat'; readonly client: string; readonly atMs: number };

export type Scenario = {
  /** Of the schedule. */
  readonly seed: number;
  /** Without: every call takes a millisecond, and what is concurrent alone is drawn. */
  readonly isCalm: boolean;
  readonly shutdownHolds: 'release' | 'keep';
  readonly failedRestore: 'keep' | 'release';
  readonly holdMaxMs: number;
  readonly boxes: readonly BoxSpec[];
  readonly hooks: readonly HookSpec[];
  readonly clients: readonly ClientSpec[];
  readonly faults: readonly Fault[];
};

/** Terms are short, so that a world ends within an hour of its own time. */
export const TERMS = {
  hooksTimeoutMs: 60_000,
  healthTimeoutMs: 20_000,
  patienceMs: 60_000,
} as const;

/** From when on nothing new befalls anyone. */
export const HEAL_MS = 130_000;

const JOBS = ['a', 'b', 'c'];
/** By when a world's own troubles have begun. */
const BUSY_MS = 40_000;

export function drawScenario(seed: number): Scenario {
  const random = makeRandom(seed);
  const boxes = drawBoxes(random);
  const clients = Array.from({ length: random.pick([1, 1, 2, 2, 3, 4]) }, (_, index) => drawClient(index, random));
  const hooks = Array.from({ length: random.pick([0, 1, 2, 3]) }, (_, index) => drawHook(index, boxes, random));
  const faults = Array.from({ length: random.pick([0, 1, 1, 2, 2, 3, 4]) }, () => drawFault(boxes, clients, random));
  return {
    seed,
    isCalm: false,
    shutdownHolds: random.chance(0.6) ? 'release' : 'keep',
    failedRestore: random.chance(0.9) ? 'keep' : 'release',
    holdMaxMs: random.pick([300_000, 300_000, 300_000, 60_000]),
    ...{ boxes, hooks, clients, faults },
  };
}

function drawBoxes(random: Random): BoxSpec[] {
  const names = ['db', 'api', 'web', 'mq', 'job'].slice(0, random.pick([1, 2, 3, 3, 4, 5]));
  return names.map((name, index) => ({
    name,
    dependsOn: names.slice(0, index).filter(() => random.chance(0.45)),
    ...(random.chance(0.8) ? { hold: random.chance(0.85) ? 'stop' : 'pause' } : {}),
    ...(random.chance(0.1) ? { holdOn: random.pick(['backup', 'restore']) } : {}),
    ...(random.chance(0.35) ? { jobs: JOBS.filter(() => random.chance(0.5)) } : {}),
    runs: random.chance(0.88),
    ...(random.chance(0.5) ? { healthyAfterMs: random.pick([200, 800, 3_000, 3_000, 30_000]) } : {}),
    stopMs: random.pick([0, 50, 300, 2_000, 9_000, 15_000]),
    startMs: random.pick([5, 50, 400]),
    restart: random.pick(['no', 'unless-stopped', 'always']),
  }));
}

function drawHook(index: number, boxes: readonly BoxSpec[], random: Random): HookSpec {
  const running = boxes.filter(({ runs }) => runs);
  const target = running.length > 0 && random.chance(0.5) ? random.pick(running) : undefined;
  const when = random.chance(0.5) && target?.hold === undefined ? 'held' : 'running';
  return {
    name: `${index + 1}0-hook`,
    ...(target === undefined ? {} : { target: target.name }),
    ...(random.chance(0.3) ? { jobs: [random.pick(JOBS)] } : {}),
    when,
    ms: random.pick([0, 20, 500, 4_000, 4_000, 90_000]),
    preCode: random.pick([0, 0, 0, 0, 0, 0, 3, 75]),
    postCode: random.pick([0, 0, 0, 0, 4]),
    mayFail: random.chance(0.2),
    states: random.pick(['both', 'both', 'both', 'pre', 'post']),
    inspects: random.chance(0.3),
  };
}

function drawClient(index: number, random: Random): ClientSpec {
  return {
    name: `client${index + 1}`,
    atMs: random.int(index === 0 ? 1_000 : 15_000),
    verb: random.chance(0.75) ? 'run' : 'signal',
    operation: random.chance(0.72) ? 'backup' : 'restore',
    job: random.pick(JOBS),
    waitMs: random.pick([0, 30_000, 120_000]),
    commandMs: random.pick([10, 1_000, 8_000, 30_000, 30_000, 30_000, 500_000, 1_200_000]),
    code: random.pick([0, 0, 0, 0, 1]),
    leaseMs: random.pick([20_000, 120_000]),
    forgets: random.chance(0.15),
    inspects: random.chance(0.4),
  };
}

function drawFault(boxes: readonly BoxSpec[], clients: readonly ClientSpec[], random: Random): Fault {
  const atMs = random.chance(0.5) ? random.int(6_000) : random.int(BUSY_MS);
  const downMs = random.pick([0, 100, 2_000, 30_000, 90_000]);
  const box = random.pick(boxes).name;
  const client = random.pick(clients).name;
  const forMs = random.pick([100, 3_000, 20_000, 60_000]);
  const when = random.pick(['before', 'after'] as const);
  const draws: readonly (() => Fault)[] = [
    ...Array.from({ length: 9 }, () => (): Fault => ({ kind: 'kill', point: random.int(220), when, downMs })),
    ...Array.from({ length: 4 }, () => (): Fault => ({ kind: 'kill-ending', point: random.int(40), when, downMs })),
    () => ({ kind: 'kill-at', atMs, downMs }),
    () => ({ kind: 'kill-at', atMs, downMs }),
    () => ({ kind: 'term', atMs, graceMs: random.pick([500, 10_000, 60_000]), downMs }),
    () => ({ kind: 'term', atMs, graceMs: 60_000, downMs }),
    () => ({ kind: 'second', atMs }),
    () => ({ kind: 'release', atMs, which: random.chance(0.5) ? 'all' : random.int(4) }),
    () => ({ kind: 'release', atMs, which: 'all' }),
    () => ({ kind: 'away', atMs, forMs }),
    () => ({ kind: 'away', atMs, forMs }),
    ...Array.from({ length: 4 }, () => (): Fault => ({ kind: 'error', call: random.int(60), when })),
    () => ({ kind: 'slow', call: random.int(60), forMs }),
    () => ({ kind: 'restart-engine', atMs, forMs: random.pick([100, 3_000]), live: random.chance(0.3) }),
    () => ({ kind: 'disk-full', atMs, forMs }),
    () => ({ kind: 'disk-full', atMs, forMs }),
    () => ({ kind: 'wall', atMs, byMs: random.pick([-3_600_000, 3_600_000]) }),
    () => ({ kind: random.pick(['start', 'stop', 'remove', 'recreate', 'crash'] as const), atMs, box }),
    () => ({ kind: random.pick(['start', 'recreate'] as const), atMs, box }),
    () => ({ kind: random.pick(['compose-stop', 'compose-down'] as const), atMs, forMs }),
    () => ({ kind: random.pick(['compose-stop', 'compose-down'] as const), atMs, forMs }),
    () => ({ kind: 'compose-up', atMs }),
    () => ({ kind: random.pick(['stuck', 'sick'] as const), atMs, box, forMs }),
    () => ({ kind: 'die', client, atMs, withCommand: random.chance(0.5) }),
    () => ({ kind: 'die', client, atMs, withCommand: true }),
    () => ({ kind: 'pause', client, atMs, forMs: random.pick([5_000, 90_000, 200_000]) }),
    () => ({ kind: 'quit', client, atMs }),
    () => ({ kind: 'repeat', client, atMs }),
  ];
  return random.pick(draws)();
}

/** Whether a workload is held for that operation and job, as its labels say. */
export function isHeldFor(box: BoxSpec, { operation, job }: Pick<Request, 'operation' | 'job'>): boolean {
  if (box.hold === undefined) return false;
  return (box.holdOn ?? operation) === operation && (box.jobs?.includes(job) ?? true);
}

/** All that a workload needs, directly or not. */
export function needsOf(name: string, boxes: readonly BoxSpec[]): ReadonlySet<string> {
  const needs = new Set<string>();
  const visit = (one: string): void => {
    for (const other of boxes.find((box) => box.name === one)?.dependsOn ?? []) {
      if (needs.has(other)) continue;
      needs.add(other);
      visit(other);
    }
  };
  visit(name);
  return needs;
}
