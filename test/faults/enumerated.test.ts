/** The sidecar is killed at every point of a backup, on a real engine. */
import assert from 'node:assert/strict';
import { before, describe, it } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { engineSocket } from '../support/engine.ts';
import { ensureDockerCli, say } from '../support/install.ts';
import { until } from '../support/until.ts';
import { shuffled } from './dice.ts';
import { type Enumeration, enumerate, isQuestion } from './enumerate.ts';
import { tell, violationsOf } from './laws.ts';
import { play, type Script } from './play.ts';
import { openShop, type Service } from './shop.ts';

const STACKS = 4;
const STUBBORN: readonly Service[] = [
  { name: 'db', hold: 'stop', ignoresTermSeconds: 4 },
  { name: 'app', hold: 'stop', after: { db: 'service_started' } },
  { name: 'tool' },
];
const LONG_MS = 30 * 60_000;
/** To play one point again: FAULTS_POINT='after engine POST /containers/db/stop #1'. */
const { FAULTS_POINT } = process.env;

/** What is killed at every point in CI; of the rest a sample that a seed draws, or all of it where FAULTS_WHOLE is set. */
const { FAULTS_WHOLE, FAULTS_SEED = '1', FAULTS_SAMPLE = '12' } = process.env;

type Case = {
  readonly what: string;
  readonly script: Script;
  /** Which of the daemon's lives ends at a point. */
  readonly life?: number;
};

const CASES: readonly Case[] = [
  { what: 'a backup whose last hook fails', script: { operation: 'backup', isHookFailing: true } },
  { what: 'a restore', script: { operation: 'restore' } },
  { what: 'a restore that fails', script: { operation: 'restore', commandCode: 9 } },
  {
    what: 'the recovery from a kill in the middle of pre',
    script: { operation: 'backup', kills: ['after engine POST /containers/db/stop #1'] },
    life: 1,
  },
  {
    what: 'the recovery from a kill in the middle of post',
    script: { operation: 'backup', kills: ['after engine POST /containers/db/start #1'] },
    life: 1,
  },
];

describe('a sidecar that is killed', () => {
  before(() => ensureDockerCli(['compose']), { timeout: LONG_MS });
  const socketPath = engineSocket();

  it('at every journal write and engine call of a backup, breaks no law', { timeout: LONG_MS }, async () => {
    const choose = FAULTS_POINT === undefined ? {} : { choose: () => [FAULTS_POINT] };
    const stacks = FAULTS_POINT === undefined ? STACKS : 1;
    const enumeration = await enumerate({ socketPath, stacks, script: { operation: 'backup' }, say, ...choose });
    assertHeld(enumeration);
    if (FAULTS_POINT === undefined) assertWhole(enumeration);
  });

  for (const { what, ...rest } of CASES) {
    it(`at points of ${what}, breaks no law`, { timeout: LONG_MS }, async () => {
      const sample = (points: readonly string[]) =>
        shuffled(points, Number(FAULTS_SEED)).slice(0, Number(FAULTS_SAMPLE));
      const choose = FAULTS_WHOLE === undefined ? { choose: sample } : {};
      say(`${what}: seed ${FAULTS_SEED}`);
      const enumeration = await enumerate({ socketPath, stacks: STACKS, say, ...rest, ...choose });
      assertHeld(enumeration);
      if (FAULTS_WHOLE !== undefined) assertWhole(enumeration);
    });
  }

  // A stop once asked cannot be taken back: the engine goes on with it when its caller is gone.
  for (const afterMs of [0, 1000, 2500]) {
    it(`in the middle of a stop of what ignores TERM, after ${afterMs} ms, breaks no law`, {
      timeout: LONG_MS,
    }, async () => {
      await using shop = await openShop(socketPath, STUBBORN);
      const played = await play(shop, {
        operation: 'backup',
        async meanwhile({ daemon, events }) {
          const isAsked = () => events().some(({ name, what }) => name === 'db' && what === 'kill');
          await until(isAsked, { what: 'db to be asked to end', deadlineMs: 120_000, everyMs: 10 });
          await pause(afterMs);
          daemon.kill();
        },
      });
      assert.deepEqual(violationsOf(shop.services, played), [], tell(played));
      assert.equal(played.exitCode, 75);
      const ends = played.events.filter(({ name, what }) => name === 'db' && ['die', 'start'].includes(what));
      assert.deepEqual(
        ends.map(({ what }) => what),
        ['die', 'start'],
        'stopped, and started once',
      );
    });
  }
});

/** No law was broken, and the process was killed wherever it came by in every run. */
function assertHeld({ verdicts }: Enumeration): void {
  const broken = verdicts.filter(({ violations }) => violations.length > 0);
  assert.deepEqual(broken, []);
}

/** None was left out. */
function assertWhole({ points, verdicts }: Enumeration): void {
  const count = (part: string): number => points.filter((point) => point.includes(part)).length;
  const missed = verdicts.filter(({ isReached }) => !isReached).map(({ point }) => point);
  say(
    `killed at ${verdicts.length - missed.length} of ${points.length} points, 0 laws broken: ${count(' journal ')} of the journal, ${count(' engine ')} of the engine; not come by again: ${missed.join(', ') || 'none'}`,
  );
  assert.deepEqual(verdicts.map(({ point }) => point).toSorted(), points.toSorted());
  assert.deepEqual(
    missed.filter((point) => !isQuestion(point)),
    [],
  );
  assert.ok(missed.length <= points.length / 10, `${missed.length} of ${points.length} were not come by again`);
  assert.ok(
    count(' journal ') >= 80 && count(' engine ') >= 80,
    `${points.length} points are too few: is the tap in its place?`,
  );
}
