/**
 * Stories that a seed draws, each on a real engine that can be hurt. FAULTS_SEEDS=7 plays one again, FAULTS_SEEDS=1-1000
 * many (npm run test:faults), FAULTS_LANES=6 six at a time. Where no seeds are asked for, as in CI, a story that breaks a
 * law is played once more, and counts if it does so again: what is rare is for whoever plays a thousand, and not for whoever
 * changed something else.
 */
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { whyNoPrivateEngine } from '../support/engine-private.ts';
import { ensureDockerCli, say } from '../support/install.ts';
import { type Lane, type Lanes, openLanes } from './lane.ts';
import { tell } from './laws.ts';
import { drawStory, playStory, type Story, titleOf } from './random.ts';
import { writeStory } from './stories.ts';

const { FAULTS_SEEDS, FAULTS_LANES = '3' } = process.env;
const isAsked = FAULTS_SEEDS !== undefined;
const [FIRST = 1, LAST = FIRST] = (FAULTS_SEEDS ?? '1-50').split('-').map(Number);
const SEEDS = Array.from({ length: LAST - FIRST + 1 }, (_, index) => FIRST + index);
/** Side by side, since a story waits for most of its time. A quiet machine bears more. */
const LANES = Number(FAULTS_LANES);
/** Longer than all that a story waits for, each to its own end, and twice. */
const STORY_MS = 60 * 60_000;

describe('a backup in a world that breaks', { skip: await whyNoPrivateEngine(), concurrency: LANES }, () => {
  const lanes = openLanes();
  before(() => ensureDockerCli(['compose']), { timeout: STORY_MS });
  after(() => lanes[Symbol.asyncDispose](), { timeout: STORY_MS });

  for (const story of SEEDS.map(drawStory)) {
    it(`breaks no law: ${titleOf(story)}`, { timeout: STORY_MS }, async () => {
      const again = `again: FAULTS_SEEDS=${story.seed} npm run test:faults`;
      const violations = await judge(story, lanes);
      if (violations.length === 0) return;
      if (isAsked) assert.fail(`${violations.join('\n')}\n${again}`);
      say(`seed ${story.seed} broke a law, and is played once more: ${violations.join('; ')}; ${again}`);
      assert.deepEqual(await judge(story, lanes), [], again);
    });
  }
});

/** Plays it, and tells of it: the laws that it broke. */
async function judge(story: Story, lanes: Lanes): Promise<readonly string[]> {
  let lane: Lane | undefined;
  try {
    lane = await lanes.take(story.engine);
    const { violations, played, missed, ms } = await playStory(story, lane);
    await lane.giveBack(story.engine === undefined && violations.length === 0 ? 'whole' : 'hurt');
    const late = missed.length === 0 ? '' : `; not met: ${missed.join('; ')}`;
    say(`seed ${story.seed}: exit code ${played.exitCode}, ${(ms / 1000).toFixed(1)} s${late}`);
    if (violations.length > 0) writeStory(`seed ${story.seed}`, violations, `${titleOf(story)}\n${tell(played)}`);
    return violations;
  } catch (error) {
    await lane?.giveBack('hurt');
    return [`it could not be played to its end: ${error}`];
  }
}
