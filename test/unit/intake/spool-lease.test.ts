import assert from 'node:assert/strict';
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  closeSync,
  constants,
  mkdtempSync,
  openSync,
  rmSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { systemClock } from '../../../src/clock.ts';
import type { Clock } from '../../../src/core/ports.ts';
import { type Folder, openTop } from '../../../src/intake/spool-folder.ts';
import { leaseLost, lookAtLease } from '../../../src/intake/spool-lease.ts';
import { quietLog } from '../../support/bench.ts';
import { until } from '../../support/until.ts';

const SENDER = 'aaaaaaaa-0000';
const TTL_MS = 600;

let dir = '';
let life = '';
let folder: Folder;
let waiting: AbortController;

beforeEach(async () => {
  dir = mkdtempSync(join(tmpdir(), 'lease-'));
  life = join(dir, `${SENDER}.life`);
  folder = await openTop(dir, { mode: 0o700 });
  waiting = new AbortController();
});

afterEach(async () => {
  waiting.abort(new Error('the test is over'));
  await folder[Symbol.asyncDispose]();
  rmSync(dir, { recursive: true });
});

/** Starts to wait for the end of the lease, and tells whether it came. */
function watch(clock: Clock = systemClock) {
  const state = { isLost: false, failure: undefined as unknown };
  const parts = { folder: () => folder, ttlMs: TTL_MS, clock, log: quietLog };
  leaseLost(SENDER, parts, waiting.signal).then(
    () => {
      state.isLost = true;
    },
    (error) => {
      state.failure = error;
    },
  );
  return state;
}

const lost = (state: { isLost: boolean }) => until(() => state.isLost, { what: 'the lease to be lost', everyMs: 5 });
const aWhile = () => systemClock.sleep(150, new AbortController().signal);

function makeFifo(): void {
  execFileSync('mkfifo', [life]);
}

/** A shell that holds the FIFO open until it is ended. */
async function holder(): Promise<ChildProcess> {
  const child = spawn('sh', ['-c', `exec 8<>'${life}'; echo open; read -r line`], {
    stdio: ['pipe', 'pipe', 'ignore'],
  });
  await once(child.stdout, 'data');
  return child;
}

describe('a lease that is a FIFO', () => {
  it('lives while anyone holds it, and is lost at once when the last one is killed', async () => {
    makeFifo();
    const [one, other] = [await holder(), await holder()];
    const state = watch();
    one.kill('SIGKILL');
    await once(one, 'exit');
    await aWhile();
    assert.equal(state.isLost, false);
    assert.equal(await lookAtLease(SENDER, folder), 'alive');
    other.kill('SIGKILL');
    await lost(state);
    assert.equal(await lookAtLease(SENDER, folder), 'dead');
  });

  it('lives while its holder is paused', async () => {
    makeFifo();
    const child = await holder();
    child.kill('SIGSTOP');
    const state = watch();
    await aWhile();
    assert.equal(state.isLost, false);
    child.kill('SIGKILL');
    await lost(state);
  });

  it('is lost when its holder died before we looked, or its name is gone', async () => {
    makeFifo();
    const child = await holder();
    child.kill('SIGKILL');
    await once(child, 'exit');
    await lost(watch());
    unlinkSync(life);
    await lost(watch());
  });

  it('stays what it is when its name is swapped', async () => {
    makeFifo();
    const child = await holder();
    const state = watch();
    await aWhile();
    unlinkSync(life);
    writeFileSync(life, '1\n');
    await aWhile();
    assert.equal(state.isLost, false);
    child.kill('SIGKILL');
    await lost(state);
  });

  it('costs nothing when its holder writes into it, and is still lost when the holder goes', async () => {
    makeFifo();
    const fd = openSync(life, constants.O_RDWR | constants.O_NONBLOCK);
    const state = watch();
    await aWhile();
    const chunk = Buffer.alloc(64 * 1024);
    const end = performance.now() + 1500;
    let written = 0;
    const used = process.cpuUsage();
    while (performance.now() < end) {
      try {
        written += writeSync(fd, chunk);
      } catch {
        await systemClock.sleep(5, waiting.signal); // it is full
      }
    }
    assert.ok(written <= 10 * chunk.length, `${written} bytes were taken of it in 1.5 s`);
    assert.ok(process.cpuUsage(used).user < 1_000_000);
    assert.equal(state.isLost, false);
    closeSync(fd);
    await lost(state);
  });

  it('says why it is no longer waited for', async () => {
    makeFifo();
    const fd = openSync(life, constants.O_RDWR | constants.O_NONBLOCK);
    const state = watch();
    await aWhile();
    const reason = new Error('enough');
    waiting.abort(reason);
    await until(() => state.failure, { what: 'the wait to end' });
    assert.equal(state.failure, reason);
    closeSync(fd);
  });
});

describe('a lease that is no FIFO', () => {
  it('lives while its number changes, whatever its time stamp says, and is lost after its term', async () => {
    writeFileSync(life, '0\n');
    const state = watch();
    for (let count = 1; count < 8; count += 1) {
      await aWhile();
      writeFileSync(life, `${count}\n`);
      execFileSync('touch', ['-d', '2001-01-01', life]);
    }
    assert.equal(state.isLost, false);
    await lost(state);
  });

  it('is lost at once when it is removed, or is a link, a directory or too large', async () => {
    writeFileSync(life, '0\n');
    const state = watch();
    await aWhile();
    unlinkSync(life);
    await lost(state);
    symlinkSync('/dev/zero', life);
    await lost(watch());
    unlinkSync(life);
    symlinkSync('/proc/self/environ', life);
    assert.equal(await lookAtLease(SENDER, folder), 'dead');
  });

  it('begins its term anew when we were away ourselves for a while', async () => {
    writeFileSync(life, '0\n');
    let skippedMs = 0;
    const clock: Clock = { ...systemClock, monotonicMs: () => performance.now() + skippedMs };
    const state = watch(clock);
    await aWhile();
    skippedMs = 3_600_000;
    const sinceMs = performance.now();
    await lost(state);
    assert.ok(performance.now() - sinceMs >= TTL_MS - 50, 'the term was counted while we were away');
  });
});
