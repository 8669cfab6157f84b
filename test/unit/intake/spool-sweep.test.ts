import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import {
  constants,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { systemClock } from '../../../src/clock.ts';
import { type Folder, openTop } from '../../../src/intake/spool-folder.ts';
import { openSweeper, type Sweeper } from '../../../src/intake/spool-sweep.ts';
import { quietLog } from '../../support/bench.ts';

const DEAD = 'dead-sender-1';
const ALIVE = 'live-sender-1';
const HOUR_MS = 3_600_000;

let dir = '';
let inbox: Folder;
let outbox: Folder;
let life: FileHandle;
let nowMs = 0;
let sweeper: Sweeper;
let openSenders: string[] = [];

beforeEach(async () => {
  dir = mkdtempSync(join(tmpdir(), 'sweep-'));
  inbox = await openTop(join(dir, 'in'), { mode: 0o700 });
  outbox = await openTop(join(dir, 'out'), { mode: 0o700 });
  const fifo = join(dir, 'in', `${ALIVE}.life`);
  execFileSync('mkfifo', [fifo, join(dir, 'in', `${DEAD}.life`)]);
  life = await open(fifo, constants.O_RDWR | constants.O_NONBLOCK);
  nowMs = 0;
  openSenders = [];
  const clock = { ...systemClock, monotonicMs: () => nowMs };
  const isOpen = (sender: string) => openSenders.includes(sender);
  sweeper = openSweeper({ inbox: () => inbox, outbox: () => outbox, isOpen, clock, log: quietLog });
});

afterEach(async () => {
  await Promise.all([life.close(), inbox[Symbol.asyncDispose](), outbox[Symbol.asyncDispose]()]);
  rmSync(dir, { recursive: true });
});

const write = (path: string) => writeFileSync(join(dir, path), 'x');
const names = (path: string) => readdirSync(join(dir, path)).toSorted((one, other) => (one < other ? -1 : 1));

async function sweepAt(ms: number): Promise<void> {
  nowMs = ms;
  await sweeper.sweep();
}

describe('the sweeper', () => {
  it('removes all that a dead client left, an hour after it was first seen dead, and nothing of a live one', async () => {
    for (const sender of [DEAD, ALIVE]) {
      for (const ending of ['1.ans', '1.out', '1.err', 'gone']) write(`out/${sender}.${ending}`);
      for (const ending of ['bell', '1.tmp', '2.withdrawn']) write(`in/${sender}.${ending}`);
    }
    const before = [names('in'), names('out')];
    await sweepAt(0);
    await sweepAt(HOUR_MS - 1);
    assert.deepEqual([names('in'), names('out')], before);
    await sweepAt(HOUR_MS);
    assert.deepEqual(
      [...names('in'), ...names('out')].filter((name) => !name.startsWith(ALIVE)),
      [],
    );
    assert.equal(names('in').length + names('out').length, 8);
  });

  it('begins the hour anew for one that was alive, or open, in between', async () => {
    write(`out/${DEAD}.1.ans`);
    await sweepAt(0);
    openSenders = [DEAD];
    await sweepAt(HOUR_MS);
    openSenders = [];
    await sweepAt(HOUR_MS + 1);
    await sweepAt(2 * HOUR_MS);
    assert.ok(names('out').includes(`${DEAD}.1.ans`));
    await sweepAt(2 * HOUR_MS + 1);
    assert.ok(!names('out').includes(`${DEAD}.1.ans`));
  });

  it('takes a counter that moves for life', async () => {
    const counter = `in/counted-sender.life`;
    for (let sweeps = 0; sweeps < 4; sweeps += 1) {
      writeFileSync(join(dir, counter), `${sweeps}\n`);
      await sweepAt(sweeps * HOUR_MS);
    }
    assert.ok(names('in').includes('counted-sender.life'));
    await sweepAt(4 * HOUR_MS);
    assert.ok(!names('in').includes('counted-sender.life'));
  });

  it('removes junk of any kind, follows none of it, and leaves requests and marks', async () => {
    const outside = mkdtempSync(join(tmpdir(), 'outside-'));
    writeFileSync(join(outside, 'kept'), 'kept');
    symlinkSync(outside, join(dir, 'in/a-link'));
    symlinkSync(join(outside, 'kept'), join(dir, 'out/b-link'));
    mkdirSync(join(dir, 'in/empty'));
    mkdirSync(join(dir, 'in/full/x'), { recursive: true });
    write(`in/${DEAD}.1.req`);
    write('out/no-fifo');
    await sweepAt(0);
    await sweepAt(HOUR_MS);
    assert.deepEqual(names('in'), [`${DEAD}.1.req`, 'full', `${ALIVE}.life`]);
    assert.deepEqual(names('out'), ['no-fifo']);
    assert.deepEqual(readdirSync(outside), ['kept']);
    rmSync(outside, { recursive: true });
  });

  it('keeps no more answers than its bound, the latest', async () => {
    for (let count = 0; count < 5100; count += 1) {
      write(`out/some-sender.${count}.ans`);
      await sweeper.answered(`some-sender.${count}`);
    }
    const kept = names('out');
    assert.equal(kept.length, 5000);
    assert.ok(kept.includes('some-sender.5099.ans'));
    assert.ok(!kept.includes('some-sender.99.ans'));
  });

  it('has room for so much output, which comes back as old answers go', async () => {
    const half = 512 * 1024 * 1024;
    write('out/some-sender.1.ans');
    write('out/some-sender.1.out');
    truncateSync(join(dir, 'out/some-sender.1.out'), half); // sparse
    assert.equal(sweeper.claim(half), true);
    await sweeper.answered('some-sender.1');
    assert.equal(sweeper.claim(half), true);
    assert.equal(sweeper.claim(1), false);
    await sweeper.answered('some-sender.2');
    assert.deepEqual(names('out'), []);
    assert.equal(sweeper.claim(half), true);
  });
});
