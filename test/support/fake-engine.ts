import { OperationalError } from '../../src/core/errors.ts';
import type { HoldKind } from '../../src/core/hold.ts';
import type { Clock, Driver, ProgramCall, Sink, View } from '../../src/core/ports.ts';
import { type Outcome, outcomeOfAbort } from '../../src/core/result.ts';
import type { Dependency, Workload, WorkloadRef, WorkloadState } from '../../src/core/workload.ts';

/** How a workload of the fake engine behaves. Times are milliseconds of the clock that it was made with. */
export type Box = {
  name: string;
  project: string;
  instance: string;
  state: WorkloadState;
  health: Workload['health'];
  startedAt: number;
  finishedAt: number;
  exitCode: number;
  labels: Record<string, string>;
  dependsOn: Dependency[];
  /** From being asked to stop to being stopped; over its time-out it is killed. */
  stopMs: number;
  startMs: number;
  /** Undefined: no health check. */
  healthyAfterMs?: number;
  /** Why it cannot be started. */
  stuck?: string;
  unholdable?: string;
  oneOff: boolean;
};

/** What a hook does: by the text of its command, or of its script. */
export type FakeHook = (call: ProgramCall, sink: Sink, signal: AbortSignal) => Promise<Outcome | number>;

/**
 * An engine in memory that behaves as Docker does (ENGINES: a stop goes on when its caller has died, a start of what
 * runs is no error), with a diary of what was really done, and when.
 */
export function makeFakeEngine(clock: Clock) {
  const boxes = new Map<string, Box>();
  const diary: { readonly at: number; readonly did: string; readonly name: string }[] = [];
  const hooks = new Map<string, FakeHook>();
  const stops = new Map<string, Promise<void>>();
  const waiting = new Set<() => void>();
  const never = new AbortController().signal;
  let made = 0;
  let tick = 0;
  let away: string | undefined;
  let unholdable: string | undefined;

  const nextTick = (): number => {
    tick += 1;
    return tick;
  };
  const makeInstance = (): string => {
    made += 1;
    return `i${made}`;
  };
  const note = (did: string, name: string): void => {
    diary.push({ at: clock.monotonicMs(), did, name });
    for (const wake of waiting) wake();
    waiting.clear();
  };
  const reach = (doing: string): void => {
    if (away !== undefined) throw new OperationalError('engine-unavailable', `${doing}: ${away}`);
  };
  const find = ({ instance }: { readonly instance: string }): Box | undefined =>
    [...boxes.values()].find((box) => box.instance === instance);
  const mustFind = (doing: string, ref: WorkloadRef): Box => {
    const box = find(ref);
    if (box === undefined) throw new OperationalError('workload-failed', `${doing} ${ref.name}: no such container`);
    return box;
  };

  const end = (box: Box, exitCode: number): void => {
    Object.assign(box, { state: 'exited', health: 'none', exitCode, finishedAt: nextTick() });
    note('stopped', box.name);
  };
  const begin = (box: Box): void => {
    Object.assign(box, { state: 'running', startedAt: nextTick(), health: 'none' });
    note('started', box.name);
    const { healthyAfterMs, startedAt } = box;
    if (healthyAfterMs === undefined) return;
    box.health = 'starting';
    void clock.sleep(healthyAfterMs, never).then(() => {
      if (box.state !== 'running' || box.startedAt !== startedAt) return;
      box.health = 'healthy';
      note('healthy', box.name);
    });
  };
  const stop = (box: Box, timeoutMs: number): Promise<void> => {
    const known = stops.get(box.instance);
    if (known !== undefined) return known;
    note('stopping', box.name);
    const done = clock.sleep(Math.min(box.stopMs, timeoutMs), never).then(() => {
      stops.delete(box.instance);
      if (box.state === 'running') end(box, box.stopMs > timeoutMs ? 137 : 0);
    });
    stops.set(box.instance, done);
    return done;
  };
  const unlessAborted = <T>(work: Promise<T>, signal: AbortSignal): Promise<T> =>
    new Promise((resolve, reject) => {
      if (signal.aborted) return reject(signal.reason);
      signal.addEventListener('abort', () => reject(signal.reason), { once: true });
      work.then(resolve, reject);
    });

  const driver: Driver = {
    engine: 'docker',
    async look(_targets, signal): Promise<View> {
      signal.throwIfAborted();
      reach('list containers');
      const workloads = [...boxes.values()].map(workloadOf);
      return { workloads, project: 'app', notes: [], ...(unholdable === undefined ? {} : { unholdable }) };
    },
    async inspect(ref, signal) {
      signal.throwIfAborted();
      reach(`inspect container ${ref.name}`);
      const box = find(ref) ?? [...boxes.values()].find((other) => keyOf(other) === ref.key);
      return box === undefined ? undefined : workloadOf(box);
    },
    async exec(call, sink, signal) {
      const { place, program } = call.call;
      if (place.kind === 'host') throw new Error('a host hook is not the engine’s');
      if (away !== undefined) return { status: 'broken', exitCode: 69, why: away };
      const box = find(place);
      if (box === undefined)
        return { status: 'broken', exitCode: 126, why: `container ${place.name}: no such container` };
      if (box.state !== 'running')
        return { status: 'broken', exitCode: 126, why: `container ${place.name} is ${box.state}` };
      const text = program.kind === 'shell' ? program.line : program.kind === 'script' ? program.text : program.kind;
      return runHook(hooks, text, call, sink, signal, (did) => note(did, place.name));
    },
    async endLeftovers(ref, markPrefix) {
      note(`leftovers ${markPrefix}`, ref.name);
    },
    async hold(ref, kind, timeoutMs, signal) {
      signal.throwIfAborted();
      reach(`${kind} container ${ref.name}`);
      const box = mustFind(kind, ref);
      if (kind === 'stop') {
        if (box.state === 'running' || box.state === 'paused')
          await unlessAborted(stop(box, timeoutMs ?? 10_000), signal);
        return workloadOf(mustFind(kind, ref));
      }
      if (box.state === 'running') {
        box.state = 'paused';
        note('paused', box.name);
      }
      return workloadOf(box);
    },
    async release(ref, kind: HoldKind, signal) {
      signal.throwIfAborted();
      reach(`start container ${ref.name}`);
      const box = mustFind('start', ref);
      if (kind === 'pause' && box.state === 'paused') {
        box.state = 'running';
        note('unpaused', box.name);
        return workloadOf(box);
      }
      if (box.state === 'running') return workloadOf(box);
      if (box.stuck !== undefined)
        throw new OperationalError('workload-failed', `start container ${box.name}: ${box.stuck}`);
      await unlessAborted(clock.sleep(box.startMs, never), signal);
      begin(box);
      return workloadOf(box);
    },
    async *changes(signal) {
      for (;;) {
        await unlessAborted(new Promise<void>((wake) => waiting.add(wake)), signal);
        yield;
      }
    },
  };

  return {
    driver,
    diary,
    hooks,
    boxes,
    /** Adds a running container, with boring defaults. */
    add(name: string, more: Partial<Box> = {}): Box {
      const box: Box = {
        ...{ name, project: 'app', instance: makeInstance(), state: 'running', health: 'none', oneOff: false },
        ...{ startedAt: nextTick(), finishedAt: 0, exitCode: 0, labels: {}, dependsOn: [], stopMs: 100, startMs: 50 },
        ...more,
      };
      if (box.healthyAfterMs !== undefined && box.state === 'running') box.health = 'healthy';
      boxes.set(name, box);
      return box;
    },
    /** As `compose up --force-recreate`: another instance under the same name. */
    recreate(name: string): Box {
      const old = boxes.get(name);
      if (old === undefined) throw new Error(`no box ${name}`);
      const box = { ...old, instance: makeInstance() };
      boxes.set(name, box);
      begin(box);
      return box;
    },
    /** Somebody else's hand. */
    start: (name: string) => begin(boxes.get(name) as Box),
    kill: (name: string) => end(boxes.get(name) as Box, 137),
    setAway(why: string | undefined): void {
      away = why;
    },
    setUnholdable(why: string | undefined): void {
      unholdable = why;
    },
    running: () => [...boxes.values()].filter(({ state }) => state === 'running').map(({ name }) => name),
    did: (...verbs: string[]) =>
      diary.filter(({ did }) => verbs.includes(did)).map(({ did, name }) => `${did} ${name}`),
  };
}

async function runHook(
  hooks: ReadonlyMap<string, FakeHook>,
  text: string,
  call: ProgramCall,
  sink: Sink,
  signal: AbortSignal,
  note: (did: string) => void,
): Promise<Outcome> {
  note(`hook ${text}`);
  const hook = hooks.get(text);
  const ended = (await hook?.(call, sink, signal).catch(() => outcomeOfAbort(signal))) ?? 0;
  note(`ended ${text}`);
  if (typeof ended !== 'number') return ended;
  return ended === 0 ? { status: 'succeeded' } : { status: 'failed', exitCode: ended };
}

function keyOf({ project, name }: Box): string {
  return `${project}/${name}/1`;
}

function workloadOf(box: Box): Workload {
  const { name, project, instance, state, health, startedAt, finishedAt, exitCode, labels, dependsOn, oneOff } = box;
  return {
    ...{
      kind: 'container',
      key: keyOf(box),
      instance,
      name,
      project,
      service: name,
      number: 1,
      oneOff,
      inScope: true,
      foreign: false,
    },
    ...{ labels, imageLabels: [], state, health, exitCode, healthTermMs: 0, dependsOn },
    startedAt: String(startedAt).padStart(8, '0'),
    finishedAt: String(finishedAt).padStart(8, '0'),
    ...(box.unholdable === undefined ? {} : { unholdable: box.unholdable }),
  };
}
