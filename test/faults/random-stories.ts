/**
 * By hand (npm run test:faults): stories that a seed draws, on real engines that can be hurt. FAULTS_SEEDS=7 plays one again,
 * FAULTS_SEEDS=1-1000 many.
 */
import assert from 'node:assert/strict';
import { before, describe, it } from 'node:test';
import { whyNoPrivateEngine } from '../support/engine-private.ts';
import { ensureDockerCli, say } from '../support/install.ts';
import { type Lane, openLane } from './lane.ts';
import { tell } from './laws.ts';
import { drawStory, type Ending, playStory, type Story, titleOf } from './random.ts';
import { writeStory } from './stories.ts';

const { FAULTS_SEEDS = '1-50' } = process.env;
const [FIRST = 1, LAST = FIRST] = FAULTS_SEEDS.split('-').map(Number);
const ALL_MS = 10 * 60 * 60_000;
/** Each has an engine of its own, so that one story does not hurt another. */
const LANES = ['plain', 'plain', 'live'] as const;

describe('a backup in a world that breaks', { skip: await whyNoPrivateEngine() }, () => {
  before(() => ensureDockerCli(['compose']), { timeout: 30 * 60_000 });

  it(`breaks no law, seeds ${FIRST} to ${LAST}`, { timeout: ALL_MS }, async () => {
    const queue = Array.from({ length: LAST - FIRST + 1 }, (_, index) => drawStory(FIRST + index));
    const kinds = queue.length === 1 ? [queue[0]?.engine ?? 'plain'] : LANES;
    const endings: Ending[] = [];
    await Promise.all(
      kinds.map(async (kind) => {
        const next = (): Story | undefined => {
          const at = queue.findIndex(({ engine }) => engine === undefined || engine === kind);
          return at === -1 ? undefined : queue.splice(at, 1)[0];
        };
        for await (const ending of playAll(kind, next)) {
          endings.push(ending);
          const { story, violations, played, missed, ms } = ending;
          const late = missed.length === 0 ? '' : `; not met: ${missed.join('; ')}`;
          const broken = violations.length === 0 ? '' : `; BROKEN: ${violations.join('; ')}`;
          say(`${titleOf(story)}: exit code ${played.exitCode}, ${(ms / 1000).toFixed(1)} s${late}${broken}`);
          if (violations.length > 0) writeStory(`seed ${story.seed}`, violations, `${titleOf(story)}\n${tell(played)}`);
        }
      }),
    );
    assert.equal(endings.length, LAST - FIRST + 1);
    const broken = endings.filter(({ violations }) => violations.length > 0);
    say(`${endings.length} stories, ${broken.length} broken`);
    assert.deepEqual(
      broken.map(({ story, violations }) => [titleOf(story), ...violations]),
      [],
    );
  });
});

/** One story after the other. An engine that was hurt, or on which a law was broken, is not used again. */
async function* playAll(kind: 'plain' | 'live', next: () => Story | undefined): AsyncGenerator<Ending> {
  let lane: Lane | undefined;
  try {
    for (let story = next(); story !== undefined; story = next()) {
      lane ??= await openLane(kind === 'live' ? ['--live-restore'] : []);
      await lane.ensureImage();
      const ending = await playStory(story, lane);
      if (story.engine !== undefined || ending.violations.length > 0) {
        await lane[Symbol.asyncDispose]();
        lane = undefined;
      }
      yield ending;
    }
  } finally {
    await lane?.[Symbol.asyncDispose]();
  }
}
