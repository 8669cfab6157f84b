import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import type { Clock } from '../../../src/core/ports.ts';
import { type Attachment, openLeases } from '../../../src/intake/socket-leases.ts';
import { isLost } from '../../support/scripted-sidecar.ts';

const TTL_MS = 60_000;

describe('leases of a socket', () => {
  it('keeps a client alive for as long as its connection, whatever the time', async () => {
    const { leases, clock } = aBook();
    leases.keep('a', () => undefined);
    const lost = losing(leases.lease('a'));
    await clock.pass(100 * TTL_MS);
    assert.equal(lost.isSo(), false);
  });

  it('calls a client dead at once when the connection that was its lease closes', async () => {
    const { leases } = aBook();
    const kept = leases.keep('a', () => undefined);
    const lost = losing(leases.lease('a'));
    kept.detach('broken');
    await settled();
    assert.equal(lost.isSo(), true);
  });

  it('calls a sender dead at once when its request breaks off, and not when it was answered', async () => {
    for (const how of ['broken', 'done'] as const) {
      const { leases } = aBook();
      const attachment = leases.attach('a');
      const lost = losing(leases.lease('a'));
      attachment.detach(how);
      await settled();
      assert.equal(lost.isSo(), how === 'broken');
    }
  });

  it('remembers a death that nobody was waiting for', async () => {
    const { leases } = aBook();
    leases.attach('a').detach('broken');
    assert.equal(await isLost(leases.lease('a')), true);
  });

  it('gives a client the whole term to take over the lease after an answer, and no more', async () => {
    for (const [comesAfterMs, isDead] of [
      [TTL_MS - 5_000, false],
      [TTL_MS + 5_000, true],
    ] as const) {
      const { leases, clock } = aBook();
      leases.attach('a').detach('done');
      const lost = losing(leases.lease('a'));
      await clock.pass(comesAfterMs);
      leases.keep('a', () => undefined);
      await clock.pass(10 * TTL_MS);
      assert.equal(lost.isSo(), isDead);
    }
  });

  it('is lost after a restart only when nobody comes back within the term', async () => {
    const { leases, clock } = aBook();
    const [back, gone] = [losing(leases.lease('back')), losing(leases.lease('gone'))];
    await clock.pass(TTL_MS / 2);
    leases.keep('back', () => undefined);
    await clock.pass(TTL_MS);
    assert.deepEqual([back.isSo(), gone.isSo()], [false, true]);
  });

  it('begins the term anew after a stall of the sidecar itself, in which nobody could have come', async () => {
    const { leases, clock } = aBook();
    const lost = losing(leases.lease('a'));
    await clock.pass(TTL_MS - 3_000);
    await clock.stall(10 * TTL_MS);
    assert.equal(lost.isSo(), false);
    await clock.pass(TTL_MS / 2);
    assert.equal(lost.isSo(), false);
    await clock.pass(TTL_MS);
    assert.equal(lost.isSo(), true);
  });

  it('calls nobody dead once it is closed: hanging up ourselves proves nothing', async () => {
    const { leases, clock } = aBook();
    const kept = leases.keep('kept', () => undefined);
    const request = leases.attach('request');
    const lost = [losing(leases.lease('kept')), losing(leases.lease('request')), losing(leases.lease('absent'))];
    leases[Symbol.dispose]();
    kept.detach('broken');
    request.detach('broken');
    await clock.pass(10 * TTL_MS);
    assert.deepEqual(
      lost.map(({ isSo }) => isSo()),
      [false, false, false],
    );
  });

  it('tells a client that its run was given up, and one that comes too late', async () => {
    const { leases } = aBook();
    const heard: string[] = [];
    leases.keep('a', (why) => heard.push(`at once: ${why}`));
    leases.lease('a').abandon?.('it hung');
    leases.keep('a', (why) => heard.push(`late: ${why}`));
    leases.attach('b').detach('broken');
    leases.keep('b', (why) => heard.push(`back: ${why}`));
    assert.deepEqual(heard, ['at once: it hung', 'late: it hung', 'back: the lease was lost']);
  });

  it('ends the waiting with the reason of its signal, and leaves no term running', async () => {
    const { leases, clock } = aBook();
    const asking = new AbortController();
    const waiting = leases.lease('a').lost(asking.signal);
    await settled();
    assert.equal(clock.sleepers(), 1);
    asking.abort(new Error('enough'));
    await assert.rejects(waiting, { message: 'enough' });
    await settled();
    assert.equal(clock.sleepers(), 0);
    await assert.rejects(leases.lease('a').lost(asking.signal), { message: 'enough' });
  });

  it('never calls a client dead while one of its connections is open, nor alive after the last one broke', async () => {
    const anyMove = fc.record({ who: fc.nat(3), how: fc.constantFrom('attach', 'keep', 'done', 'broken') });
    await fc.assert(
      fc.asyncProperty(fc.array(anyMove, { minLength: 1, maxLength: 12 }), async (moves) => {
        const { leases, clock } = aBook();
        const open = new Map<number, Attachment>();
        const lost = losing(leases.lease('a'));
        for (const { who, how } of moves) {
          if (how === 'done' || how === 'broken') {
            const attachment = open.get(who);
            open.delete(who);
            attachment?.detach(how);
            await settled();
            if (attachment !== undefined && open.size === 0 && how === 'broken') return assert.equal(lost.isSo(), true);
          } else if (!open.has(who)) {
            const attachment = how === 'keep' ? leases.keep('a', () => undefined) : leases.attach('a');
            open.set(who, attachment);
            await clock.pass(10 * TTL_MS);
          }
          if (lost.isSo()) return assert.equal(open.size, 0);
        }
      }),
    );
  });
});

function aBook() {
  const clock = makeHandClock();
  return { clock, leases: openLeases({ ttlMs: TTL_MS, clock }) };
}

function losing(lease: { lost(signal: AbortSignal): Promise<void> }): { isSo(): boolean } {
  let lost = false;
  void lease.lost(new AbortController().signal).then(() => {
    lost = true;
  });
  return { isSo: () => lost };
}

function settled(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

/** A clock that moves when it is told to: sleeper by sleeper, or in one jump, as after a stall. */
function makeHandClock(): Clock & {
  pass(ms: number): Promise<void>;
  stall(ms: number): Promise<void>;
  sleepers(): number;
} {
  let now = 0;
  const sleepers = new Set<{ readonly at: number; readonly wake: () => void }>();
  const wakeDue = (): void => {
    for (const sleeper of [...sleepers].filter(({ at }) => at <= now)) sleeper.wake();
  };
  return {
    sleepers: () => sleepers.size,
    monotonicMs: () => now,
    now: () => new Date(now).toISOString(),
    deadline: () => new AbortController().signal,
    sleep: (ms, signal) =>
      new Promise((resolve, reject) => {
        const sleeper = { at: now + ms, wake: () => leave(resolve) };
        const onAbort = (): void => leave(() => reject(signal.reason));
        const leave = (how: () => void): void => {
          sleepers.delete(sleeper);
          signal.removeEventListener('abort', onAbort);
          how();
        };
        sleepers.add(sleeper);
        signal.addEventListener('abort', onAbort);
      }),
    async pass(ms) {
      const end = now + ms;
      await settled();
      for (;;) {
        const next = Math.min(...[...sleepers].map(({ at }) => at), Number.POSITIVE_INFINITY);
        if (next > end) break;
        now = next;
        wakeDue();
        await settled();
      }
      now = end;
    },
    async stall(ms) {
      now += ms;
      wakeDue();
      await settled();
    },
  };
}
