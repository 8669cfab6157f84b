/**
 * Stories that a seed draws, each on a real engine that can be hurt. FAULTS_SEEDS=7 plays one again, FAULTS_SEEDS=1-1000
 * many (npm run test:faults).
 */
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { whyNoPrivateEngine } from '../support/engine-private.ts';
import { ensureDockerCli, say } from '../support/install.ts';
import { openLanes } from './lane.ts';
import { tell } from './laws.ts';
import { drawStory, playStory, titleOf } from './random.ts';
import { writeStory } from './stories.ts';

const { FAULTS_SEEDS = '1-50' } = process.env;
const [FIRST = 1, LAST = FIRST] = FAULTS_SEEDS.split('-').map(Number);
const SEEDS = Array.from({ length: LAST - FIRST + 1 }, (_, index) => FIRST + index);
/** Side by side, since a story waits for most of its time. */
const LANES = 3;
/** Longer than all that a story waits for, each to its own end. */
const STORY_MS = 30 * 60_000;

describe('a backup in a world that breaks', { skip: await whyNoPrivateEngine(), concurrency: LANES }, () => {
  const lanes = openLanes();
  before(() => ensureDockerCli(['compose']), { timeout: STORY_MS });
  after(() => lanes[Symbol.asyncDispose](), { timeout: STORY_MS });

  for (const story of SEEDS.map(drawStory)) {
    it(`breaks no law: ${titleOf(story)}`, { timeout: STORY_MS }, async () => {
      const lane = await lanes.take(story.engine);
      const { violations, played, missed, ms } = await playStory(story, lane).catch(async (error) => {
        await lane.giveBack('hurt');
        throw error;
      });
      await lane.giveBack(story.engine === undefined && violations.length === 0 ? 'whole' : 'hurt');
      const late = missed.length === 0 ? '' : `; not met: ${missed.join('; ')}`;
      say(`seed ${story.seed}: exit code ${played.exitCode}, ${(ms / 1000).toFixed(1)} s${late}`);
      if (violations.length > 0) writeStory(`seed ${story.seed}`, violations, `${titleOf(story)}\n${tell(played)}`);
      assert.deepEqual(violations, [], `again: FAULTS_SEEDS=${story.seed} npm run test:faults`);
    });
  }
});
