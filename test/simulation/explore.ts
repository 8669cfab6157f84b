/**
 * Looks for worlds in which a law is broken:
 *
 *   node test/simulation/explore.ts [--from N] [--count N]   many seeds, one after the other; exits 1 if one breaks a law;
 *                                                            with --first it ends there
 *   node test/simulation/explore.ts --seed N [--shrink]      one, with its story; made smaller
 */
import { parseArgs } from 'node:util';
import { drawScenario } from './scenario.ts';
import { explain } from './shrink.ts';
import { openShelf } from './sidecar.ts';
import { simulate } from './simulate.ts';

const { values } = parseArgs({
  options: {
    from: { type: 'string', default: '1' },
    count: { type: 'string', default: '1000' },
    seed: { type: 'string' },
    first: { type: 'boolean', default: false },
    shrink: { type: 'boolean', default: false },
  },
});
using shelf = openShelf();
if (values.seed !== undefined) {
  const seed = Number(values.seed);
  if (values.shrink) console.log(await explain(seed, shelf));
  else {
    const scenario = drawScenario(seed);
    const { violations, story } = await simulate(scenario, shelf, { tells: true });
    console.log(JSON.stringify(scenario, undefined, 1));
    for (const line of story) console.log(line);
    for (const { law, what } of violations) console.log(`BROKEN ${law}: ${what}`);
  }
} else {
  const from = Number(values.from);
  const count = Number(values.count);
  const began = performance.now();
  const broken = new Map<string, number[]>();
  let events = 0;
  let runs = 0;
  for (let seed = from; seed < from + count; seed += 1) {
    const result = await simulate(drawScenario(seed), shelf);
    events += result.events;
    runs += result.runs;
    const law = result.violations[0]?.law;
    if (law === undefined) continue;
    console.error(`seed ${seed} breaks ${law}`); // a long search says at once what it finds
    broken.set(law, [...(broken.get(law) ?? []), seed]);
    if (values.first) break;
  }
  const seconds = (performance.now() - began) / 1000;
  for (const [law, seeds] of broken) console.log(`${law}: ${seeds.length}: ${seeds.slice(0, 12).join(' ')}`);
  console.log(`seeds ${from} to ${from + count - 1}: ${runs} runs, ${events} events, ${seconds.toFixed(1)} s`);
  if (broken.size > 0) process.exitCode = 1;
}
