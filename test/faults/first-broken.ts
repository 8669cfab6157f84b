/**
 * Kills the daemon at the points of one story until a law is broken, and prints where, and which; nothing: none is.
 *
 *   node test/run.ts --engine -- node test/faults/first-broken.ts STORY
 */
import { engineSocket } from '../support/engine.ts';
import { say } from '../support/install.ts';
import { CASES, type Case, killInHook, killInStop } from './cases.ts';
import { enumerate } from './enumerate.ts';

/** A world that does not come back is not waited for as long as one that may. */
const PATIENCE_MS = 60_000;
const STACKS = 3;

const RANKS = [/^after engine POST/, /^after journal/, /^before (journal|engine POST)/, /./];

const story = process.argv[2] ?? '';
const socketPath = engineSocket();
/** Those that have one moment alone. */
const MOMENTS: Readonly<Record<string, () => Promise<readonly string[]>>> = {
  'in the middle of a stop': () => killInStop(socketPath, 1000),
  'in the middle of a hook': () => killInHook(socketPath),
};
const moment = MOMENTS[story];
const found = moment === undefined ? await atPoints(CASES.find(({ what }) => what === story)) : await at(moment);
if (found !== undefined) console.log(found);

async function at(moment: () => Promise<readonly string[]>): Promise<string | undefined> {
  const broken = await moment();
  return broken.length === 0 ? undefined : `${toldOf(broken)} | ${story}`;
}

async function atPoints(known: Case | undefined): Promise<string | undefined> {
  if (known === undefined) throw new Error(`expected one of ${CASES.map(({ what }) => what).join(', ')}; got ${story}`);
  const choose = (points: readonly string[]) => points.toSorted((a, b) => rankOf(a) - rankOf(b));
  const plan = { socketPath, stacks: STACKS, say, choose, untilBroken: true } as const;
  const script = { ...known.script, settleMs: PATIENCE_MS };
  const { verdicts } = await enumerate({ ...plan, case: { ...known, script } });
  const broken = verdicts.find(({ violations }) => violations.length > 0);
  return broken && `${toldOf(broken.violations)} | ${broken.point}`;
}

/** That something was waited for in vain says less than a law. */
function toldOf(violations: readonly string[]): string | undefined {
  return violations.find((one) => !one.startsWith('wait for ')) ?? violations[0];
}

/** What is done comes before what is asked, and is found out about soonest when it was just done. */
function rankOf(point: string): number {
  return RANKS.findIndex((rank) => rank.test(point));
}
