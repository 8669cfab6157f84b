/**
 * Kills the daemon at the points of one story until a law is broken, and prints where, and which; nothing: none is.
 *
 *   node test/run.ts --engine -- node test/faults/first-broken.ts STORY
 */
import { engineSocket } from '../support/engine.ts';
import { say } from '../support/install.ts';
import { CASES, type Case, killInStop } from './cases.ts';
import { enumerate } from './enumerate.ts';

/** A world that does not come back is not waited for as long as one that may. */
const PATIENCE_MS = 60_000;
const STACKS = 3;

const RANKS = [/^after engine POST/, /^after journal/, /^before (journal|engine POST)/, /./];

const story = process.argv[2] ?? '';
const socketPath = engineSocket();
const found =
  story === 'in the middle of a stop' ? await inStop() : await atPoints(CASES.find(({ what }) => what === story));
if (found !== undefined) console.log(found);

async function inStop(): Promise<string | undefined> {
  const [first] = await killInStop(socketPath, 1000);
  return first === undefined ? undefined : `${first} | 1 s into the stop`;
}

async function atPoints(known: Case | undefined): Promise<string | undefined> {
  if (known === undefined) throw new Error(`expected one of ${CASES.map(({ what }) => what).join(', ')}; got ${story}`);
  const choose = (points: readonly string[]) => points.toSorted((a, b) => rankOf(a) - rankOf(b));
  const plan = { socketPath, stacks: STACKS, say, choose, untilBroken: true } as const;
  const script = { ...known.script, settleMs: PATIENCE_MS };
  const { verdicts } = await enumerate({ ...plan, case: { ...known, script } });
  const broken = verdicts.find(({ violations }) => violations.length > 0);
  return broken && `${broken.violations[0]} | ${broken.point}`;
}

/** What is done comes before what is asked, and is found out about soonest when it was just done. */
function rankOf(point: string): number {
  return RANKS.findIndex((rank) => rank.test(point));
}
