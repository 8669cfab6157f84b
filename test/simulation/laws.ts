/** What must always hold, judged by the engine's own diary and by what clients saw: never by our journal. */

import type { Request } from '../../src/core/request.ts';
import type { Answer } from '../../src/core/result.ts';
import type { Box, Entry } from '../support/fake-engine.ts';
import {
  type BoxSpec,
  type ClientSpec,
  HEAL_MS,
  type HookSpec,
  isHeldFor,
  needsOf,
  type Scenario,
  TERMS,
} from './scenario.ts';

export type Violation = { readonly law: string; readonly what: string };

/** A client's command, which reads or writes the data. */
export type Reading = {
  readonly client: ClientSpec;
  readonly runId: string;
  /** What is to be still for as long as it reads: also what did not run before. */
  readonly still: ReadonlySet<string>;
  /** What of it ran before. */
  readonly held: ReadonlySet<string>;
  readonly fromMs: number;
  toMs?: number;
  exit?: number;
  /** What was started while it read. */
  lost?: string;
  /** A restore: it is known to have gone well, and somebody was told. */
  isWhole: boolean;
};

/** What a workload has gone through, as far as the laws care. */
type Past = {
  /** Who stopped it last, and when that began. */
  stoppedBy: Entry['by'] | undefined;
  stopMs: number;
  startedBy: Entry['by'] | undefined;
  startMs: number;
  /** A start was asked for, and failed, since it was stopped. */
  failedToStart: boolean;
  wasHealthy: boolean;
  touchedMs: number;
};

/** What is expected of a workload once all is quiet: `any` after a hand that nobody can tell from ours. */
export type Wanted = 'running' | 'still' | 'any' | 'gone';

const SLACK_MS = 5_000;
/** By when the last sidecar that was killed is up again. */
const UP_MS = HEAL_MS + 90_000;
/** What a run may take to end: hooks that run out of time, health that does not come, a pause before another attempt. */
const END_MS = 400_000;

export type Laws = ReturnType<typeof makeLaws>;

export function makeLaws(scenario: Scenario, boxes: ReadonlyMap<string, Box>, now: () => number) {
  const specs = new Map(scenario.boxes.map((spec): [string, BoxSpec] => [spec.name, spec]));
  const violations: Violation[] = [];
  const pasts = new Map<string, Past>();
  const wanted = new Map<string, Wanted>(scenario.boxes.map(({ name, runs }) => [name, runs ? 'running' : 'still']));
  const readings: Reading[] = [];
  const requests = new Map<string, { request: Request; sentMs: number; deadMs?: number; isWithdrawn: boolean }>();
  const hookRuns = new Map<
    string,
    { pre: number; post: number; wasTried: boolean; preWell: boolean; under: Set<string> }
  >();
  /** Restores that may have written, and whose client was not told that all is well: they may keep what they hold. */
  const doubts = new Map<string, { readonly job: string }>();
  /** Those that were answered 0, and when. */
  const opened: { readonly request: Request; readonly runId: string | undefined; readonly atMs: number }[] = [];
  const firstAnswers = new Map<string, string>();
  /** Answers that could not be written down: they do not outlive the sidecar. */
  const fleeting = new Set<string>();
  let termMs = Infinity;
  let composeTermMs = Infinity;
  let isComposeTold = false;
  let releaseMs = -Infinity;
  const isEngineUnsure = scenario.faults.some(({ kind }) =>
    ['away', 'error', 'slow', 'restart-engine', 'release'].includes(kind),
  );
  const hands = scenario.faults.some(({ kind }) => ['term', 'release', 'disk-full', 'restart-engine'].includes(kind));

  const breaks = (law: string, what: string): void => {
    violations.push({ law, what: `${what} (at ${now()} ms)` });
  };
  const pastOf = (name: string): Past => {
    const spec = specs.get(name);
    const known = pasts.get(name) ?? {
      ...{ stoppedBy: undefined, stopMs: -Infinity, startedBy: undefined, startMs: -Infinity, failedToStart: false },
      ...{ wasHealthy: spec?.healthyAfterMs !== undefined && spec.runs, touchedMs: -Infinity },
    };
    pasts.set(name, known);
    return known;
  };
  /** Restores that may keep what they hold (5.3): begun, and not known to have gone well. */
  const halves = (): Reading[] =>
    scenario.failedRestore === 'release'
      ? []
      : readings.filter(
          (one) =>
            one.client.operation === 'restore' &&
            !one.isWhole &&
            (opened.find(({ runId }) => runId === one.runId)?.atMs ?? one.fromMs) > releaseMs &&
            !readings.some(
              (later) =>
                later.isWhole &&
                later.client.operation === 'restore' &&
                later.client.job === one.client.job &&
                later.fromMs > one.fromMs,
            ),
        );

  const onDriverStart = (name: string): void => {
    if (now() > composeTermMs + SLACK_MS)
      breaks('compose', `${name} was started, and all of the project is being stopped`);
    for (const half of halves())
      if (half.held.has(name) && half.fromMs < now() && scenario.failedRestore === 'keep')
        breaks('5.3', `${name} was started over what ${half.client.name} half restored`);
    const left = scenario.boxes.filter((spec) => boxes.has(spec.name));
    for (const other of needsOf(name, left)) checkNeed(name, other);
  };
  const checkNeed = (name: string, other: string): void => {
    const box = boxes.get(other);
    if (box === undefined || wanted.get(other) === 'gone' || wanted.get(other) === 'any') return;
    const past = pastOf(other);
    if (past.failedToStart) return; // it is tried again, and holds nobody up
    if (past.stoppedBy === undefined || past.touchedMs > past.stopMs) return; // not our doing, or not alone
    if (box.state === 'running') {
      const isWell = box.health === 'none' || box.health === 'healthy' || !past.wasHealthy;
      const isOver = now() - past.startMs >= TERMS.healthTimeoutMs - 1;
      if (past.startMs < pastOf(name).stopMs) return; // it ran beside the same start of it, as well or unwell as that is
      if (isWell || isOver || past.startedBy === 'other' || now() >= termMs) return;
      breaks('order', `${name} was started before ${other}, which it needs, was healthy`);
      return;
    }
    if (past.failedToStart || past.stoppedBy === 'other' || now() - past.stopMs < 10_000) return;
    if (halves().some(({ held }) => held.has(other))) return;
    breaks('order', `${name} was started while ${other}, which it needs, was still down by our doing`);
  };

  const keyOf = (requestId: string, { name, target }: Pick<HookSpec, 'name' | 'target'>): string =>
    `${requestId} ${name} ${target ?? 'host'}`;
  const hookRunOf = (requestId: string, hook: HookSpec) => {
    const key = keyOf(requestId, hook);
    const known = hookRuns.get(key) ?? { pre: 0, post: 0, wasTried: false, preWell: false, under: new Set() };
    hookRuns.set(key, known);
    return known;
  };

  return {
    violations,
    breaks,
    wanted,
    readings,
    requests,
    doubts,
    pastOf,
    halves,
    onTerm: (): void => {
      termMs = now();
    },
    onBoot: (): void => {
      termMs = Infinity;
      if (releaseMs === Infinity) releaseMs = now(); // its daemon died over it
      for (const id of fleeting) firstAnswers.delete(id);
      fleeting.clear();
    },
    /** Somebody said `sidehook release`; the result is called when it was answered. */
    onRelease(): () => void {
      releaseMs = Infinity;
      return () => {
        releaseMs = now();
      };
    },
    /** The project is being stopped; `isTold`: the engine shows it, by what is neither held nor a client. Calls off with `up`. */
    onComposeStop(isTold: boolean): { readonly up: () => void } {
      isComposeTold = isTold && !isEngineUnsure;
      return {
        up: () => {
          composeTermMs = Infinity;
        },
      };
    },
    onComposeTerm(): void {
      if (isComposeTold) composeTermMs = now();
    },
    /** Somebody else's hand is on it. */
    onHand(name: string, becomes: Wanted): void {
      wanted.set(name, becomes);
      pastOf(name).touchedMs = now();
    },
    onEntry({ did, name, by }: Entry): void {
      if (!specs.has(name)) return;
      const past = pastOf(name);
      switch (did) {
        case 'stopping':
        case 'paused':
          past.wasHealthy = boxes.get(name)?.health === 'healthy';
          if (specs.get(name)?.hold === undefined) breaks('hold', `${name} was stopped, and nobody asked for that`);
          Object.assign(past, { stoppedBy: 'driver', stopMs: now(), failedToStart: false });
          break;
        case 'stopped':
          if (by === 'other') Object.assign(past, { stoppedBy: 'other', stopMs: now(), touchedMs: now() });
          break;
        case 'starting':
          onDriverStart(name);
          break;
        case 'cannot start':
          past.failedToStart = true;
          break;
        case 'unpaused':
        case 'started':
          if (did === 'unpaused') onDriverStart(name);
          Object.assign(past, { startedBy: by, startMs: now() });
          if (by === 'other') past.touchedMs = now();
          if (by === 'driver' && wanted.get(name) === 'still')
            breaks('P2', `${name} was started, and did not run before`);
          for (const reading of readings) {
            if (reading.toMs !== undefined || !reading.still.has(name)) continue;
            reading.lost ??= `${name} was started by ${by} at ${now()} ms`;
          }
          break;
        default:
      }
    },
    onFailedStart: (name: string): void => {
      pastOf(name).failedToStart = true;
    },
    onSent(request: Request): void {
      if (!requests.has(request.id)) requests.set(request.id, { request, sentMs: now(), isWithdrawn: false });
    },
    onWithdrawn(id: string): void {
      const known = requests.get(id);
      if (known !== undefined) known.isWithdrawn = true;
    },
    onSenderDead(id: string): void {
      const known = requests.get(id);
      if (known !== undefined) known.deadMs ??= now();
    },
    /** A hook began somewhere. `requestId`: of the `pre` of its run. */
    onHook(hook: HookSpec, state: string, requestId: string, place: string): void {
      const known = requests.get(requestId);
      if (known === undefined) {
        breaks('P3', `hook ${hook.name} ran for a request that nobody sent`);
        return;
      }
      const counts = hookRunOf(requestId, hook);
      const key = `${state} ${place}`;
      if (counts.under.has(key)) breaks('leftovers', `hook ${hook.name} ${state} of ${requestId} ran twice at once`);
      counts.under.add(key);
      if (state === 'post') {
        counts.post += 1;
        if (hook.when === 'held' && hook.states === 'both' && counts.preWell && !hands) checkHeld(hook, known);
        return;
      }
      if (state === 'inspect') {
        if (counts.post > 0) breaks('inspect', `hook ${hook.name} of ${requestId} ran at inspect after its post`);
        return;
      }
      counts.pre += 1;
      if (counts.pre > 1) breaks('P6', `hook ${hook.name} ran ${counts.pre} times at pre for ${requestId}`);
      if (known.isWithdrawn) breaks('withdrawn', `hook ${hook.name} ran for ${requestId}, which was taken back`);
      if (known.deadMs !== undefined && now() > known.deadMs + SLACK_MS)
        breaks('withdrawn', `hook ${hook.name} ran for ${requestId}, whose sender was gone since ${known.deadMs} ms`);
      if (hook.when === 'held') checkHeld(hook, known);
    },
    onHookEnd(hook: HookSpec, state: string, requestId: string, place: string, isWell: boolean): void {
      const counts = hookRunOf(requestId, hook);
      counts.under.delete(`${state} ${place}`);
      if (state === 'pre' && isWell) counts.preWell = true;
    },
    /** A hook that could not be run where it belongs has had its turn. */
    onHookTried(hook: HookSpec, state: string, requestId: string): void {
      if (state === 'post') hookRunOf(requestId, hook).wasTried = true;
    },
    onAnswer(request: Request, answer: Answer, isWritten: boolean): void {
      const text = JSON.stringify(answer);
      if (!isWritten) fleeting.add(request.id);
      const first = firstAnswers.get(request.id);
      firstAnswers.set(request.id, first ?? text);
      if (first !== undefined && first !== text)
        breaks('P6', `${request.id} was answered ${text}, and before ${first}`);
      if (request.state !== 'pre' || answer.exitCode !== 0 || first !== undefined) return;
      opened.push({ request, runId: answer.runId, atMs: now() });
      checkPre(request);
    },
    /** What a restore that did not end well may still hold. */
    mayBeKept(): ReadonlySet<string> {
      if (scenario.failedRestore === 'release') return new Set();
      const jobs = new Set([...doubts.values()].map(({ job }) => job));
      const kept = scenario.boxes.filter((box) =>
        [...jobs].some((job) => isHeldFor(box, { operation: 'restore', job })),
      );
      return new Set(kept.map(({ name }) => name));
    },
    /** Time has passed: nothing is held for longer than `hold.max`, whatever its client says. */
    onLater(): void {
      const kept = this.mayBeKept();
      for (const spec of scenario.boxes) {
        const past = pastOf(spec.name);
        const isDown = ['exited', 'paused'].includes(boxes.get(spec.name)?.state ?? 'gone');
        if (!isDown || past.stoppedBy !== 'driver' || wanted.get(spec.name) !== 'running') continue;
        const names = [spec.name, ...needsOf(spec.name, scenario.boxes)];
        if (names.some((name) => kept.has(name))) continue;
        const since = opened
          .filter(({ request }) => scenario.boxes.some((box) => names.includes(box.name) && isHeldFor(box, request)))
          .map(({ atMs }) => atMs);
        const dueMs = Math.max(Math.max(past.stopMs, ...since) + scenario.holdMaxMs, UP_MS) + END_MS;
        if (now() > dueMs) breaks('hold.max', `${spec.name} is still held, and was to run again by ${dueMs} ms`);
      }
    },
    /** What must be so once all is quiet. */
    finale(): void {
      const kept = this.mayBeKept();
      for (const [name, want] of wanted) {
        const state = boxes.get(name)?.state;
        if (want === 'running' && state !== 'running' && !kept.has(name))
          breaks('P1', `${name} ran before and is ${state ?? 'gone'}`);
        if (want === 'still' && state === 'running') breaks('P2', `${name} runs, and did not before`);
      }
      for (const [key, counts] of hookRuns) {
        const [requestId = '', name = ''] = key.split(' ');
        const hook = scenario.hooks.find((one) => one.name === name);
        const request = requests.get(requestId)?.request;
        if (hook?.states !== 'both' || counts.pre === 0 || counts.post > 0 || counts.wasTried) continue;
        if (hook.target !== undefined && wanted.get(hook.target) !== 'running') continue; // nowhere to run
        if (request?.operation === 'backup')
          breaks('post', `hook ${name} ran at pre of ${requestId} and never at post`);
      }
    },
  };

  function checkHeld(hook: HookSpec, { request, sentMs }: { request: Request; sentMs: number }): void {
    for (const spec of scenario.boxes) {
      if (!isHeldFor(spec, request) || wanted.get(spec.name) !== 'running') continue;
      if (pastOf(spec.name).touchedMs > sentMs || boxes.get(spec.name)?.state !== 'running') continue;
      breaks('held', `hook ${hook.name} of ${request.id}, while=held, ran while ${spec.name} did`);
    }
  }

  function checkPre(request: Request): void {
    for (const hook of scenario.hooks) {
      if (hook.states === 'post' || !(hook.jobs?.includes(request.job) ?? true)) continue;
      const counts = hookRuns.get(keyOf(request.id, hook));
      if (hook.mayFail) continue;
      if (counts === undefined) breaks('P5', `${request.id} was answered 0, and hook ${hook.name} never ran`);
      else if (!counts.preWell) breaks('P5', `${request.id} was answered 0, and hook ${hook.name} did not end well`);
    }
    for (const spec of scenario.boxes) {
      if (!isHeldFor(spec, request) || wanted.get(spec.name) !== 'running') continue;
      const sentMs = requests.get(request.id)?.sentMs ?? 0;
      if (pastOf(spec.name).touchedMs > sentMs || boxes.get(spec.name)?.state !== 'running') continue;
      breaks('P5', `${request.id} was answered 0, and ${spec.name} runs`);
    }
  }
}
