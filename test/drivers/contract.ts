/** What every driver owes the run; the fake one too, so that tests over the fake can be believed. */

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { describe, it } from 'node:test';
import { OperationalError } from '../../src/core/errors.ts';
import type { HoldKind } from '../../src/core/hold.ts';
import type { HookCall, Program, Settings } from '../../src/core/hook.ts';
import type { Driver, Output, ProgramCall, Sink } from '../../src/core/ports.ts';
import { exitCodeOf, type Outcome } from '../../src/core/result.ts';
import type { Workload, WorkloadRef, WorkloadState } from '../../src/core/workload.ts';
import { until } from '../support/until.ts';

/** What a program of the contract does, in this order; the bench says it in its engine's words. */
export type Conduct = {
  readonly out?: string;
  readonly err?: string;
  /** Waits until it is ended, with a child and a grandchild that do so as well. */
  readonly waits?: boolean;
  readonly exitCode?: number;
};

/** An engine with one workload that runs. */
export interface Bench extends AsyncDisposable {
  readonly driver: Driver;
  readonly workload: WorkloadRef;
  program(conduct: Conduct): Program;
  /** One whose interpreter, `absent-interpreter`, is not there. */
  readonly impossible: Program;
  /** What the engine says, not the driver. */
  state(): Promise<WorkloadState | 'gone'>;
  /** How many processes in the workload carry a mark that begins so. */
  countMarked(markPrefix: string): Promise<number>;
  /** These go behind the driver's back. */
  stop(): Promise<void>;
  remove(): Promise<void>;
  /** From now on the engine does not answer. */
  cutOff(): Promise<void>;
}

const SETTINGS: Settings = {
  while: 'running',
  timeoutMs: 60_000,
  onError: 'abort',
  retries: 0,
  retryDelayMs: 0,
  match: 'all',
};

/** Runs of this process alone: a mark finds processes on the whole machine, those of tests beside this one included. */
export const [RUN, OTHER_RUN] = ((own) => [`run-${own}-1`, `run-${own}-2`] as const)(randomBytes(4).toString('hex'));

/** A call of a program in a workload, as a run makes it. */
export function aCall(
  { key, instance, name }: WorkloadRef,
  program: Program,
  { mark = `${RUN}/1`, env = {}, ...settings }: Partial<Settings> & Partial<Omit<ProgramCall, 'call'>> = {},
): ProgramCall {
  const call: HookCall = {
    ...{ hookId: 'file:20-dump', name: '20-dump', operation: 'backup', state: 'pre', program },
    settings: { ...SETTINGS, ...settings },
    place: { kind: 'workload', key, instance, name, target: `container:${name}` },
  };
  return { call, env: { SIDEHOOK_OPERATION: 'backup', ...env }, mark };
}

/** Keeps what a hook printed. */
export function aSink() {
  const outputs: Output[] = [];
  const sink: Sink = async (output) => void outputs.push({ ...output, bytes: Buffer.from(output.bytes) });
  const text = (stream: Output['stream']): string =>
    Buffer.concat(outputs.filter((one) => one.stream === stream).map(({ bytes }) => bytes)).toString();
  return { sink, outputs, text };
}

/** Runs a program to its end, and resolves to all that came of it. */
export async function runToEnd(driver: Driver, call: ProgramCall, signal: AbortSignal) {
  const { sink, text } = aSink();
  const outcome = await driver.exec(call, sink, signal);
  return { outcome, out: text('out'), err: text('err') };
}

function isCode(code: OperationalError['code']): (error: unknown) => true {
  return (error) => {
    assert.ok(error instanceof OperationalError, String(error));
    assert.equal(error.code, code, error.message);
    return true;
  };
}

function whyOf(outcome: Outcome): string {
  assert.ok('why' in outcome && outcome.why !== undefined, `expected a why: ${JSON.stringify(outcome)}`);
  return outcome.why;
}

/** How an engine holds. */
type Holding = {
  readonly kinds: readonly [HoldKind, ...HoldKind[]];
  /** What its workload has to end: after that some engines kill it, and others give up. */
  readonly termMs: number;
};

/** The tests; `setUp` opens a bench of its own for each. */
export function driverContract(
  name: string,
  setUp: () => Promise<Bench>,
  { kinds = ['stop', 'pause'], termMs = 1_000 }: Partial<Holding> = {},
): void {
  const holding = { kinds, termMs };
  describe(`driver contract: ${name}: looking`, () => lookContract(setUp, holding));
  describe(`driver contract: ${name}: hooks`, () => execContract(setUp, holding));
  describe(`driver contract: ${name}: holds`, () => holdContract(setUp, holding));
}

function lookContract(setUp: () => Promise<Bench>, { kinds: [kind], termMs }: Holding): void {
  it('sees the workload, and the same in a look as in an inspection', async ({ signal }) => {
    await using bench = await setUp();
    const { driver, workload } = bench;
    const { workloads } = await driver.look([{ kind: 'container', name: workload.name }], signal);
    const seen = workloads.filter(({ key }) => key === workload.key);
    assert.equal(seen.length, 1);
    assert.equal(seen[0]?.instance, workload.instance);
    assert.equal(seen[0].state, 'running');
    assert.deepEqual(await driver.inspect(workload, signal), seen[0]);
  });

  it('tells incarnations apart, the later one by the greater mark', async ({ signal }) => {
    await using bench = await setUp();
    const { driver, workload } = bench;
    const found: (Workload | undefined)[] = [await driver.inspect(workload, signal)];
    await driver.hold(workload, kind, termMs, signal);
    found.push(await driver.inspect(workload, signal));
    await driver.release(workload, kind, signal);
    found.push(await driver.inspect(workload, signal));
    const [before, held, after] = found;
    assert.equal(held?.state, 'exited');
    assert.equal(held.startedAt, before?.startedAt);
    assert.ok(held.finishedAt > held.startedAt);
    if (kind !== 'scale') assert.equal(typeof held.exitCode, 'number');
    assert.ok(after !== undefined && after.startedAt > held.finishedAt);
    // Who starts anew what was scaled need not remember its end.
    assert.equal(after.finishedAt, kind === 'scale' ? '' : held.finishedAt);
  });

  it('finds nothing where there is nothing any more', async ({ signal }) => {
    await using bench = await setUp();
    await bench.remove();
    assert.equal(await bench.driver.inspect(bench.workload, signal), undefined);
    const { workloads } = await bench.driver.look([{ kind: 'container', name: bench.workload.name }], signal);
    assert.deepEqual(
      workloads.filter(({ key }) => key === bench.workload.key),
      [],
    );
  });

  it('wakes when a workload changes, and ends when it is told to', async ({ signal }) => {
    await using bench = await setUp();
    const ending = new AbortController();
    let beats = 0;
    const following = (async () => {
      for await (const _ of bench.driver.changes(AbortSignal.any([signal, ending.signal]))) beats += 1;
    })();
    await until(() => beats > 0, { what: 'the first beat', signal });
    const before = beats;
    await bench.stop();
    await until(() => beats > before, { what: 'a beat after the stop', signal });
    ending.abort();
    await following;
  });

  it('says that the engine is away', async ({ signal }) => {
    await using bench = await setUp();
    const { driver, workload } = bench;
    await bench.cutOff();
    const away = isCode('engine-unavailable');
    await assert.rejects(driver.look([], signal), away);
    await assert.rejects(driver.inspect(workload, signal), away);
    await assert.rejects(driver.hold(workload, kind, undefined, signal), away);
    await assert.rejects(driver.release(workload, kind, signal), away);
    await assert.rejects(driver.endLeftovers(workload, `${RUN}/`, signal), away);
    const { outcome } = await runToEnd(driver, aCall(workload, bench.program({})), signal);
    assert.equal(outcome.status, 'broken');
    assert.equal(exitCodeOf(outcome), 69);
  });

  it('rejects with the reason of an abort', async () => {
    await using bench = await setUp();
    const { driver, workload } = bench;
    const reason = new Error('told to end');
    const signal = AbortSignal.abort(reason);
    await assert.rejects(driver.look([], signal), reason);
    await assert.rejects(driver.inspect(workload, signal), reason);
    await assert.rejects(driver.hold(workload, kind, undefined, signal), reason);
    await assert.rejects(driver.release(workload, kind, signal), reason);
    await assert.rejects(driver.endLeftovers(workload, `${RUN}/`, signal), reason);
    assert.equal(await bench.state(), 'running');
  });
}

function execContract(setUp: () => Promise<Bench>, { kinds, termMs }: Holding): void {
  it('passes exit codes on, and only 0 is a success', async ({ signal }) => {
    await using bench = await setUp();
    for (const exitCode of [0, 1, 3, 42, 75, 124, 126, 127, 137]) {
      const call = aCall(bench.workload, bench.program({ exitCode }));
      const { outcome } = await runToEnd(bench.driver, call, signal);
      assert.equal(exitCodeOf(outcome), exitCode);
      assert.equal(outcome.status === 'succeeded', exitCode === 0, JSON.stringify(outcome));
      assert.notEqual(outcome.status, 'broken');
    }
  });

  it('hands on output and errors, apart and whole', async ({ signal }) => {
    await using bench = await setUp();
    const program = bench.program({ out: 'one\ntwo', err: 'wrong\n', exitCode: 3 });
    const result = await runToEnd(bench.driver, aCall(bench.workload, program), signal);
    assert.deepEqual(result, { outcome: { status: 'failed', exitCode: 3 }, out: 'one\ntwo', err: 'wrong\n' });
  });

  it('hands output on while the hook runs; a cancel then ends it with all its children', async ({ signal }) => {
    await using bench = await setUp();
    const { sink, text } = aSink();
    const cancel = new AbortController();
    const call = aCall(bench.workload, bench.program({ out: 'ready\n', waits: true }));
    const ended = bench.driver.exec(call, sink, AbortSignal.any([signal, cancel.signal]));
    await until(() => text('out') === 'ready\n', { what: 'the first output', signal });
    assert.ok((await bench.countMarked(`${RUN}/`)) >= 1);
    cancel.abort(new Error('the client is gone'));
    assert.deepEqual(await ended, { status: 'canceled', reason: 'the client is gone' });
    assert.equal(await bench.countMarked(`${RUN}/`), 0);
  });

  it('calls it timed out when a deadline ends it', async () => {
    await using bench = await setUp();
    const call = aCall(bench.workload, bench.program({ waits: true }));
    const { outcome } = await runToEnd(bench.driver, call, AbortSignal.timeout(300));
    assert.deepEqual(outcome, { status: 'timed-out' });
    assert.equal(await bench.countMarked(`${RUN}/`), 0);
  });

  it('starts nothing after an abort', async () => {
    await using bench = await setUp();
    const call = aCall(bench.workload, bench.program({ out: 'ran' }));
    const { outcome, out } = await runToEnd(bench.driver, call, AbortSignal.abort(new Error('too late')));
    assert.deepEqual(outcome, { status: 'canceled', reason: 'too late' });
    assert.equal(out, '');
  });

  it('ends what a dead sidecar left running, and only that', async ({ signal }) => {
    await using bench = await setUp();
    const cancel = new AbortController();
    const start = (mark: string) => {
      const { sink, text } = aSink();
      const call = aCall(bench.workload, bench.program({ out: 'ready', waits: true }), { mark });
      return { text, ended: bench.driver.exec(call, sink, AbortSignal.any([signal, cancel.signal])) };
    };
    const [old, other] = [start(`${RUN}/1`), start(`${OTHER_RUN}/1`)];
    await until(() => old.text('out') === 'ready' && other.text('out') === 'ready', { what: 'both hooks', signal });
    await bench.driver.endLeftovers(bench.workload, `${RUN}/`, signal);
    assert.equal(await bench.countMarked(`${RUN}/`), 0);
    assert.notEqual((await old.ended).status, 'succeeded');
    assert.ok((await bench.countMarked(`${OTHER_RUN}/`)) >= 1);
    cancel.abort(new Error('enough'));
    await other.ended;
    await bench.driver.endLeftovers(bench.workload, `${RUN}/`, signal);
  });

  it('says which interpreter is not there, and does not pass that off as output', async ({ signal }) => {
    await using bench = await setUp();
    const result = await runToEnd(bench.driver, aCall(bench.workload, bench.impossible), signal);
    assert.equal(result.outcome.status, 'broken');
    assert.equal(exitCodeOf(result.outcome), 127);
    assert.match(whyOf(result.outcome), /absent-interpreter/);
    assert.ok(whyOf(result.outcome).includes(bench.workload.name));
    assert.deepEqual([result.out, result.err], ['', '']);
  });

  for (const kind of kinds) {
    it(`runs nothing in what is held by ${kind}, and says why`, async ({ signal }) => {
      await using bench = await setUp();
      await bench.driver.hold(bench.workload, kind, termMs, signal);
      const call = aCall(bench.workload, bench.program({ out: 'ran' }));
      const { outcome, out } = await runToEnd(bench.driver, call, signal);
      assert.equal(outcome.status, 'broken');
      assert.equal(exitCodeOf(outcome), 126);
      assert.ok(whyOf(outcome).includes(bench.workload.name));
      assert.equal(out, '');
      await bench.driver.endLeftovers(bench.workload, `${OTHER_RUN}/`, signal).catch(isCode('workload-failed'));
    });
  }

  it('runs nothing in what is gone, and says so', async ({ signal }) => {
    await using bench = await setUp();
    await bench.remove();
    const { outcome } = await runToEnd(bench.driver, aCall(bench.workload, bench.program({})), signal);
    assert.equal(outcome.status, 'broken');
    assert.equal(exitCodeOf(outcome), 126);
    assert.ok(whyOf(outcome).includes(bench.workload.name));
    await bench.driver.endLeftovers(bench.workload, `${RUN}/`, signal);
  });

  for (const befalls of ['stop', 'remove'] as const) {
    it(`never calls it a success when its workload is gone in the middle (${befalls})`, async ({ signal }) => {
      await using bench = await setUp();
      const { sink, text } = aSink();
      const call = aCall(bench.workload, bench.program({ out: 'ready', waits: true }));
      const ended = bench.driver.exec(call, sink, signal);
      await until(() => text('out') === 'ready', { what: 'the hook', signal });
      await bench[befalls]();
      const outcome = await ended;
      assert.ok(['failed', 'killed'].includes(outcome.status), JSON.stringify(outcome));
      assert.match(whyOf(outcome), befalls === 'stop' ? /stopped/ : /stopped|removed/);
    });
  }
}

function holdContract(setUp: () => Promise<Bench>, { kinds, termMs }: Holding): void {
  for (const kind of kinds) {
    it(`holds by ${kind} and releases, and does each twice without complaint`, async ({ signal }) => {
      await using bench = await setUp();
      const { driver, workload } = bench;
      for (const _ of [1, 2]) {
        const held = await driver.hold(workload, kind, termMs, signal);
        assert.equal(held.state, kind === 'pause' ? 'paused' : 'exited');
        assert.equal(await bench.state(), held.state);
        assert.deepEqual(await driver.inspect(workload, signal), held);
      }
      for (const _ of [1, 2]) {
        const released = await driver.release(workload, kind, signal);
        assert.equal(released.state, 'running');
        const found = await driver.inspect(workload, signal);
        assert.deepEqual({ ...found, health: released.health }, released); // it may have become healthy since
      }
      assert.equal(await bench.state(), 'running');
    });
  }

  if (kinds.includes('pause')) pauseContract(setUp);

  it('fails at what is gone', async ({ signal }) => {
    await using bench = await setUp();
    await bench.remove();
    for (const kind of kinds) {
      await assert.rejects(bench.driver.hold(bench.workload, kind, termMs, signal), isCode('workload-failed'));
      await assert.rejects(bench.driver.release(bench.workload, kind, signal), isCode('workload-failed'));
    }
  });
}

function pauseContract(setUp: () => Promise<Bench>): void {
  it('starts a paused one that went down meanwhile', async ({ signal }) => {
    await using bench = await setUp();
    await bench.driver.hold(bench.workload, 'pause', undefined, signal);
    await bench.stop();
    await bench.driver.release(bench.workload, 'pause', signal);
    assert.equal(await bench.state(), 'running');
  });

  it('refuses to pause what does not run', async ({ signal }) => {
    await using bench = await setUp();
    await bench.stop();
    await assert.rejects(bench.driver.hold(bench.workload, 'pause', undefined, signal), isCode('workload-failed'));
  });
}
