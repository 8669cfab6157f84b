/** The sidecar is killed at every point of a backup, on a real engine. */
import assert from 'node:assert/strict';
import { before, describe, it } from 'node:test';
import { engineSocket } from '../support/engine.ts';
import { ensureDockerCli, say } from '../support/install.ts';
import { CASES, killInHook, killInStop } from './cases.ts';
import { shuffled } from './dice.ts';
import { type Enumeration, enumerate, isQuestion } from './enumerate.ts';

const STACKS = 4;
const LONG_MS = 90 * 60_000;
/** To play one point again: FAULTS_POINT='after engine POST /containers/db/stop #1'. */
const { FAULTS_POINT } = process.env;
/** Of the stories that are not tried at every point in CI, a seed draws some; all of it where FAULTS_WHOLE is set. */
const { FAULTS_WHOLE, FAULTS_SEED = '1', FAULTS_SAMPLE = '12' } = process.env;

describe('a sidecar that is killed', () => {
  before(() => ensureDockerCli(['compose']), { timeout: LONG_MS });
  const socketPath = engineSocket();

  for (const story of CASES) {
    it(`at points of ${story.what}, breaks no law`, { timeout: LONG_MS }, async () => {
      const sample = (points: readonly string[]) =>
        shuffled(points, Number(FAULTS_SEED)).slice(0, Number(FAULTS_SAMPLE));
      const isWhole = FAULTS_POINT === undefined && (story.isWhole === true || FAULTS_WHOLE !== undefined);
      const choose = FAULTS_POINT === undefined ? sample : () => [FAULTS_POINT];
      const stacks = FAULTS_POINT === undefined ? STACKS : 1;
      say(`${story.what}${isWhole ? '' : `: seed ${FAULTS_SEED}`}`);
      const enumeration = await enumerate({ socketPath, stacks, case: story, say, ...(isWhole ? {} : { choose }) });
      assertHeld(enumeration);
      if (isWhole) assertWhole(enumeration);
    });
  }

  it('in the middle of a hook on the host, breaks no law, and the hook does not go on', {
    timeout: LONG_MS,
  }, async () => {
    assert.deepEqual(await killInHook(socketPath), []);
  });

  // A stop once asked cannot be taken back: the engine goes on with it when its caller is gone.
  for (const afterMs of [0, 1000, 2500]) {
    it(`in the middle of a stop of what ignores TERM, after ${afterMs} ms, breaks no law`, {
      timeout: LONG_MS,
    }, async () => {
      assert.deepEqual(await killInStop(socketPath, afterMs), []);
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
  assert.ok(count(' journal ') >= 4 && count(' engine ') >= 4, `${points.length} points: is the tap in its place?`);
}
