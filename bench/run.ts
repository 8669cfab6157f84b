/**
 * Measures, and prints a table of ratios, each within this one run on this one machine:
 *
 *   node bench/run.ts            all of it: ten minutes
 *   node bench/run.ts exec hold  these alone
 *   node bench/run.ts --quick    each once and with little: to see that they work, not what they say
 *
 * It takes the engine at DOCKER_HOST, or one that answers, or else starts one of its own.
 */
import { parseArgs } from 'node:util';
import { openEngine } from '../test/support/engine-choice.ts';
import { measureChain } from './chain.ts';
import { measureCrowd } from './crowd.ts';
import { measureExec } from './exec.ts';
import { measureHold } from './hold.ts';
import { measureHooks } from './hooks.ts';
import { measureIdle } from './idle.ts';
import { measureImage } from './image.ts';
import { type Extent, type Row, tableOf } from './measure.ts';
import { measureSocket } from './socket.ts';
import { measureSpool } from './spool.ts';
import { openStage, type Stage } from './stage.ts';
import { measureStart } from './start.ts';

type Measure = (stage: Stage, extent: Extent) => Promise<readonly Row[]>;

const MEASURES: Readonly<Record<string, Measure>> = {
  idle: measureIdle,
  start: measureStart,
  socket: measureSocket,
  spool: measureSpool,
  hooks: measureHooks,
  exec: measureExec,
  hold: measureHold,
  chain: measureChain,
  crowd: measureCrowd,
  image: measureImage,
};

const { values, positionals } = parseArgs({
  options: { quick: { type: 'boolean', default: false } },
  allowPositionals: true,
});
const chosen = (positionals.length > 0 ? positionals : Object.keys(MEASURES)).map((name) => {
  const measure = MEASURES[name];
  if (measure === undefined) throw new Error(`measure ${name}: expected ${Object.keys(MEASURES).join(', ')}`);
  return { name, measure };
});
const isQuick = values.quick;
const extent: Extent = { isQuick, repetitions: isQuick ? 1 : 25, longRepetitions: isQuick ? 1 : 5 };

await using engine = await openEngine();
process.env.DOCKER_HOST = engine.host;
await using stage = await openStage();
const rows: Row[] = [];
for (const { name, measure } of chosen) {
  process.stderr.write(`measuring ${name}\n`);
  const measured = await measure(stage, extent);
  process.stderr.write(`${tableOf(measured)}\n`); // whoever interrupts it has these
  rows.push(...measured);
}
console.log(tableOf(rows));
