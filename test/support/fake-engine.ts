import { OperationalError } from '../../src/core/errors.ts';
import type { HoldKind } from '../../src/core/hold.ts';
import type { Clock, Driver, ProgramCall, Sink, View } from '../../src/core/ports.ts';
import { type Outcome, outcomeOfAbort, outcomeUnbegun } from '../../src/core/result.ts';
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
  /** It has the directory that clients share. */
  isClient?: true;
  oneOff: boolean;
};

/** What a hook does: by the text of its command, or of its script; `*` is for whatever has none of its own. */
export type FakeHook = (call: ProgramCall, sink: Sink, signal: AbortSignal) => Promise<Outcome | number>;

/** What was really done, when, and whether the driver asked for it or somebody else did. */
export type Entry = {
  readonly at: number;
  readonly did: string;
  readonly name: string;
  readonly by: 'driver' | 'other';
};

/** What befalls the driver's calls on their way there and back; a throw is what the driver's caller gets. */
export type Weather = (call: string, name: string, when: 'before' | 'after') => Promise<void>;

/** A hook that runs in a workload, or on the host; it outlives whoever asked for it. */
type Process = { readonly mark: string; readonly box: Box; readonly end: (outcome: Outcome) => void };

/**
 * An engine in memory that behaves as Docker does (a stop goes on when its caller has died, a start of what runs is no
 * error, a hook outlives the sidecar), with a diary.
 */
export function makeFakeEngine(clock: Clock, weather?: Weather) {
  const boxes = new Map<string, Box>();
  const diary: Entry[] = [];
  const hooks = new Map<string, FakeHook>();
  const stops = new Map<string, Promise<void>>();
  const starts = new Map<string, Promise<void>>();
  const waiting = new Set<() => void>();
  const listeners = new Set<(entry: Entry) => void>();
  const processes = new Set<Process>();
  const never = new AbortController().signal;
  const stoppedByOthers = new Set<string>();
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
  const wakeAll = (): void => {
    for (const wake of waiting) wake();
    waiting.clear();
  };
  const note = (did: string, name: string, by: Entry['by'] = 'driver'): void => {
    const entry = { at: clock.monotonicMs(), did, name, by };
    diary.push(entry);
    for (const listener of listeners) listener(entry);
    wakeAll();
  };
  /** One call on its way to the engine and back. */
  const ask = async <T>(call: string, name: string, signal: AbortSignal, work: () => T | Promise<T>): Promise<T> => {
    signal.throwIfAborted();
    if (weather !== undefined) await unlessAborted(weather(call, name, 'before'), signal);
    if (away !== undefined) throw new OperationalError('engine-unavailable', `${call} ${name}: ${away}`);
    const result = await work();
    if (weather !== undefined) await unlessAborted(weather(call, name, 'after'), signal);
    if (away !== undefined) throw new OperationalError('engine-unavailable', `${call} ${name}: ${away}`);
    return result;
  };
  const find = ({ instance }: { readonly instance: string }): Box | undefined =>
    [...boxes.values()].find((box) => box.instance === instance);
  /** The instance, or what took its place. */
  const findHeir = (ref: WorkloadRef): Box | undefined =>
    find(ref) ?? [...boxes.values()].find((other) => keyOf(other) === ref.key);
  const mustFind = (doing: string, ref: WorkloadRef): Box => {
    const box = find(ref);
    if (box === undefined) throw new OperationalError('workload-failed', `${doing} ${ref.name}: no such container`);
    return box;
  };
  const endProcesses = (isMeant: (process: Process) => boolean, outcome: Outcome): void => {
    for (const process of [...processes].filter(isMeant)) process.end(outcome);
  };

  const end = (box: Box, exitCode: number, by: Entry['by']): void => {
    Object.assign(box, { state: 'exited', health: 'none', exitCode, finishedAt: nextTick() });
    const why = `its container ${box.name} stopped while it ran`;
    endProcesses((process) => process.box === box, { status: 'killed', signal: 9, why });
    note('stopped', box.name, by);
  };
  const begin = (box: Box, by: Entry['by']): void => {
    Object.assign(box, { state: 'running', startedAt: nextTick(), health: 'none' });
    if (box.healthyAfterMs !== undefined) box.health = 'starting';
    note('started', box.name, by);
    check(box);
  };
  /** Its health check, which does not go on while it is paused, and begins anew after that. */
  const check = (box: Box): void => {
    const { healthyAfterMs, startedAt } = box;
    if (healthyAfterMs === undefined || box.health !== 'starting') return;
    void clock.sleep(healthyAfterMs, never).then(() => {
      if (box.state !== 'running' || box.startedAt !== startedAt || box.health !== 'starting') return;
      box.health = 'healthy';
      note('healthy', box.name, 'other');
    });
  };
  const stop = (box: Box, timeoutMs: number): Promise<void> => {
    const known = stops.get(box.instance);
    if (known !== undefined) return known;
    note('stopping', box.name);
    const { startedAt } = box;
    const done = clock.sleep(Math.min(box.stopMs, timeoutMs), never).then(() => {
      stops.delete(box.instance);
      if (['running', 'paused'].includes(box.state) && box.startedAt === startedAt && boxes.get(box.name) === box)
        end(box, box.stopMs > timeoutMs ? 137 : 0, 'driver');
    });
    stops.set(box.instance, done);
    return done;
  };
  const start = (box: Box): Promise<void> => {
    const known = starts.get(box.instance);
    if (known !== undefined) return known;
    note('starting', box.name);
    const done = clock.sleep(box.startMs, never).then(() => {
      starts.delete(box.instance);
      if (box.state !== 'running' && boxes.get(box.name) === box) begin(box, 'driver');
    });
    starts.set(box.instance, done);
    return done;
  };

  const driver: Driver = {
    engine: 'docker',
    look: (_targets, signal): Promise<View> =>
      ask('list', 'containers', signal, () => {
        const workloads = [...boxes.values()].map(workloadOf);
        const clients = [...boxes.values()]
          .filter(({ isClient, state }) => isClient === true && state !== 'exited')
          .map(workloadOf)
          .map(({ key, instance, name, state, startedAt }) => ({
            ...{ key, instance, name },
            startedAt: state === 'created' ? '' : startedAt,
          }));
        return { workloads, project: 'app', clients, notes: [], ...(unholdable === undefined ? {} : { unholdable }) };
      }),
    inspect: (ref, signal) =>
      ask('inspect', ref.name, signal, () => {
        const box = findHeir(ref);
        return box === undefined ? undefined : workloadOf(box);
      }),
    async exec(call, sink, signal) {
      const { place, program } = call.call;
      if (place.kind === 'host') throw new Error('a host hook is not the engine’s');
      if (signal.aborted) return outcomeOfAbort(signal);
      try {
        if (weather !== undefined) await unlessAborted(weather('exec', place.name, 'before'), signal);
      } catch (error) {
        if (signal.aborted) return outcomeUnbegun(signal);
        return { status: 'broken', exitCode: 69, why: String(error) };
      }
      if (away !== undefined) return { status: 'broken', exitCode: 69, why: away };
      const box = find(place);
      const cannot = (why: string): Outcome => ({
        status: 'broken',
        exitCode: 126,
        why: `container ${place.name} ${why}`,
      });
      const isRunnable = box?.state === 'running';
      if (!isRunnable) note(`cannot hook ${call.call.name}`, place.name);
      if (box === undefined) return cannot('no longer exists');
      if (!isRunnable) return cannot(`is ${box.state}`);
      const text = program.kind === 'shell' ? program.line : program.kind === 'script' ? program.text : program.kind;
      const needs = program.kind === 'script' ? program.interpreter[0] : undefined;
      if (needs?.includes('absent'))
        return { status: 'broken', exitCode: 127, why: `container ${box.name} has no ${needs}` };
      return run(box, text, call, sink, signal);
    },
    endLeftovers: (ref, markPrefix, signal) =>
      ask('end leftovers', ref.name, signal, () => {
        const box = findHeir(ref);
        note(`leftovers ${markPrefix}`, ref.name);
        const why = { status: 'killed', signal: 9, why: 'what a dead sidecar left was ended' } as const;
        endProcesses((process) => process.box === box && process.mark.startsWith(markPrefix), why);
      }),
    hold: (ref, kind, timeoutMs, signal) =>
      ask(kind, ref.name, signal, async () => {
        const box = mustFind(kind, ref);
        if (kind === 'stop') {
          if (box.state === 'running' || box.state === 'paused')
            await unlessAborted(stop(box, timeoutMs ?? 10_000), signal);
          return workloadOf(mustFind(kind, ref));
        }
        if (box.state === 'paused') return workloadOf(box);
        if (box.state !== 'running')
          throw new OperationalError('workload-failed', `pause ${box.name}: it is ${box.state}`);
        box.state = 'paused';
        note('paused', box.name);
        return workloadOf(box);
      }),
    release: (ref, kind: HoldKind, signal) =>
      ask('start', ref.name, signal, async () => {
        const box = mustFind('start', ref);
        if (kind === 'pause' && box.state === 'paused') {
          box.state = 'running';
          note('unpaused', box.name);
          check(box);
          return workloadOf(box);
        }
        if (box.state === 'running') return workloadOf(box);
        if (box.stuck !== undefined) {
          note('cannot start', box.name);
          throw new OperationalError('workload-failed', `start container ${box.name}: ${box.stuck}`);
        }
        await unlessAborted(start(box), signal);
        return workloadOf(mustFind('start', ref));
      }),
    findStopping: (except, _forMs, signal) =>
      ask('follow', 'events', signal, () => {
        const isOther = (name: string): boolean => {
          const box = boxes.get(name); // that it was removed since does not call it off
          return box === undefined || (box.isClient === undefined && !except.includes(keyOf(box)));
        };
        return [...stoppedByOthers].find(isOther);
      }),
    async *changes(signal) {
      const aborted = new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }));
      for (yield; !signal.aborted; yield) {
        await Promise.race([new Promise<void>((wake) => waiting.add(wake)), aborted]);
        if (signal.aborted) return;
      }
    },
    examine: async () => [],
  };

  async function run(box: Box, text: string, call: ProgramCall, sink: Sink, signal: AbortSignal): Promise<Outcome> {
    const ended = Promise.withResolvers<Outcome>();
    const own = new AbortController();
    const finish = (outcome: Outcome): void => {
      processes.delete(process);
      ended.resolve(outcome);
    };
    const process: Process = {
      mark: call.mark,
      box,
      end(outcome) {
        own.abort(new Error('ended'));
        finish(outcome);
      },
    };
    processes.add(process);
    note(`hook ${text}`, box.name);
    const onAbort = (): void => process.end(outcomeOfAbort(signal));
    signal.addEventListener('abort', onAbort, { once: true });
    const hook = hooks.get(text) ?? hooks.get('*');
    (hook?.(call, sink, own.signal) ?? Promise.resolve(0)).then(
      (result) => finish(typeof result === 'number' ? outcomeOfCode(result) : result),
      () => finish({ status: 'killed', signal: 9 }),
    );
    const outcome = await ended.promise;
    signal.removeEventListener('abort', onAbort);
    note(`ended ${text}`, box.name);
    return outcome;
  }

  return {
    driver,
    diary,
    hooks,
    boxes,
    listeners,
    processes,
    /** What does not become healthy may do so now. */
    check,
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
    recreate(name: string, old: Box | undefined = boxes.get(name)): Box {
      if (old === undefined) throw new Error(`no box ${name}`);
      const box = { ...old, instance: makeInstance() };
      boxes.set(name, box);
      endProcesses((process) => process.box === old, { status: 'killed', signal: 9, why: 'its container was removed' });
      begin(box, 'other');
      return box;
    },
    remove(name: string): void {
      const old = boxes.get(name);
      boxes.delete(name);
      const why = 'its container was removed while it ran';
      endProcesses((process) => process.box === old, { status: 'killed', signal: 9, why });
      note('removed', name, 'other');
    },
    /** Somebody else's hand. */
    start: (name: string) => begin(boxes.get(name) as Box, 'other'),
    kill: (name: string) => end(boxes.get(name) as Box, 137, 'other'),
    forgetStops: () => stoppedByOthers.clear(),
    /** As `compose stop`, which does nothing with what we hold. */
    stopByCompose(...names: readonly string[]): void {
      for (const name of names) {
        const box = boxes.get(name);
        if (box?.state !== 'running' && box?.state !== 'paused') continue;
        stoppedByOthers.add(name);
        end(box, 0, 'other');
      }
    },
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

/** The work, or the signal's reason, whichever comes first; leaves no listener behind. */
function unlessAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    if (signal.aborted) return reject(signal.reason);
    const onAbort = (): void => reject(signal.reason);
    signal.addEventListener('abort', onAbort, { once: true });
    const done = (): void => signal.removeEventListener('abort', onAbort);
    work.finally(done).then(resolve, reject);
  });
}

function outcomeOfCode(exitCode: number): Outcome {
  return exitCode === 0 ? { status: 'succeeded' } : { status: 'failed', exitCode };
}

function keyOf({ project, name }: Box): string {
  return `${project}/${name}/1`;
}

function workloadOf(box: Box): Workload {
  const { name, project, instance, state, health, startedAt, finishedAt, exitCode, labels, dependsOn, oneOff } = box;
  return {
    kind: 'container',
    ...{ key: keyOf(box), instance, name, project, service: name, number: 1, oneOff, inScope: true, foreign: false },
    ...{ labels, imageLabels: [], state, health, exitCode, healthTermMs: 0, dependsOn },
    startedAt: String(startedAt).padStart(8, '0'),
    finishedAt: String(finishedAt).padStart(8, '0'),
    ...(box.unholdable === undefined ? {} : { unholdable: box.unholdable }),
  };
}
