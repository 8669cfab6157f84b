/** One world from its beginning to its end: the sidecar, its engine, its clients, and what befalls them. */
import { mkdirSync } from 'node:fs';
import { OperationalError } from '../../src/core/errors.ts';
import type { Host, Log } from '../../src/core/ports.ts';
import type { Request } from '../../src/core/request.ts';
import { type Outcome, outcomeOfAbort } from '../../src/core/result.ts';
import { conduct } from '../../src/run/conduct.ts';
import { type FakeHook, makeFakeEngine } from '../support/fake-engine.ts';
import { type Client, startClient } from './clients.ts';
import { makeLaws, type Violation } from './laws.ts';
import { type Fault, HEAL_MS, type HookSpec, type Scenario, TERMS } from './scenario.ts';
import { boot, copyJournal, Killed, type openShelf } from './sidecar.ts';
import { makeVolume } from './volume.ts';
import { clockOf, makeRandom, makeWorld } from './world.ts';

/** By when all must be quiet. */
const QUIET_MS = HEAL_MS + 2_400_000;
/** What a sidecar may take after its start until it has looked at all that it holds, and held again what it must. */
const SETTLED_MS = 20_000;
const PROBE_MS = 600_000;

export type Result = {
  readonly violations: readonly Violation[];
  readonly story: readonly string[];
  readonly events: number;
  readonly runs: number;
};

type Incarnation = ReturnType<typeof boot> & { readonly number: number; readonly dir: string; isEnding: boolean };

/** `tells`: with a story, which costs time. */
export async function simulate(
  scenario: Scenario,
  shelf: ReturnType<typeof openShelf>,
  { tells = false }: { readonly tells?: boolean } = {},
): Promise<Result> {
  const random = makeRandom(scenario.seed ^ 0x5bd1e995);
  const world = makeWorld(random);
  const wall = { offsetMs: 0 };
  const clock = clockOf(world, wall);
  const story: string[] = [];
  const tell = (what: string): void => {
    if (tells) story.push(`${String(world.now()).padStart(8)}  ${what}`);
  };

  let current: Incarnation | undefined;
  let stateDir = shelf.make();
  let incarnations = 0;
  let points = 0;
  let endingSince = Infinity;
  let calls = 0;
  let runs = 0;
  let isHealed = false;
  let isProbing = false;
  let isDiskFull = false;
  let isUp = false;
  let upMs = 0;
  let isProjectDown = false;
  const faults = new Set(scenario.faults);
  const latency = (): number => (scenario.isCalm ? 1 : random.chance(0.02) ? random.int(3_000) : random.int(8));

  /** What a sidecar has sent before it is killed gets there at once, or never: not after what the next one sends. */
  const travelling = new Set<() => void>();
  const travel = async (ms: number): Promise<void> => {
    const sender = current?.number;
    const arrived = Promise.withResolvers<void>();
    travelling.add(arrived.resolve);
    const callOff = world.after(ms, arrived.resolve);
    await arrived.promise;
    travelling.delete(arrived.resolve);
    callOff();
    if (current?.number !== sender && random.chance(0.5)) throw new Killed('lost on its way');
  };
  const engine = makeFakeEngine(clock, async (call, name, when) => {
    if (when === 'before') calls += 1;
    const number = calls;
    await travel(latency());
    if (isHealed) return;
    for (const fault of faults) {
      if ((fault.kind !== 'error' && fault.kind !== 'slow') || fault.call !== number) continue;
      if (fault.kind === 'error' && fault.when !== when) continue;
      faults.delete(fault);
      tell(`the engine is ${fault.kind} at ${call} ${name} (${when})`);
      if (fault.kind === 'slow') {
        await travel(fault.forMs);
        continue;
      }
      if (call === 'start') laws.onFailedStart(name);
      const code = random.chance(0.5) ? 'workload-failed' : 'engine-unavailable';
      throw new OperationalError(code, `${call} ${name}: it answered 500`);
    }
  });
  const laws = makeLaws(scenario, engine.boxes, world.now);
  engine.listeners.add((entry) => {
    tell(`engine: ${entry.did} ${entry.name}${entry.by === 'other' ? ' (not us)' : ''}`);
    laws.onEntry(entry);
  });
  for (const spec of scenario.boxes) {
    const { name, dependsOn, hold, holdOn, jobs, runs: isRunning, healthyAfterMs, stopMs, startMs } = spec;
    engine.add(name, {
      labels: {
        ...(hold === undefined ? {} : { 'sidehook.hold': hold }),
        ...(holdOn === undefined || hold === undefined ? {} : { 'sidehook.hold.on': holdOn }),
        ...(jobs === undefined || hold === undefined
          ? {}
          : { 'sidehook.job': jobs.length === 0 ? 'nobody' : jobs.join(',') }),
      },
      dependsOn: dependsOn.map((service) => ({ project: 'app', service, condition: 'service_healthy' })),
      state: isRunning ? 'running' : 'exited',
      ...(healthyAfterMs === undefined ? {} : { healthyAfterMs }),
      ...{ stopMs, startMs },
    });
  }

  // Hooks, on the host and in workloads, as processes that outlive the sidecar.
  const hookOf = (name: string): HookSpec => scenario.hooks.find((hook) => hook.name === name) as HookSpec;
  const runHook: FakeHook = async ({ call, env }, sink, signal) => {
    const hook = hookOf(call.name);
    const requestId = env.SIDEHOOK_PARAM_REQUEST ?? 'none';
    const place = call.place.kind === 'host' ? 'host' : call.place.name;
    tell(`hook ${hook.name} ${call.state} for ${requestId} in ${place}`);
    laws.onHook(hook, call.state, requestId, place);
    let code = call.state === 'pre' ? hook.preCode : hook.postCode;
    if (isProbing) code = 0;
    try {
      await sink({ stream: 'out', bytes: Buffer.from('line\n') });
      await world.sleep(isProbing ? 1 : hook.ms, signal);
    } catch (error) {
      code = 137;
      throw error;
    } finally {
      laws.onHookEnd(hook, call.state, requestId, place, code === 0);
      tell(`hook ${hook.name} ${call.state} ends ${code}`);
    }
    return code;
  };
  engine.hooks.set('*', runHook);
  engine.listeners.add(({ did }) => {
    if (!did.startsWith('cannot hook ')) return;
    for (const { request } of laws.requests.values()) {
      if (request.state === 'pre') laws.onHookTried(hookOf(did.slice('cannot hook '.length)), 'post', request.id);
    }
  });
  const hostProcesses = new Map<string, AbortController>();
  const host: Host = {
    async list() {
      await world.sleep(latency());
      const files = scenario.hooks.map((hook) => {
        const states = [
          ...(hook.states === 'both' ? ['pre', 'post'] : [hook.states]),
          ...(hook.inspects ? ['inspect'] : []),
        ];
        const on = states.map((state) => `*.${state}`).join();
        const target = hook.target === undefined ? 'host' : `container:${hook.target}`;
        const job = hook.jobs === undefined ? '' : ` job=${hook.jobs.join(',')}`;
        const text = `#!/bin/sh\n# sidehook: target=${target} on=${on} while=${hook.when}${job} on-error=${hook.mayFail ? 'continue' : 'abort'} outcome=success,failure,aborted,skipped,abandoned\n`;
        return { name: hook.name, path: `/hooks.d/${hook.name}`, text, head: text };
      });
      return { files, passedOver: [] };
    },
    async run(call, sink, signal): Promise<Outcome> {
      await travel(latency());
      if (signal.aborted) return outcomeOfAbort(signal);
      const process = new AbortController();
      const onAbort = (): void => process.abort(signal.reason);
      signal.addEventListener('abort', onAbort, { once: true });
      hostProcesses.set(call.mark, process);
      try {
        const ended = await runHook(call, sink, process.signal);
        if (typeof ended !== 'number') return ended;
        return ended === 0 ? { status: 'succeeded' } : { status: 'failed', exitCode: ended };
      } catch {
        return signal.aborted ? outcomeOfAbort(signal) : { status: 'killed', signal: 9 };
      } finally {
        hostProcesses.delete(call.mark);
        signal.removeEventListener('abort', onAbort);
      }
    },
    async endLeftovers(prefix) {
      for (const [mark, process] of hostProcesses) if (mark.startsWith(prefix)) process.abort(new Error('left over'));
    },
  };

  const volume = makeVolume(world);

  // The sidecar.
  const makeLog = (isAlive: () => boolean): Log => {
    const say = (level: string) => (message: string, fields?: Record<string, unknown>) => {
      if (tells && isAlive()) tell(`  ${level}: ${message} ${fields === undefined ? '' : JSON.stringify(fields)}`);
    };
    const log: Log = {
      ...{ debug: say('debug'), info: say('info'), warn: say('warn'), error: say('error') },
      hookOutput: () => undefined,
      child: () => log,
    };
    return log;
  };
  const kill = (why: string, downMs: number): void => {
    if (current === undefined) return;
    tell(`the sidecar is killed: ${why}`);
    const dead = current;
    current = undefined;
    isUp = false;
    const left = `${dead.dir}k`;
    mkdirSync(left);
    copyJournal(dead.dir, left);
    dead.journal[Symbol.dispose]();
    shelf.remove(dead.dir);
    stateDir = left;
    for (const arrive of travelling) arrive();
    world.after(downMs, start);
  };
  const point = (what: string, when: 'before' | 'after'): void => {
    points += 1;
    if (isHealed) return;
    for (const fault of faults) {
      if (fault.kind !== 'kill' && fault.kind !== 'kill-ending') continue;
      const since = fault.kind === 'kill' ? 0 : endingSince;
      if (since + fault.point * 2 + (fault.when === 'before' ? 1 : 2) > points) continue;
      faults.delete(fault);
      kill(`${when} ${what}`, fault.downMs);
      return;
    }
  };
  const open = (): Incarnation => {
    incarnations += 1;
    const number = incarnations;
    const isAlive = (): boolean => current?.number === number;
    const dir = stateDir;
    const opened = boot(dir, {
      ...{ point, isAlive, host, driver: engine.driver, clock },
      onPhase: (phase) => {
        if (phase === 'post') endingSince = Math.min(endingSince, points);
      },
      writeTrouble: () => (isDiskFull ? 'database or disk is full' : undefined),
      onBug: (error) => {
        laws.breaks('bug', error instanceof Error ? (error.stack ?? error.message) : String(error));
      },
      log: makeLog(isAlive),
      settings: {
        ...{ operations: ['backup', 'restore'], hooksTimeoutMs: TERMS.hooksTimeoutMs },
        ...{ healthTimeoutMs: TERMS.healthTimeoutMs, unclean: 'warn', holdMaxMs: scenario.holdMaxMs },
        ...{ failedRestore: scenario.failedRestore, shutdownHolds: scenario.shutdownHolds },
      },
      makeRunId: () => {
        runs += 1;
        return `run-${runs}`;
      },
    });
    const incarnation = { ...opened, number, dir, isEnding: false };
    current = incarnation;
    return incarnation;
  };
  const start = (): void => {
    if (current !== undefined || isProjectDown) {
      world.after(1_000, start); // the journal lets one in at a time; and compose starts what compose has stopped
      return;
    }
    tell('the sidecar starts');
    laws.onBoot();
    const incarnation = open();
    const isAlive = (): boolean => current === incarnation;
    isUp = true;
    upMs = world.now();
    const intake = volume.openIntake(isAlive, (request, answer) => {
      tell(`answer to ${request.id} (${request.state}): ${JSON.stringify(answer)}`);
      laws.onAnswer(request, answer, incarnation.journal.answerOf(request.id) !== undefined);
    });
    incarnation.serve(intake);
  };
  const close = (incarnation: Incarnation): void => {
    current = undefined;
    isUp = false;
    incarnation.end();
  };
  const terminate = (graceMs: number, downMs: number): void => {
    const incarnation = current;
    if (incarnation === undefined || incarnation.isEnding) return;
    incarnation.isEnding = true;
    tell('the sidecar is told to end');
    laws.onTerm();
    const callOff = world.after(graceMs, () => current === incarnation && kill('its time to end is over', downMs));
    incarnation.terminate().then(
      () => {
        if (current !== incarnation) return;
        callOff();
        tell('the sidecar ends');
        close(incarnation);
        world.after(downMs, start);
      },
      (error) => {
        if (current === incarnation) laws.breaks('bug', `TERM: ${error?.stack}`);
      },
    );
  };
  const second = (): void => {
    if (current === undefined) return;
    try {
      boot(stateDir, { point: () => undefined } as never);
      laws.breaks('one', 'a second sidecar was let in to the same journal');
    } catch (error) {
      if (!(error instanceof OperationalError)) laws.breaks('bug', `a second sidecar: ${error}`);
      tell(`a second sidecar: ${(error as Error).message.replace(stateDir, 'STATE')}`); // which is another one each time
    }
  };
  /** `sidehook release`: asks the daemon, or does it over the journal itself where that is down. */
  const release = async (which: 'all' | number): Promise<void> => {
    const isOffline = current === undefined;
    const incarnation = current ?? open();
    tell(`sidehook release ${which}${isOffline ? ', with the daemon down' : ''}`);
    const runId = which === 'all' ? undefined : incarnation.journal.runs('live')[which]?.id;
    let released = (): void => undefined;
    if (which === 'all' || runId !== undefined) {
      released = laws.onRelease();
      const asked = runId === undefined ? ({ all: true } as const) : { runId };
      const answer = await incarnation.views().release(asked, new AbortController().signal);
      tell(`release: ${JSON.stringify(answer)}`);
    }
    if (current !== incarnation) return;
    released();
    if (isOffline) close(incarnation);
  };

  // What befalls them.
  const clients = new Map<string, Client>();
  const parts = {
    ...{ world, volume, laws, scenario, tell },
    isUp: () => isUp,
    isRunning: (name: string) => engine.boxes.get(name)?.state === 'running',
  };
  for (const spec of scenario.clients)
    world.after(spec.atMs, () => void clients.set(spec.name, startClient(spec, parts)));

  const restartEngine = (forMs: number, isLive: boolean): void => {
    tell(`the engine restarts${isLive ? ' (live-restore)' : ''}`);
    engine.setAway('it restarts');
    const ran = new Set(engine.running());
    if (!isLive) for (const name of ran) engine.kill(name);
    engine.forgetStops();
    world.after(forMs, () => {
      engine.setAway(undefined);
      for (const { name, restart } of scenario.boxes) {
        const box = engine.boxes.get(name);
        if (box === undefined || box.state !== 'exited') continue;
        const isRaised =
          restart === 'always' ? box.finishedAt > 0 : restart === 'unless-stopped' && ran.has(name) && !isLive;
        if (isRaised && !(isLive && restart !== 'always')) {
          laws.onHand(name, 'running');
          engine.start(name);
        } else if (ran.has(name) && !isLive && laws.pastOf(name).stoppedBy === 'other') laws.onHand(name, 'any');
      }
    });
  };
  const hand = (kind: 'start' | 'stop' | 'remove' | 'recreate' | 'crash', name: string): unknown => {
    const box = engine.boxes.get(name);
    if (box === undefined) return undefined;
    tell(`somebody: ${kind} ${name}`);
    if (kind === 'remove') {
      laws.onHand(name, 'gone');
      return engine.remove(name);
    }
    if (kind === 'recreate') {
      laws.onHand(name, 'running');
      return engine.recreate(name);
    }
    if (kind === 'start') {
      if (box.state !== 'exited') return undefined;
      laws.onHand(name, 'running');
      return engine.start(name);
    }
    if (box.state !== 'running') return undefined;
    laws.onHand(name, 'any');
    engine.kill(name);
    return kind === 'crash' ? engine.forgetStops() : world.after(3_000, engine.forgetStops);
  };
  /** As `docker compose stop` (`down`), and `up -d` after a while: clients first, then dependents first, then the sidecar. */
  const stopProject = (isDown: boolean, forMs: number): void => {
    if (isProjectDown) return;
    tell(`compose ${isDown ? 'down' : 'stop'} for ${forMs} ms`);
    isProjectDown = true;
    for (const client of clients.values()) client.die(true);
    let afterMs = 0;
    let isTold = false;
    for (const { name, hold } of scenario.boxes.toReversed()) {
      const ran = parts.isRunning(name);
      isTold ||= ran && hold === undefined;
      world.after(afterMs, () => {
        laws.onHand(name, 'any');
        engine.stopByCompose(name);
      });
      afterMs += random.int(400);
    }
    const { up } = laws.onComposeStop(isTold && current?.isEnding !== true);
    world.after(afterMs + random.int(1_000), () => {
      laws.onComposeTerm();
      terminate(10_000, 0);
    });
    const removed = new Map(engine.boxes);
    if (isDown)
      for (const name of removed.keys())
        world.after(15_000, () => {
          laws.onHand(name, 'gone');
          if (engine.boxes.has(name)) engine.remove(name);
        });
    world.after(20_000 + forMs, () => {
      tell('compose up');
      isProjectDown = false;
      up();
      engine.forgetStops();
      for (const [name, box] of removed) {
        laws.onHand(name, 'running');
        if (!engine.boxes.has(name)) engine.recreate(name, box);
        else if (!parts.isRunning(name)) engine.start(name);
      }
    });
  };
  const startAll = (): void => {
    tell('compose up');
    for (const { name } of scenario.boxes) {
      if (engine.boxes.get(name)?.state !== 'exited') continue;
      laws.onHand(name, 'running');
      engine.start(name);
    }
  };
  const befall = (fault: Fault): unknown => {
    if (isHealed) return undefined;
    switch (fault.kind) {
      case 'kill-at':
        return kill('by somebody', fault.downMs);
      case 'term':
        return terminate(fault.graceMs, fault.downMs);
      case 'second':
        return second();
      case 'release':
        return release(fault.which).catch((error) => {
          if (!(error instanceof Killed) && current?.isEnding === false) laws.breaks('bug', `release: ${error?.stack}`);
        });
      case 'away':
        tell(`the engine is away for ${fault.forMs} ms`);
        engine.setAway('no answer');
        return world.after(fault.forMs, () => engine.setAway(undefined));
      case 'restart-engine':
        return restartEngine(fault.forMs, fault.live);
      case 'disk-full':
        tell(`the disk is full for ${fault.forMs} ms`);
        isDiskFull = true;
        return world.after(fault.forMs, () => {
          isDiskFull = false;
        });
      case 'wall':
        wall.offsetMs += fault.byMs;
        return undefined;
      case 'stuck':
      case 'sick': {
        const box = engine.boxes.get(fault.box);
        if (box === undefined) return undefined;
        tell(`${fault.box} is ${fault.kind} for ${fault.forMs} ms`);
        const { healthyAfterMs } = scenario.boxes.find(({ name }) => name === fault.box) ?? {}; // it may be sick already
        if (fault.kind === 'stuck') box.stuck = 'port is already allocated';
        else if (healthyAfterMs !== undefined) box.healthyAfterMs = 1e9;
        return world.after(fault.forMs, () => {
          for (const one of [box, engine.boxes.get(fault.box) ?? box]) {
            delete one.stuck; // also what was made anew meanwhile
            if (healthyAfterMs !== undefined) one.healthyAfterMs = healthyAfterMs;
            engine.check(one);
          }
        });
      }
      case 'die':
        return clients.get(fault.client)?.die(fault.withCommand);
      case 'pause':
        return clients.get(fault.client)?.pause(fault.forMs);
      case 'quit':
        return clients.get(fault.client)?.quit();
      case 'repeat':
        return clients.get(fault.client)?.repeat();
      case 'compose-stop':
      case 'compose-down':
        return stopProject(fault.kind === 'compose-down', fault.forMs);
      case 'compose-up':
        return startAll();
      case 'start':
      case 'stop':
      case 'remove':
      case 'recreate':
      case 'crash':
        return hand(fault.kind, fault.box);
      default:
        return undefined;
    }
  };
  for (const fault of faults) if ('atMs' in fault) world.after(fault.atMs, () => befall(fault));

  // The whole of it.
  const onStray = (error: unknown): void => {
    if (!(error instanceof Killed)) laws.breaks('bug', `nobody took: ${error instanceof Error ? error.stack : error}`);
  };
  process.on('unhandledRejection', onStray);
  const isBroken = (): boolean => laws.violations.length > 0;
  const isQuiet = (): boolean => {
    if (current === undefined || current.isEnding || !isUp) return false;
    if (world.now() - upMs < SETTLED_MS) return false; // it is looking around still
    if ([...clients.values()].some((client) => !client.isOver())) return false;
    if (current.journal.runs('live').some(({ phase }) => phase !== 'kept')) return false;
    const kept = laws.mayBeKept();
    for (const [name, want] of laws.wanted)
      if (want === 'running' && !parts.isRunning(name) && !kept.has(name)) return false;
    return current.journal.unanswered().length === 0;
  };
  let events = 0;
  try {
    start();
    events += await world.run(isBroken, HEAL_MS);
    isHealed = true;
    isDiskFull = false;
    engine.setAway(undefined);
    for (let until = HEAL_MS; !isBroken() && until < QUIET_MS && !isQuiet(); until += 5_000) {
      events += await world.run(isBroken, until);
      laws.onLater();
    }
    if (!isBroken()) {
      if (!isQuiet()) laws.breaks('quiet', describeUnrest());
      laws.finale();
    }
    if (!isBroken()) await probe();
  } finally {
    process.off('unhandledRejection', onStray);
    const last = current;
    current = undefined;
    last?.journal[Symbol.dispose]();
    shelf.remove(last?.dir ?? stateDir);
  }
  return { violations: laws.violations, story, events, runs };

  function describeUnrest(): string {
    const open = current?.journal.runs('live').map(({ id, phase }) => `${id} ${phase}`) ?? ['no sidecar'];
    const held =
      current?.journal.holds().map(({ name, status, trouble }) => `${name} ${status} ${trouble ?? ''}`) ?? [];
    const going = [...clients.values()].filter((client) => !client.isOver()).map(({ spec }) => spec.name);
    const unanswered = current?.journal.unanswered().map(({ request }) => request.id) ?? [];
    return `not quiet: runs ${open}; held ${held}; clients ${going}; unanswered ${unanswered}`;
  }

  /** What it says must be so, and a backup of each job must go well again. */
  async function probe(): Promise<void> {
    isProbing = true;
    const views = current?.views();
    if (views === undefined || current === undefined) return;
    const { shared } = current;
    const untilSettled = async <T>(work: Promise<T>): Promise<T | undefined> => {
      let result: T | undefined;
      let isDone = false;
      work.then(
        (value) => {
          result = value;
          isDone = true;
        },
        (error) => {
          laws.breaks('bug', `probe: ${error?.stack}`);
          isDone = true;
        },
      );
      events += await world.run(() => isDone, world.now() + PROBE_MS);
      if (!isDone) laws.breaks('probe', 'no end');
      return result;
    };
    const status = await untilSettled(views.status(new AbortController().signal));
    for (const { workload, status: state } of status?.holds ?? [])
      if (state === 'held' && parts.isRunning(workload))
        laws.breaks('status', `it says that ${workload} is held, and it runs`);
    if ((status?.holds.length ?? 0) > 0 || (status?.runs.length ?? 0) > 0) {
      await untilSettled(release('all'));
      laws.finale();
      const left = await untilSettled(views.status(new AbortController().signal));
      if ((left?.holds.length ?? 0) > 0 || (left?.runs.length ?? 0) > 0)
        laws.breaks('status', `after release --all: ${JSON.stringify([left?.holds, left?.runs])}`);
    }
    for (const { job } of scenario.clients.slice(0, 1)) {
      if (isBroken()) return;
      const answers: number[] = [];
      for (const state of ['pre', 'post'] as const) {
        const request: Request = {
          ...{ id: `probe-${job}-${state}`, client: 'default', operation: 'backup', state, job, waitMs: 60_000 },
          ...{ lease: 600_000, outcome: 'success', params: { REQUEST: `probe-${job}-pre` } },
        };
        laws.onSent(request);
        const sender = volume.leaseOf(`probe-${job}`);
        const delivery = {
          request,
          sender,
          output: async () => undefined,
          answer: async (answer: { exitCode: number; message?: string }) => {
            tell(`probe ${job} ${state}: ${JSON.stringify(answer)}`);
            answers.push(answer.exitCode);
          },
        };
        await untilSettled(conduct(delivery, shared));
      }
      const isBereft = scenario.hooks.some(({ target }) => target !== undefined && !parts.isRunning(target));
      const isSlow = scenario.boxes.some(({ healthyAfterMs = 0 }) => healthyAfterMs > TERMS.healthTimeoutMs);
      if (isBereft) continue;
      if (answers[0] !== 0 || !(answers[1] === 0 || (isSlow && answers[1] === 74)))
        laws.breaks('probe', `a backup of job ${job} ends ${answers}`);
      laws.finale();
    }
  }
}
