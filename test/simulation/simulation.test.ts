import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { drawScenario } from './scenario.ts';
import { explain } from './shrink.ts';
import { openShelf } from './sidecar.ts';
import { simulate } from './simulate.ts';

const FIRST_SEED = 1;
const SEEDS = 10_000;
/** A busy machine takes many times what a quiet one does. */
const LONGEST_MS = 1_500_000;

describe('the simulation', () => {
  it(`breaks no law in ${SEEDS} worlds, from seed ${FIRST_SEED}`, { timeout: LONGEST_MS }, async (test) => {
    using shelf = openShelf();
    const broken: number[] = [];
    let runs = 0;
    for (let seed = FIRST_SEED; seed < FIRST_SEED + SEEDS && broken.length < 5; seed += 1) {
      const result = await simulate(drawScenario(seed), shelf);
      runs += result.runs;
      if (result.violations.length > 0) broken.push(seed);
    }
    test.diagnostic(`${SEEDS} seeds, ${runs} runs`);
    const [first] = broken;
    assert.deepEqual(broken, [], first === undefined ? '' : await explain(first, shelf));
  });

  it('tells the same story twice', async () => {
    using shelf = openShelf();
    for (const seed of [7, 42, 4711]) {
      const [one, other] = [
        await simulate(drawScenario(seed), shelf, { tells: true }),
        await simulate(drawScenario(seed), shelf, { tells: true }),
      ];
      assert.deepEqual(one.story, other.story);
    }
  });
});
